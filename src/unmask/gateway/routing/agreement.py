"""Whether a model's providers give the same vectors; only those that do may answer for one another.

A vector is of use beside others of the same model alone. Two providers of one name may serve different weights, or cut,
pool and prompt differently: their vectors look alike and mean nothing to each other. So each provider embeds a dozen
probe texts, and is compared with the provider that the model is *pinned* to:

- Until somebody has answered, providers are tried in the operator's order. The first that answers is the pin.
- Another one may answer once its vectors of all probes have a cosine of 0.999 or more with the pin's.
- The pin's vectors are kept with it (``pins.py``): others can be compared, and answer, while it is down.
- One that has been down, or was changed, is compared again first; the pin itself, too.
- One that does not agree never answers, not even while the pin is down: no vector is better than a wrong one. This
  holds for the pin, too, if it comes back with other vectors than it was pinned for.

The pin is kept for all processes, until the operator takes the provider away or has the pin forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.text import Text

#: The least cosine at which two vectors count as the same one.
AGREED: Final = 0.999
#: ``single``: there is nobody to agree with. ``checking``: not all have been compared. ``pinned``: some do not agree.
Standing = Literal["single", "checking", "agreed", "pinned"]

_log: Final = logging.getLogger("unmask.routing")

_DISAGREES: Final = "provider disagrees and does not answer"
_OTHER_PIN: Final = "the provider that the model is pinned to has other vectors than it had, and does not answer"

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Pin:
    """Which provider's vectors are a model's.

    Attributes:
        model: its name.
        provider: its name.
        since: when the model was pinned to it; microseconds since 1970.
        mark: another one after each change.
        reference: the provider's vectors of :data:`PROBES`, None if they are not known.
    """

    model: str
    provider: str
    since: int
    mark: str
    reference: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Claim:
    """Pin a model that has no pin.

    Attributes:
        provider: whose vectors are to be the model's.
        reference: its vectors of the probes, None if it will not embed them.
    """

    provider: str
    reference: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Have a pin stand for another provider that agrees with it, or add the vectors that were not known.

    Attributes:
        pin: that there is.
        provider: whom it is to stand for.
        reference: the vectors that it is to stand for.
    """

    pin: Pin
    provider: str
    reference: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Forget:
    """Forget a pin: its provider is gone, and nobody agrees with it.

    Attributes:
        pin: that there is.
    """

    pin: Pin


#: What is to be done to the pin that all processes see.
Step = Claim | Change | Forget


