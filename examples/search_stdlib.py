"""Search Python's own documentation with the encoder that comes with Unmask.

`make demo` runs this. The first run fetches SmolLM2-135M (98 MB), converts it, puts our adapters on it and encodes the
corpus; later runs answer in seconds. How often such questions are answered: experiments/demo_questions.py.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask import Encoder
from unmask.bulk.kept import KeptVectors
from unmask.bulk.search import TextSearch
from unmask.corpora import Entry, demo_entries
from unmask.errors import UnmaskError
from unmask.hub.catalogue import DEFAULT

QUESTIONS = (
    "How do I open a page in the user's browser?",
    "How do I compare two texts and show the differences?",
    "How can I ask the user for a password without showing it?",
    "How do I compute the median of some numbers?",
    "How do I wait for several coroutines to finish?",
)
NEXT = (
    'unmask search stdlib "How do I hash a password?"',
    'unmask similarity "a cat sleeps" "a kitten naps" "stock prices fell"',
    "unmask info",
)


def main() -> None:
    """Load, encode, answer."""
    console = Console()
    entries = demo_entries()
    encoder = Encoder.load(progress=True)
    documents = [entry.document for entry in entries]
    if KeptVectors(encoder).find(documents) is None:
        console.print(f"Encoding {len(documents):,} docstrings, once: {estimate(encoder, documents)}.")
    search = TextSearch(encoder, documents, progress=True)
    console.print(f"Searching {len(entries):,} docstrings of Python's standard library, each a vector of {DEFAULT}.")
    console.print(f'Before each question stands: "{search.instruction}"; before the docstrings, nothing.')
    if search.index.standardised:
        console.print(
            f"All of them are alike (mean cosine {search.index.likeness:.2f}), so each dimension is standardised first "
            "(arXiv 2109.04404)."
        )
    for question in QUESTIONS:
        console.print(answer(search, entries, question))
    while sys.stdin.isatty() and (question := console.input("Your question (empty line ends): ").strip()):
        console.print(answer(search, entries, question))
    console.print("Try next:", *NEXT, sep="\n  ", markup=False, highlight=False, soft_wrap=True)


def estimate(encoder: Encoder, documents: list[str]) -> str:
    """Return how long it will take, by a sample."""
    sample = documents[:: len(documents) // 32]
    encoder.encode(sample[:4])
    start = time.perf_counter()
    encoder.encode(sample)
    seconds = (time.perf_counter() - start) / len(sample) * len(documents)
    return f"about {seconds:.0f} s"


def answer(search: TextSearch, entries: list[Entry], question: str) -> Table:
    """Return a table of what is nearest to a question."""
    table = Table(title=f"\n{question}", title_justify="left", title_style="bold", box=None, expand=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("name", style="cyan", no_wrap=True)
    table.add_column("first line", ratio=1, no_wrap=True, overflow="ellipsis")
    for score, position in search.find(question, 5):
        entry = entries[position]
        table.add_row(f"{score:.2f}", Text(entry.name), Text(entry.text))
    return table


if __name__ == "__main__":
    try:
        main()
    except UnmaskError as error:
        sys.exit(f"{' '.join(str(error).split())}")
    except (KeyboardInterrupt, EOFError):
        sys.exit(130)
