"""Requests that Locust's users send, and what became of each; run by ``serve_load.py`` in Locust's own environment.

    python serve_locust.py FILE

FILE holds ``{"host", "port", "path", "bodies", "clients", "rate", "seconds", "headers"}`` and receives
``{"hits": [[due, sent, seconds, status, error], …], "processor_seconds": s}``. Without a rate each user sends its next
request when it has its answer. With one, requests are due at even times, whether there are answers or not, each on a
connection that is free.

Users hold geventhttpclient's client themselves: Locust's own wrapper around it takes as much processor time as the
server, and here both share a machine.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import Semaphore
from geventhttpclient import HTTPClient
from locust import User, constant, task
from locust.env import Environment
from locust.exception import StopUser

_TIMEOUT = 600.0


class Sender:
    """Sends the requests of one attack.

    Args:
        work: what the file says.
        environment: Locust's, which is told of every request.
    """

    def __init__(self, work: dict[str, Any], environment: Environment) -> None:
        self._work = work
        self._environment = environment
        bodies = [each.encode() for each in work["bodies"]]
        # Without an end each body is sent once; with one, they are sent by turns until then.
        self._bodies: Iterator[bytes] = cycle(bodies) if work["seconds"] else iter(bodies)
        self._end = time.perf_counter() + (work["seconds"] or float("inf"))
        self.client = HTTPClient(
            work["host"],
            work["port"],
            concurrency=work["clients"],
            connection_timeout=_TIMEOUT,
            network_timeout=_TIMEOUT,
        )
        self.hits: list[tuple[float, float, float, int, str]] = []

    def send(self, body: bytes, due: float) -> None:
        """Send a request and read its answer."""
        sent, status, error, length, exception = time.perf_counter(), 0, "", 0, None
        try:
            response = self.client.post(self._work["path"], body, headers=self._work["headers"])
            length, status = len(response.read()), response.status_code
        except (OSError, gevent.Timeout) as failure:
            error, exception = type(failure).__name__, failure
        seconds = time.perf_counter() - sent
        self.hits.append((due, sent, seconds, status, error))
        self._environment.events.request.fire(
            request_type="POST",
            name=self._work["path"],
            response_time=1000 * seconds,
            response_length=length,
            exception=exception,
            context={},
        )

    def closed(self) -> None:
        """Send the next request when there is an answer, until there are none left or the time is over."""
        for body in self._bodies:
            now = time.perf_counter()
            if now >= self._end:
                return
            self.send(body, now)

    def open(self) -> None:
        """Send requests when they are due."""
        start, waiting = time.perf_counter(), []
        for number, body in zip(count(), self._bodies, strict=False):
            due = start + number / self._work["rate"]
            if due >= self._end:
                break
            gevent.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(gevent.spawn(self.send, body, due))
        gevent.joinall(waiting)


def attack(work: dict[str, Any]) -> Sender:
    """Run Locust's users until all is sent and answered."""
    environment = Environment()
    sender, over = Sender(work, environment), Semaphore(0)

    class Client(User):
        wait_time = constant(0)

        @task
        def ask(self) -> None:
            (sender.open if work["rate"] else sender.closed)()
            over.release()
            raise StopUser

    environment.user_classes = [Client]
    runner = environment.create_local_runner()
    users = 1 if work["rate"] else work["clients"]
    runner.start(users, spawn_rate=users)
    for _ in range(users):
        over.acquire()
    runner.quit()
    return sender


def main(name: str) -> None:
    """Do what a file says and add what became of it."""
    logging.basicConfig(level=logging.WARNING)
    # A full collection over the greenlets of all requests stops the generator for 50 ms: none of the server's time.
    gc.disable()
    file, start = Path(name), time.process_time()
    sender = attack(json.loads(file.read_text()))
    file.write_text(json.dumps({"hits": sender.hits, "processor_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main(sys.argv[1])