class Agreement:
    """Which of a model's providers may answer.

    What it knows follows from the pin it was last told of (:meth:`adopt`) and from vectors of the probes
    (:meth:`probed`). It changes no pin by itself: :meth:`step` says what is to be done.

    Args:
        model: for the log.
        names: of the providers, in the operator's order.

    Attributes:
        row: the pin that all processes see, as far as this one knows; None before there is one.
        figures: least cosine with the pin's vectors, of those that have been compared with them; the pin's own, too.
    """

    def __init__(self, model: str, names: Sequence[str]) -> None:
        self._model = model
        self._names = tuple(names)
        self._single = len(self._names) == 1
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self.row: Pin | None = None
        self.figures: dict[str, float] = {}
        #: Who is to be the pin once there can be one: it answered alone before, and unchecked.
        self._wish: str | None = None
        #: Whether the pin's provider is another than it was, under its name; and whether the pin is to go at once.
        self._changed = self._outdated = False

    @property
    def pin(self) -> str | None:
        """The provider whose vectors are the model's; None before the first answer, and when it is gone."""
        if self.row is None or self._outdated:
            return self._wish
        return None if self._changed or self.row.provider not in self._names else self.row.provider

    @property
    def standing(self) -> Standing:
        """How it stands."""
        if self._single:
            return "single"
        if any(not self._agrees(figure) for figure in self.figures.values()):
            return "pinned"
        others = set(self._names) - {self.pin}
        return "agreed" if self.pin and others <= set(self.figures) else "checking"

    def allows(self, name: str) -> bool:
        """Return whether an answer of a provider may be given out: the pin is known, and it agrees with it."""
        if self._single:
            return True
        if self.row is None or self._outdated:
            return False
        if self.row.reference is None:
            return name == self.pin
        return self._agrees(self.figures.get(name))

    def may_ask(self, name: str) -> bool:
        """Return whether a provider may be asked: it may answer, or can be compared once it has."""
        if self._single or self.allows(name):
            return True
        if self.pin is not None:
            return name == self.pin and name not in self.figures
        return self.row is None or name not in self.figures

    def needs(self, name: str) -> bool:
        """Return whether a provider must embed the probes."""
        return not self._single and name not in self._vectors

    def probed(self, name: str, vectors_ND: NDArray[np.float32]) -> None:
        """Take a provider's vectors of the probes, in the order of :data:`PROBES`."""
        if not self._single:
            self._vectors[name] = vectors_ND
            self._compare(name)

    def forget(self, name: str) -> None:
        """A provider went down, and may come back as another: it is to be compared again."""
        self._vectors.pop(name, None)
        self.figures.pop(name, None)

    def adopt(self, row: Pin | None, *, afresh: bool = True) -> None:
        """Go by the pin that there is now, None for none.

        Args:
            row: the pin.
            afresh: whether a pin that is gone was taken away from outside: providers may serve other weights then, and
                are to embed the probes again.
        """
        before, self.row = self.row, row
        if (before.mark if before else None) == (row.mark if row else None):
            return
        self._changed = False
        # One that is learnt of late, and whose provider is gone as well, does not outdo who answered alone.
        self._outdated = self._outdated and row is not None and row.provider not in self._names
        if row is None:
            _log.info("model is not pinned any more", extra={"fields": {"model": self._model}})
        else:
            self._wish = self._wish if self._outdated else None
            _log.info("model is pinned", extra={"fields": {"model": self._model, "provider": row.provider}})
        if before is not None and (afresh if row is None else _is_other(before, row)):
            self._vectors.clear()
        self.figures.clear()
        for name in self._vectors:
            self._compare(name)

    def step(self, first: str | None = None, *, blind: bool = False) -> Step | None:
        """Return what is to be done to the pin that all processes see, None for nothing.

        Args:
            first: the provider that is the pin if there is none; None if nobody can be it now.
            blind: whether it is the pin even if it does not embed the probes.
        """
        row = self.row
        if row is None:
            name = self._wish or first
            if self._single or name is None or (name not in self._vectors and not blind):
                return None
            return Claim(provider=name, reference=self._vectors.get(name))
        if self._outdated:
            return Forget(pin=row)
        if self.pin is None:
            return self._inherit(row)
        found = self._vectors.get(row.provider) if row.reference is None else None
        return Change(pin=row, provider=row.provider, reference=found) if found is not None else None

    def _inherit(self, row: Pin) -> Step | None:
        """Return what becomes of a pin whose provider is gone: whoever agrees with it goes on in its place."""
        heir = next((name for name in self._names if self._agrees(self.figures.get(name))), None)
        if heir is not None:
            return Change(pin=row, provider=heir, reference=row.reference)
        unknown = row.reference is None and not self._single
        return Forget(pin=row) if unknown or self.figures.keys() >= set(self._names) else None

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
        new.row, wish = self.row, self._wish
        new._outdated = self._outdated
        new._changed = self._changed or (self.row is not None and self.row.provider not in kept)
        if self._single:
            # It answered unchecked: whatever the pin was before, the model's vectors are its own.
            (wish,) = self._names
            new._outdated = self._outdated or (self.row is not None and self.row.provider != wish)
        if new._outdated:
            new.figures.clear()
        new._wish = wish if wish in kept else None
        return new

    def _compare(self, name: str) -> None:
        if self.row is None or self.row.reference is None:
            return
        figure = self.figures[name] = least_cosine(self.row.reference, self._vectors[name])
        if not self._agrees(figure):
            fields: dict[str, Any] = {"model": self._model, "provider": name, "pinned_to": self.row.provider}
            fields |= {"cosine": round(figure, 6), "expected": AGREED}
            own = name == self.row.provider
            _log.warning(_OTHER_PIN if own else _DISAGREES, extra={"fields": fields})

    def _agrees(self, figure: float | None) -> bool:
        return figure is not None and figure >= AGREED


def _is_other(before: Pin, after: Pin) -> bool:
    """Return whether a pin stands for other vectors than before."""
    one_ND, other_ND = before.reference, after.reference
    return one_ND is not None and (other_ND is None or not np.array_equal(one_ND, other_ND))
