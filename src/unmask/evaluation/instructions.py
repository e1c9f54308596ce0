"""What stands before the texts of a task, by the task's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from unmask.errors import InputError

#: Goes before a query whose task has no instruction, unless a checkpoint brings its own.
QUERY: Final = "Given a question, retrieve passages that answer it:"


def read_instructions(file: Path) -> dict[str, str]:
    """Return the instructions of a file: a JSON object, the name of a task and its instruction.

    It may name tasks that nobody runs. An empty instruction is one: nothing goes before the texts then.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    expected = 'expected a JSON object, {"task": "instruction", …}'
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}; {expected}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}; {expected}.") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} holds a {type(data).__name__}; {expected}.")
    for task, instruction in data.items():
        if not isinstance(instruction, str):
            raise InputError(f"{file}: the instruction of {task!r} is {instruction!r}; expected a string.")
    return data
