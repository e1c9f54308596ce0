"""Style sheet, script and icon: read once, named after what is in them, so that browsers may keep them for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file that pages load.

    Attributes:
        path: under which it is served.
        type: of it.
        body: all of it.
    """

    path: str
    type: str
    body: bytes


class Assets:
    """The files of the folder ``static``."""

    def __init__(self) -> None:
        found = {file.name: _read(file) for file in sorted(_FOLDER.iterdir())}
        self._by_name = found
        self._by_path = {asset.path: asset for asset in found.values()}

    def path(self, name: str) -> str:
        """Return where a file is served.

        Raises:
            KeyError: there is no such file.
        """
        return self._by_name[name].path

    async def serve(self, request: Request) -> Response:
        """Answer with a file.

        Raises:
            HTTPException: 404, there is none.
        """
        asset = self._by_path.get(request.url.path)
        if asset is None:
            raise HTTPException(404)
        return Response(asset.body, media_type=asset.type, headers={"cache-control": _FOR_GOOD})


def _read(file: Path) -> Asset:
    body = file.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:12]
    return Asset(path=f"/static/{file.stem}.{digest}{file.suffix}", type=_TYPES[file.suffix], body=body)
