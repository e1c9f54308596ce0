"""What became of the texts of each source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(kw_only=True)
class Tally:
    """Counts of one source, kept while it is read; in the end ``read`` is ``used`` plus all ``skipped``.

    Attributes:
        name: the source's.
        read: texts or pairs read.
        used: those that went into rows, at least in part.
        bytes: size of the texts read, blank ones left out, as UTF-8.
        rows: rows made.
        tokens: tokens in these rows, template and special tokens included.
        skipped: how many were not used, by reason.
        rest: tokens at the end that made no whole block.
        spare_negatives: negatives of pairs beyond those of the source's first pair, left out.
        stopped: whether reading ended at the limit, not at the source's end.
    """

    name: str
    read: int = 0
    used: int = 0
    bytes: int = 0
    rows: int = 0
    tokens: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    rest: int = 0
    spare_negatives: int = 0
    stopped: bool = False

    def skip(self, reason: str, count: int = 1) -> None:
        """Count texts that are not used."""
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a store of rows was made of.

    Attributes:
        unit: what a row is, in the plural.
        sources: the final counts of each source, in order; a row's group is an index into it.
    """

    unit: str
    sources: tuple[Tally, ...]

    @property
    def rows(self) -> int:
        """Rows of all sources."""
        return sum(tally.rows for tally in self.sources)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(tally.tokens for tally in self.sources)

    def lines(self) -> list[str]:
        """Return the report to print: a line or two a source, and the sum if there are several sources."""
        lines = [line for tally in self.sources for line in self._lines_of(tally)]
        if len(self.sources) > 1:
            lines.append(f"{len(self.sources)} sources: {self.rows:,} {self.unit}, {self.tokens:,} tokens")
        return lines

    def _lines_of(self, tally: Tally) -> Iterable[str]:
        end = ", stopped at the limit" if tally.stopped else ""
        yield (
            f"{tally.name}: {tally.rows:,} {self.unit}, {tally.tokens:,} tokens; read {tally.read:,} "
            f"({tally.bytes / 1e6:.1f} MB), used {tally.used:,}{end}"
        )
        notes = [f"skipped {count:,} {reason}" for reason, count in tally.skipped.items()]
        if tally.rest:
            notes.append(f"dropped the last {tally.rest:,} tokens, no whole row")
        if tally.spare_negatives:
            notes.append(f"left out {tally.spare_negatives:,} negatives beyond the first row's number")
        if notes:
            yield f"  {', '.join(notes)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return what :meth:`as_dict` gave as a report again."""
        return cls(unit=data["unit"], sources=tuple(Tally(**tally) for tally in data["sources"]))
