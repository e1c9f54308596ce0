"""The options of ``unmask train``, each described once, in groups that a command takes whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli.common import DEFAULT_BASE, ModelOption

if TYPE_CHECKING:
    from unmask.training.preparing import Options

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as lora.rank=8; repeatable."),
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see the fields of a command's groups, its parameters that are dataclasses, as options of their own."""
    own = signature(command, eval_str=True).parameters
    groups = {name: list(_fields(one.annotation)) for name, one in own.items() if is_dataclass(one.annotation)}

    @wraps(command)
    def flat(**given: Any) -> None:
        made = {
            name: own[name].annotation(**{field.name: given.pop(field.name) for field in fields})
            for name, fields in groups.items()
        }
        command(**given, **made)

    parameters = [field for name, one in own.items() for field in groups.get(name, [one])]
    keyword_only = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters]
    flat.__signature__ = signature(command).replace(parameters=keyword_only)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in keyword_only}
    return flat


def _fields(group: Any) -> list[Parameter]:
    return list(signature(group, eval_str=True).parameters.values())


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a stage begins with."""

    model: ModelOption = DEFAULT_BASE
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="Merge this adapter first, for instance that of MNTP; repeatable."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a stage, and the seed."""

    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the optimiser.")] = None
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Rows a step.")] = None
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="At its highest.")] = None
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=2, help="Most tokens of a text, or of a block.")
    ] = None
    set_: SetOption = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")] = 42

    def given(self) -> dict[str, Any]:
        """Return the stage's fields that were given an option of their own."""
        names = ("steps", "batch", "learning_rate", "max_length")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What kind of encoder is made."""

    causal: Annotated[bool, typer.Option("--causal", help="Leave the base causal, as a baseline.")] = False
    pooling: Annotated[str, typer.Option("--pooling", help="mean, weighted_mean, last or first.")] = "mean"


@dataclass(frozen=True, kw_only=True)
class How:
    """How a recipe is run."""

    sts: Annotated[
        Path | None,
        typer.Option("--sts", help="Scored pairs (score, sentence, sentence; tabs) to choose the best step by."),
    ] = None
    every: Annotated[
        int, typer.Option("--every", min=1, help="Steps between checkpoints: what a killed run loses at most.")
    ] = 100
    score_every: Annotated[
        int | None, typer.Option("--score-every", min=1, help="Steps between scores by --sts; default: as --every.")
    ] = None
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", min=1, help="End every stage after so many steps.")
    ] = None
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="… or after so many tokens.")] = None
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")] = "auto"
    dtype: Annotated[str, typer.Option("--dtype", help="Of the base: auto, float32, bfloat16.")] = "auto"
    pass_tokens: Annotated[
        int | None, typer.Option("--pass-tokens", min=1, help="Most tokens of one pass: less memory.")
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Compute layers again in backward: less memory, a third slower."),
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure one step, print what the run would take, and stop.")
    ] = False

    def options(self) -> Options:
        """Return them as the training takes them; the file of scored pairs is read.

        Raises:
            InputError: a package that they need is not installed, or the scored pairs cannot be read.
        """
        from unmask.training.extras import ALWAYS, SCORES, require_extras

        require_extras(*ALWAYS, *(SCORES if self.sts else ()))
        from unmask.training.loop import Pace
        from unmask.training.preparing import Options
        from unmask.training.sts import read_sts

        return Options(
            device=self.device,
            dtype=self.dtype,
            tokens=self.pass_tokens,
            checkpointing=self.gradient_checkpointing,
            sts=read_sts(self.sts) if self.sts else None,
            pace=Pace(
                checkpoint=self.every,
                evaluate=self.score_every or self.every,
                max_steps=self.max_steps,
                max_tokens=self.max_tokens,
            ),
        )
