"""Instructions inside of texts: found where a text begins with one that is registered, and split off.

Most clients cannot send a field of ours, and so they put an instruction in front of the text. Split there, the text
gives the very vector that the field ``instruction`` gives; anything else is plain text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from unmask.errors import InputError
from unmask.text import Text

#: Registered for every model: what the documents and model cards of this project use.
DEFAULTS: Final = ("Given a question, retrieve passages that answer it:",)


class Instructions:
    """The instructions of a model.

    Args:
        query: what queries have by default, None for nothing.
        registered: more that a text may begin with.
    """

    def __init__(self, query: str | None, registered: Iterable[str]) -> None:
        self.query = query
        known = {each.strip(): None for each in ((query or ""), *registered, *DEFAULTS) if each.strip()}
        self.known = tuple(known)
        # Of two that begin alike, the longer one is meant.
        self._longest_first = tuple(sorted(known, key=len, reverse=True))

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
        InputError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"The file of instructions {path} cannot be read: {reason}. Check its path.") from error
    return [line.strip().replace("\\n", "\n") for line in lines if line.strip()]


def mteb_instructions() -> list[str]:
    """Return the prompts of all tasks of the installed mteb, as llm2vec puts them: with a colon at the end."""
    import mteb

    found: set[str] = set()
    for task in mteb.get_tasks():
        prompt = task.metadata.prompt
        found.update([prompt] if isinstance(prompt, str) else (prompt or {}).values())
    return sorted(each.rstrip(": ") + ":" for each in found if each.strip())


if __name__ == "__main__":  # python -m unmask.gateway.api.instructions > instructions.txt
    sys.stdout.write("".join(each.replace("\n", "\\n") + "\n" for each in mteb_instructions()))
