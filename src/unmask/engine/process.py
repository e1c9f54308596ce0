"""A worker process, seen from the server: started, spoken to, killed, started again."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import unmask
from unmask.engine.messages import HEADER, Answer, Order, frame, parse

log = logging.getLogger(__name__)

#: The command that is a worker; device and threads are put behind it.
WORKER: Final = (sys.executable, "-P", "-m", "unmask.engine.worker")
#: Seconds before a worker that died again is started again: doubled with each death in a row.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
#: Seconds that a worker may take to end when its pipe has been closed.
FAREWELL: Final = 5.0
#: Bytes of answers that are read ahead.
_READ_AHEAD: Final = 1 << 24


class WorkerProcess:
    """One worker, restarted whenever it dies, until it is closed.

    Args:
        device: torch device.
        threads: processor threads; None: as torch chooses.
        command: what to run.
        received: called with each answer.
        died: called after each death, when nothing more can come from the process that died.

    Attributes:
        deaths: since the start.
        row: deaths since :meth:`recovered` was last called.
    """

    def __init__(
        self,
        device: str,
        *,
        threads: int | None,
        command: Sequence[str],
        received: Callable[[Answer], None],
        died: Callable[[], None],
    ) -> None:
        self.device = device
        self.deaths = 0
        self.row = 0
        self._command = [*command, device, *([] if threads is None else [str(threads)])]
        self._received, self._died = received, died
        self._process: Process | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it; answers come through the callbacks."""
        self._task = asyncio.create_task(self._live(), name=f"worker on {self.device}")

    def send(self, order: Order) -> None:
        """Give an order; without effect while no process runs, and once it is closed."""
        if self._process is not None and self._process.stdin is not None and not self._closing.is_set():
            self._process.stdin.write(frame(order))

    def kill(self) -> None:
        """End the process as it stands; it is restarted."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def recovered(self) -> None:
        """Note that it works: the next death is the first in a row."""
        self.row = 0

    async def close(self) -> None:
        """End the process for good; what it has not answered is lost."""
        self._closing.set()
        if self._task is None:
            return
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        _, late = await asyncio.wait([self._task], timeout=FAREWELL)
        if late:
            self.kill()
        await self._task

    async def _live(self) -> None:
        while True:
            await self._run_once()
            if self._closing.is_set():
                return
            self.deaths += 1
            self.row += 1
            self._died()
            pause = 0.0 if self.row == 1 else min(FIRST_PAUSE * 2 ** (self.row - 2), LONGEST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
                    return

    async def _run_once(self) -> None:
        """Start a process and pass its answers on until it ends."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, limit=_READ_AHEAD, env=_environment()
            )
        except OSError as error:
            log.error("the worker on %s could not be started: %s", self.device, error)  # noqa: TRY400
            return
        self._process = process
        if self._closing.is_set() and process.stdin is not None:
            process.stdin.close()
        try:
            while (answer := await _next(process)) is not None:
                self._received(answer)
        # Whatever is wrong with an answer: a new process, and its batches once more, are the way out.
        except Exception:
            log.exception("an answer of the worker on %s could not be used", self.device)
            self.kill()
        finally:
            self._process = None
            status = await _end(process)
            if not self._closing.is_set():
                log.warning("the worker on %s ended with status %s", self.device, status)


async def _end(process: Process) -> int:
    """Return the exit status of a process that has closed its pipe, or does so when ours is closed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(FAREWELL):
            return await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


async def _next(process: Process) -> Answer | None:
    """Return the next answer, None where there will be none."""
    assert process.stdout is not None
    try:
        (size,) = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
        answer: Answer = parse(await process.stdout.readexactly(size))  # type: ignore[assignment]
    except asyncio.IncompleteReadError:
        return None
    return answer


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the worker finds this very package."""
    package = str(Path(unmask.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
