"""While a request arrives and is answered: whether its client is still there, and whether it takes too long."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final, Self

from unmask.gateway.api.errors import SlowAnswerError
from unmask.gateway.api.limits import Body, ClientGoneError, Receive

#: Seconds after which a client is listened to. Most answers are there before, and a timer costs less than a task.
_AT_ONCE: Final = 0.02
#: Seconds after which to look again whether a body has arrived.
_AGAIN: Final = 0.5


class Watch:
    """Cancels what is done inside of it when the client hangs up, or when it takes too long.

    One timer does for the body and the answer: most requests are over before it ends.

    Args:
        receive: of the ASGI server.
        seconds: that it may take once the body is there.
        body: that is read inside of it, None if none is.
    """

    def __init__(self, receive: Receive, seconds: float, body: Body | None = None) -> None:
        self._receive = receive
        self._seconds = seconds
        self._body = body
        self._listener: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    def __enter__(self) -> Self:
        """Begin to watch the task that runs."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._timer = loop.call_later(min(_AT_ONCE, self._seconds), self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End.

        Raises:
            ClientGoneError: the client hung up.
            SlowBodyError: the body did not arrive.
            SlowAnswerError: the answer took too long.
        """
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._reason is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._reason from error

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._body is None or not self._body.more:
            self._timer = loop.call_later(max(0.0, self._seconds - _AT_ONCE), self._expire)
            self._listener = loop.create_task(self._until_gone())
        elif (left := self._body.seconds_left()) > 0:
            self._timer = loop.call_later(min(left, _AGAIN), self._look)
        else:
            self._cancel(self._body.late())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel(ClientGoneError())

    def _expire(self) -> None:
        told = f"The answer took more than {self._seconds:g} seconds. Send fewer inputs a request."
        self._cancel(SlowAnswerError(told))

    def _cancel(self, reason: Exception) -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()
