"""Whether a model can be called now: a function of its entry and of what is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from unmask.gateway.catalogue.entry import Entry

Status = Literal["live", "warming", "coming soon", "retired"]
#: Every status, in the order in which lists show them.
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

#: What an engine says of a model → what its page says. A cold one is loaded when it is asked for, and so can be asked
#: for; one that could not be loaded cannot.
_OF_STATE: Final[Mapping[str, Status]] = {
    "ready": "live",
    "cold": "live",
    "warming": "warming",
    "failed": "coming soon",
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A model as a list shows it.

    Attributes:
        entry: what the catalogue says.
        status: at this moment.
    """

    entry: Entry
    status: Status


def status_of(entry: Entry, served: Mapping[str, str]) -> Status:
    """Return whether a model can be called.

    Args:
        entry: the model. One that is retired stays so; one that names a provider is live.
        served: what answers, by any name the entry accepts: an engine's state (``ready``, ``cold``, ``warming``,
            ``failed``), or ``ready`` for what a provider answers that the gateway was told of elsewhere.

    Returns:
        The best that its names together give; ``coming soon`` if nothing answers for it.

    Raises:
        KeyError: a state is none of an engine's.
    """
    if entry.retired:
        return "retired"
    if entry.providers:
        return "live"
    names = {name.casefold() for name in entry.accepted}
    found = {_OF_STATE[state] for name, state in served.items() if name.casefold() in names}
    return next((status for status in STATUSES if status in found), "coming soon")
