"""With what somebody came, in words that they know again: ``Firefox on Windows``. A guess; no more of it is kept."""

from __future__ import annotations

from typing import Final

#: What a ``User-Agent`` holds and what that is called; most name others besides themselves, so the first one counts.
BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
)
#: Likewise; an Android says Linux, too.
DEVICES: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "Mac"),
    ("Linux", "Linux"),
)
#: What browsers say has about 200 characters.
_LOOKED_AT: Final = 1000


def agent_of(header: str) -> str:
    """Return what a ``User-Agent`` stands for; empty where it says nothing that is known."""
    said = header[:_LOOKED_AT]
    browser, device = (next((name for mark, name in known if mark in said), "") for known in (BROWSERS, DEVICES))
    if browser and device:
        return f"{browser} on {device}"
    return browser or device
