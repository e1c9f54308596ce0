"""Names of tasks and benchmarks → mteb's tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from unmask.errors import InputError

#: A comma that stands in no parentheses: ``MTEB(eng, v2)`` is one name.
_COMMA: Final = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What names stand for.

    Attributes:
        tasks: mteb's tasks, each once, in the order of the names.
        unknown: what to say of each name that does not exist, by the name.
    """

    tasks: list[Any]
    unknown: dict[str, str]


def split_names(tasks: str | Sequence[str]) -> list[str]:
    """Return the names in ``tasks``, each once: a list, or a string with commas between them.

    Raises:
        InputError: there are none.
    """
    given = [tasks] if isinstance(tasks, str) else tasks
    names = [part.strip() for text in given for part in _COMMA.split(text)]
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        raise InputError('No task is named; expected names of tasks or benchmarks, such as "STS12,SciFact".')
    return found


def find_tasks(names: Iterable[str]) -> Found:
    """Return the tasks that ``names`` stand for, those of benchmarks included, and the names that stand for none."""
    tasks: dict[Any, Any] = {}
    unknown = {}
    for name in names:
        found = _named(name)
        if not found:
            unknown[name] = nearest(name)
        for task in found:
            same = (task.metadata.name, tuple(task.eval_splits), tuple(task.hf_subsets))
            tasks.setdefault(same, task)
    return Found(tasks=list(tasks.values()), unknown=unknown)


def of_tasks(instructions: Mapping[str, str]) -> dict[str, str]:
    """Return the instructions of tasks of mteb: a file may name others, too."""
    from mteb.get_tasks import _TASKS_REGISTRY as KNOWN_TASKS

    return {name: instruction for name, instruction in instructions.items() if name in KNOWN_TASKS}


def nearest(name: str) -> str:
    """Return that ``name`` does not exist, and which names are like it."""
    from mteb.benchmarks.get_benchmark import get_benchmarks
    from mteb.get_tasks import _TASKS_REGISTRY as KNOWN_TASKS

    names = [*KNOWN_TASKS, *(benchmark.name for benchmark in get_benchmarks())]
    by_lower = {each.lower(): each for each in names}
    close = [by_lower[lower] for lower in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"no task or benchmark of mteb. Nearest: {', '.join(close) if close else 'none; see mteb available-tasks'}."


def _named(name: str) -> list[Any]:
    """Return a benchmark's tasks, or the one task of that name, or nothing."""
    import mteb

    # KeyError is how mteb says that there is none.
    with suppress(KeyError):
        return list(mteb.get_benchmark(name).tasks)
    with suppress(KeyError):
        return [mteb.get_task(name)]
    return []
