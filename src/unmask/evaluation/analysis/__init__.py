"""Does an encoder look both ways, what changed against its base, and what do its vectors depend on?"""

from unmask.evaluation.analysis.forms import ScoredPairs
from unmask.evaluation.analysis.report import COLUMNS, rows, verdict, write
from unmask.evaluation.analysis.running import INSTRUCTION, Analysis, analyse

__all__ = ["COLUMNS", "INSTRUCTION", "Analysis", "ScoredPairs", "analyse", "rows", "verdict", "write"]
