"""Instructions inside of texts: found where a text begins with one that is registered, and split off.

Most clients cannot send a field of ours, and so they put an instruction in front of the text. Split there, the text
gives the very vector that the field ``instruction`` gives; anything else is plain text.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.evaluation.mteb.instructions import Instructions as TaskInstructions
from unmask.files.lines import read_lines
from unmask.hub.cache import atomic_file, home
from unmask.text import Text

_log = logging.getLogger(__name__)

#: Registered for every model: what the documents and model cards of this project use.
DEFAULTS: Final = ("Given a question, retrieve passages that answer it:",)


class Instructions:
    """The instructions of a model.

    Args:
        query: what queries have by default, empty for nothing; None: as the model's checkpoint says.
        registered: more that a text may begin with.
    """

    def __init__(self, query: str | None, registered: Iterable[str]) -> None:
        self.query = query
        self._registered = tuple(registered)
        known = {each.strip(): None for each in ((query or ""), *self._registered, *DEFAULTS) if each.strip()}
        self.known = tuple(known)
        # Of two that begin alike, the longer one is meant.
        self._longest_first = tuple(sorted(known, key=len, reverse=True))

    def with_own(self, own: str | None) -> Instructions:
        """Return these instructions and the checkpoint's own one, None for none; queries have it unless told else."""
        return Instructions(self.query if self.query is not None else own, [own or "", *self._registered])

    def split(self, string: str) -> Text:
        """Return a string as instruction and content; as content alone if it begins with no registered instruction."""
        if string.startswith(self._longest_first):
            for instruction in self._longest_first:
                rest = string[len(instruction) :]
                if string.startswith(instruction) and rest[:1].isspace() and rest.strip():
                    return Text(instruction, rest)
        return Text("", string)


def read_instructions(path: Path) -> list[str]:
    r"""Return the instructions of a file: one a line, with ``\n`` for a line break inside of one.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    return [line.strip().replace("\\n", "\n") for _, line in read_lines(path) if line.strip()]


def as_lines(instructions: Iterable[str]) -> str:
    """Return instructions as :func:`read_instructions` reads them."""
    return "".join(each.replace("\n", "\\n") + "\n" for each in instructions)


def of_mteb() -> list[str]:
    """Return mteb's instructions, none if it is not installed; made once a version of it, and kept in Unmask's folder.

    Raises:
        InputError: they cannot be made or read.
    """
    try:
        version = metadata.version("mteb")
    except metadata.PackageNotFoundError:
        return []
    kept = home() / "serve" / f"instructions-of-mteb-{version}.txt"
    if not kept.is_file():
        _log.info("reading the instructions of mteb %s, once", version)
        # In a process of its own: mteb brings half of Python's world with it, torch included.
        done = subprocess.run([sys.executable, "-P", "-m", __name__], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise InputError(
                f"The instructions of mteb {version} cannot be read: {reason}. "
                "Repair mteb, or set mteb_instructions to false."
            )
        with atomic_file(kept, replace=True) as file:
            file.write_text(done.stdout, encoding="utf-8")
    return read_instructions(kept)


def mteb_instructions() -> list[str]:
    """Return what texts of the installed mteb's tasks have before them where Unmask evaluates an encoder on them."""
    import mteb

    return sorted({TaskInstructions().of(task.metadata) for task in mteb.get_tasks()} - {""})


if __name__ == "__main__":  # python -m unmask.gateway.api.instructions > instructions.txt: for a server without mteb
    sys.stdout.write(as_lines(mteb_instructions()))
