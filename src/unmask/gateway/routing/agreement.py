"""Whether a model's providers give the same vectors; only those that do may answer for one another.

A vector is of use beside others of the same model alone. Two providers of one name may serve different weights, or cut,
pool and prompt differently: their vectors look alike and mean nothing to each other. So each provider embeds a dozen
probe texts, and is compared with the provider that the model is *pinned* to:

- Until somebody has answered, providers are tried in the operator's order. The first that answers is the pin.
- Another one may answer once its vectors of all probes have a cosine of 0.999 or more with the pin's.
- One that has been down, or was changed, is compared again first. What the pin's vectors were is remembered: others can
  be compared, and answer, while it is down.
- One that does not agree never answers, not even while the pin is down: no vector is better than a wrong one.

The pin is forgotten with the process, or when the operator takes the provider away.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.text import Text

#: The least cosine at which two vectors count as the same one.
AGREED: Final = 0.999
#: ``single``: there is nobody to agree with. ``checking``: not all have been compared. ``pinned``: some do not agree.
Standing = Literal["single", "checking", "agreed", "pinned"]

_log: Final = logging.getLogger("unmask.routing")

_RETRIEVE: Final = "Given a question, retrieve passages that answer it:"
_HARBOURS: Final = ("Aros", "Brekk", "Calder", "Dunmore", "Eyst", "Farrow")
_LONG: Final = " ".join(
    f"On day {day} the ferry left {harbour} at noon, carried {day * 7} passengers over calm water, and came "
    f"back before dark with the mail, two bicycles and a crate of pears."
    for day, harbour in enumerate(_HARBOURS, start=1)
)
#: What providers are compared on.
PROBES: Final = (
    Text("", "The harbour was quiet when the ferry came in."),
    Text("", "a"),
    Text("", "Reset your password from the sign-in page; the link works once."),
    Text(_RETRIEVE, "why does bread rise"),
    Text(_RETRIEVE, "Wie komme ich vom Bahnhof zum Fährhafen?"),
    Text("Classify the sentiment of the review:", "Two hours late, and nobody said a word. Never again!"),
    Text("", "Ça coûte 12,50 € — naïve façade, œuvre complète."),
    Text("", "今日は雨が降っているので、船は出ません。"),
    Text("", "Погода в гавани была тихой 🌊⛵, and the bells rang."),
    Text("", "def area(radius):\n    return 3.14159 * radius ** 2  # square metres\n"),
    Text("", "  Leading spaces,\ttabs, and CAPITALS: 3.1e-4 < x <= 10_000  "),
    Text("", _LONG),
)


def least_cosine(one_ND: NDArray[np.float32], other_ND: NDArray[np.float32]) -> float:
    """Return the least cosine between vectors of the same text; 0 where they have not as many components."""
    if one_ND.shape != other_ND.shape:
        return 0.0
    one, other = one_ND.astype(np.float64), other_ND.astype(np.float64)
    lengths_N = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths_N).min())


class Agreement:
    """Which of a model's providers may answer.

    Args:
        model: for the log.
        names: of the providers, in the operator's order.

    Attributes:
        pin: the provider whose vectors are the model's; None before the first answer.
        figures: least cosine with the pin's vectors, of those that have been compared with them.
    """

    def __init__(self, model: str, names: Sequence[str]) -> None:
        self._model = model
        self._names = tuple(names)
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._reference: NDArray[np.float32] | None = None
        self.pin: str | None = None
        self.figures: dict[str, float] = {}

    @property
    def standing(self) -> Standing:
        """How it stands."""
        if len(self._names) == 1:
            return "single"
        if any(not self._agrees(figure) for figure in self.figures.values()):
            return "pinned"
        others = set(self._names) - {self.pin}
        return "agreed" if self.pin and others <= set(self.figures) else "checking"

    def allows(self, name: str) -> bool:
        """Return whether a provider may answer now."""
        if self.pin is None or name == self.pin or len(self._names) == 1:
            return True
        return self._agrees(self.figures.get(name))

    def answered(self, name: str) -> bool:
        """Take note of an answer; return whether it may be given out, as may have changed while it was computed."""
        if self.pin is None:
            self._pin(name)
        return self.allows(name)

    def needs(self, name: str) -> bool:
        """Return whether a provider must embed the probes."""
        return len(self._names) > 1 and name not in self._vectors

    def probed(self, name: str, vectors_ND: NDArray[np.float32], *, first: bool) -> None:
        """Take a provider's vectors of the probes.

        Args:
            name: of the provider.
            vectors_ND: in the order of :data:`PROBES`.
            first: whether none before it in the operator's order is well: if there is no pin, it is the one.
        """
        if len(self._names) == 1:
            return
        self._vectors[name] = vectors_ND
        if self.pin is None and first:
            self._pin(name)
        elif name == self.pin:
            self._anchor()
        else:
            self._compare(name)

    def forget(self, name: str) -> None:
        """A provider went down, and may come back as another: it is to be compared again."""
        self._vectors.pop(name, None)
        self.figures.pop(name, None)

    def carried(self, names: Sequence[str], unchanged: Collection[str]) -> Agreement:
        """Return what holds after the operator changed the providers.

        Args:
            names: of the providers there are now.
            unchanged: those that are as they were.
        """
        new = Agreement(self._model, names)
        kept = [name for name in names if name in unchanged]
        new._vectors = {name: self._vectors[name] for name in kept if name in self._vectors}
        new.figures = {name: self.figures[name] for name in kept if name in self.figures}
        # Without the pin itself, whoever agreed with it goes on in its place.
        new.pin = next((name for name in kept if name == self.pin), None) or next(
            (name for name in kept if self._agrees(self.figures.get(name))), None
        )
        if new.pin is not None:
            new._reference = self._reference
            new.figures.pop(new.pin, None)
        else:
            new.figures.clear()
        return new

    def _pin(self, name: str) -> None:
        self.pin = name
        if len(self._names) > 1:
            _log.info("model is pinned", extra={"fields": {"model": self._model, "provider": name}})
            self._anchor()

    def _anchor(self) -> None:
        """Take the pin's vectors for the model's, and compare everybody with them."""
        assert self.pin is not None, "only the pin's vectors are the model's"
        found = self._vectors.get(self.pin)
        if found is None:
            return
        before, self._reference = self._reference, found
        if before is not None and not self._agrees(figure := least_cosine(before, found)):
            self._warn("the vectors of the provider that the model is pinned to have changed", self.pin, figure)
        for name in self._vectors.keys() - {self.pin}:
            self._compare(name)

    def _compare(self, name: str) -> None:
        if self._reference is None:
            return
        figure = self.figures[name] = least_cosine(self._reference, self._vectors[name])
        if not self._agrees(figure):
            self._warn("provider disagrees and does not answer", name, figure)

    def _agrees(self, figure: float | None) -> bool:
        return figure is not None and figure >= AGREED

    def _warn(self, message: str, name: str, figure: float) -> None:
        fields: dict[str, Any] = {"model": self._model, "provider": name, "pinned_to": self.pin}
        _log.warning(message, extra={"fields": {**fields, "cosine": round(figure, 6), "expected": AGREED}})
