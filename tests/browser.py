"""A real browser for tests: Chromium without a window, cut off from the network.

Debian and Ubuntu bring it: ``apt-get install chromium``. The tests that need it skip where there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the browser's path, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """Opens pages; one profile, which is thrown away.

    Args:
        path: of the program.
        folder: for the profile and the log of the network.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._path = path
        self._folder = folder

    def dom(self, address: str) -> str:
        """Return a page as it is once its scripts have run."""
        return self._run("--dump-dom", address)

    def requests(self, address: str) -> set[str]:
        """Return the hosts that a page, or the browser by itself, asked for something; none is reached."""
        log = self._folder / "network.json"
        log.unlink(missing_ok=True)
        self._run(f"--log-net-log={log}", "--dump-dom", address)
        events = json.loads(log.read_text(encoding="utf-8"))["events"]
        addresses = (event.get("params", {}).get("url", "") for event in events)
        return {urlsplit(found).netloc for found in addresses if found.startswith(("http:", "https:", "ws:", "wss:"))}

    def picture(self, address: str, file: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Write a PNG of a page; a window is never narrower than 500 pixels, so frame it for less."""
        scheme = ["--force-dark-mode"] if dark else []
        self._run(f"--screenshot={file}", f"--window-size={width},{height}", "--hide-scrollbars", *scheme, address)

    def _run(self, *arguments: str) -> str:
        # Its sandbox needs rights that root in a container lacks; only pages of our own are opened.
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [
            self._path,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-component-update",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={self._folder / 'profile'}",
            *alone,
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout
