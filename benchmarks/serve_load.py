"""Load on a server: what became of each request that Locust sent.

A generator that waits for an answer before it sends the next request measures a slow server less often than a fast
one ("coordinated omission"). At a fixed rate ours does not wait, and an answer's time counts from when its request was
due. Locust runs in an environment of its own, made on first use.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from cpu import WORK, environment

LOCUST = "locust==2.47.0"


class Hit(NamedTuple):
    """What became of a request.

    Attributes:
        due: when it was to be sent, in seconds from any origin.
        sent: when it was sent.
        seconds: from then until its answer was there.
        status: of the answer, 0 without one.
        error: why there was none, else empty.
    """

    due: float
    sent: float
    seconds: float
    status: int
    error: str

    @property
    def waited(self) -> float:
        """Seconds from when it was due until its answer was there."""
        return self.sent + self.seconds - self.due


@dataclass(frozen=True, kw_only=True)
class Load:
    """What became of all requests of an attack.

    Attributes:
        hits: in the order in which they were due.
        client_seconds: processor time of the load generator.
    """

    hits: tuple[Hit, ...]
    client_seconds: float

    @classmethod
    def of(cls, said: dict[str, Any]) -> Self:
        """Return what the load generator said."""
        return cls(hits=tuple(sorted(Hit(*each) for each in said["hits"])), client_seconds=said["processor_seconds"])

    @property
    def seconds(self) -> float:
        """From the first request sent to the last answer."""
        return max(hit.sent + hit.seconds for hit in self.hits) - min(hit.sent for hit in self.hits)

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, and how often."""
        return dict(Counter(hit.error or str(hit.status) for hit in self.hits if hit.error or hit.status != 200))

    def latency(self, share: float) -> float:
        """Return the seconds in which this share of the requests was answered, from when they were due."""
        return nearest_rank([hit.waited for hit in self.hits], share)

    def lateness(self, share: float) -> float:
        """Return how many seconds after it was due this share of the requests was sent: the generator's own part."""
        return nearest_rank([hit.sent - hit.due for hit in self.hits], share)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not exceeded by ``share`` of all."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def body(model: str, texts: str | Sequence[str]) -> bytes:
    """Return a request for vectors as OpenAI's client sends it: base64."""
    return json.dumps({"model": model, "input": texts, "encoding_format": "base64"}).encode()


def attack(
    url: str,
    bodies: Sequence[bytes],
    *,
    clients: int,
    rate: float | None = None,
    seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Send requests to ``url`` and wait for all answers.

    Args:
        url: of the server's embeddings.
        bodies: of the requests, by turns.
        clients: how many send at the same time, each its next request when it has its answer; at a fixed rate, how
            many connections there may be.
        rate: requests a second, whether there are answers or not; None: as fast as the clients can.
        seconds: in which to send; None: until each body was sent once.
        headers: of the requests; None: their type alone.
    """
    address, file = urlsplit(url), WORK / "serve-load.json"
    work = {
        "host": address.hostname,
        "port": address.port,
        "path": address.path,
        "bodies": [each.decode() for each in bodies],
        "clients": clients,
        "rate": rate,
        "seconds": seconds,
        "headers": dict(headers or {"Content-Type": "application/json"}),
    }
    file.write_text(json.dumps(work))
    script = Path(__file__).with_name("serve_locust.py")
    subprocess.run([str(environment("locust", [LOCUST])), str(script), str(file)], check=True)
    return Load.of(json.loads(file.read_text()))
