"""An application served by uvicorn in a thread of this process, on a free port of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

#: The port → how to serve. The application it names may be made by then.
Configure = Callable[[int], uvicorn.Config]


@contextmanager
def served(configure: Configure) -> Iterator[tuple[str, uvicorn.Server]]:
    """Serve while the block runs; yield where, and the server. It has started, and has stopped thereafter."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        # Else asyncio leaves each answer to wait 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        server = uvicorn.Server(configure(port))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while (
                not server.started and thread.is_alive()
            ):  # one that fails ends; pytest's own limit ends one that hangs
                time.sleep(0.01)
            assert server.started
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
