"""What the project asks of itself on a GPU, and what a result says to it.

Shares of the floor are those of ``gpu_floor.py``, with rates and seconds of the same rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpu_floor import Work

Found = Mapping[str, Any]

#: Shares of the floor in bfloat16, by mix.
SHARES: Final = {"real": 0.85, "512": 0.85, "16": 0.6}
#: Mixes on which ratios count; on the others the peers take one turn.
RATIOS: Final = ("real", "512")
#: Times the speed of another.
TIMES: Final = {"sentence-transformers": 2.0, "padded": 2.0}
FLOAT8: Final = 1.5
TRAINING: Final = 2.0
#: Least cosines, and largest relative errors, of ways to compute the same vector.
COSINES: Final = {"alone": 0.9999, "padded": 0.9999, "in other packs": 0.99999, "cpu float32": 0.999, "fp8": 0.995}
ERRORS: Final = {"alone": 1e-2, "padded": 1e-2}
#: Least cosine of everybody's vectors on the texts that were timed.
SAME: Final = {"sentence-transformers": 0.999, "padded": 0.999, "fp8": 0.995}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One goal and what was measured.

    Attributes:
        what: in words.
        value: as measured.
        bound: what is asked.
        most: the value must not be more, instead of not less.
    """

    what: str
    value: float
    bound: float
    most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is met; not a number is not."""
        return self.value <= self.bound if self.most else self.value >= self.bound

    def __str__(self) -> str:
        """Return it as a line."""
        sign = "≤" if self.most else "≥"
        return f"{self.what}: {self.value:.5g}, goal {sign} {self.bound:g}: {'met' if self.met else '**missed**'}"


def mixes(job: Found) -> dict[str, Any]:
    """Return what was measured of each mix, by its name."""
    return {name.removeprefix("mix/"): part for name, part in job["parts"].items() if name.startswith("mix/")}


def speed(mix: Found, name: str) -> float:
    """Return a contender's tokens a second, the median."""
    return float(mix["tokens"] / statistics.median(mix["seconds"][name]))


def floor(mix: Found, form: str, bandwidth: float) -> float:
    """Return the tokens a second that no version can pass; joined products count where they are faster."""
    rates = {name: statistics.median(values) for name, values in mix["rates"].items()}
    rates["bf16"] = max(rates["bf16"], rates.pop("joined"))
    return float(mix["tokens"] / Work(**mix["work"]).seconds(form, rates, bandwidth))


def bandwidth(job: Found) -> float:
    """Return a device's bytes a second; without limit if they were not measured, so that products alone count."""
    return float(job["parts"].get("floor", {}).get("bandwidth", float("inf")))


def goals(job: Found) -> Iterator[Goal]:
    """Yield the goals that a job has something to say to."""
    for name, mix in mixes(job).items():
        yield from _of_mix(_title(name), name, mix, bandwidth(job))
    for way, found in job["parts"].get("right", {}).get("ways", {}).items():
        if way in ERRORS:
            yield Goal(what=f"{way}: relative error", value=found["relative_error"], bound=ERRORS[way], most=True)
        if way in COSINES:
            yield Goal(what=f"{way}: least cosine", value=found["cosine"], bound=COSINES[way])
    for name, part in job["parts"].items():
        if name.startswith("compare/"):
            medians = {side: statistics.median(seconds) for side, seconds in part["seconds"].items()}
            times = medians["padded"] / medians["unmask"]
            yield Goal(what=f"{name.removeprefix('compare/')}: times the padded step", value=times, bound=TRAINING)


def _of_mix(title: str, name: str, mix: Found, most: float) -> Iterator[Goal]:
    measured = {side for side, seconds in mix["seconds"].items() if seconds}
    if "bf16" not in measured:
        return
    ours = speed(mix, "bf16")
    if name in SHARES:
        share = ours / floor(mix, "bf16", most)
        yield Goal(what=f"{title}: share of the floor in bf16", value=share, bound=SHARES[name])
    if name not in RATIOS:
        return
    if "fp8" in measured:
        yield Goal(what=f"{title}: fp8, times bf16", value=speed(mix, "fp8") / ours, bound=FLOAT8)
    for other, bound in TIMES.items():
        if other in measured:
            yield Goal(what=f"{title}: times {other}", value=ours / speed(mix, other), bound=bound)
    for other, bound in SAME.items():
        if other in mix["cosine"]:
            yield Goal(what=f"{title}: {other}, least cosine", value=mix["cosine"][other]["least"], bound=bound)


def _title(name: str) -> str:
    return "mix" if name == "real" else f"{name} tokens"
