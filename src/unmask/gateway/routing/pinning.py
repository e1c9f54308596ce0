"""Brings what a process knows of a model's providers together with the pin that all processes see.

The pin is asked for when it is needed, and not with each request: when a provider has answered, or embedded the probe
texts, and there is no pin yet; and when the operator took the pin's provider away. What others change is told to it by
:meth:`unmask.gateway.routing.router.Router.refresh_pins`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.gateway.routing.agreement import Agreement, Change, Claim, Pin, Step
from unmask.gateway.routing.pins import Pins

#: Steps that can follow from one another: a pin is forgotten, another is claimed, its vectors are added.
_STEPS = 4


class Pinning:
    """Keeps the agreement of a model's providers in step with its pin.

    Args:
        model: its name.
        agreement: of its providers.
        pins: of all models.
    """

    def __init__(self, model: str, agreement: Agreement, pins: Pins) -> None:
        self._model = model
        self._agreement = agreement
        self._pins = pins
        self._proving: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prove(self, name: str, embed: Callable[[], Awaitable[NDArray[np.float32]]]) -> bool:
        """Return whether an answer that a provider has just given may be given out.

        Args:
            name: of the provider.
            embed: has it embed the probes; called if it has not been compared yet.

        Raises:
            ServingError: the probes could not be embedded.
            DatabaseError: whose the model is cannot be known now.
        """
        agreement = self._agreement
        async with self._proving[name]:  # of many first answers, one is compared
            blind = False
            if not agreement.allows(name) and agreement.needs(name):
                try:
                    agreement.probed(name, await embed())
                except InputError:
                    # It answers, and will not embed them: it can only ever answer alone.
                    blind = True
            if not agreement.allows(name):
                await self.settle(name, blind=blind)
            return agreement.allows(name)

    async def settle(self, first: str | None, *, blind: bool = False) -> None:
        """Do to the pin what is to be done; nothing is asked for where there is nothing.

        Args:
            first: the provider that is the pin if there is none; None if nobody can be it now.
            blind: whether it is the pin even if it does not embed the probes.

        Raises:
            DatabaseError: it cannot be done now.
        """
        for _ in range(_STEPS):
            row = self._agreement.row
            step = self._agreement.step(first, blind=blind)
            if step is None:
                return
            found = await self._do(step)
            if self._agreement.row is row:  # nobody has learnt of it meanwhile
                self._agreement.adopt(found, afresh=False)

    async def _do(self, step: Step) -> Pin | None:
        if isinstance(step, Claim):
            return await self._pins.claim(self._model, step.provider, step.reference)
        if isinstance(step, Change):
            return await self._pins.change(step.pin, step.provider, step.reference)
        return await self._pins.forget(self._model, step.pin.mark)
