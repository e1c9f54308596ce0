"""``unmask train``: text → an encoder of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli.common import made, print_table, quoted, require
from unmask.cli.train_options import How, Kind, SetOption, Settings, Start, grouped

if TYPE_CHECKING:
    from unmask.training.data.sources import PairSource
    from unmask.training.recipe import Recipe, Stage

DataArgument = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="Files, folders, or hf:owner/name of a Hugging Face data set.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; the encoder is made in it.")]
FieldOption = Annotated[str | None, typer.Option("--field", help="Field or column of the text; default: 'text'.")]


@grouped
def mntp(
    data: DataArgument,
    output: OutputOption,
    start: Start,
    *,
    field: FieldOption = None,
    settings: Settings,
    how: How,
) -> None:
    """Teach a base to use both sides: masked next token prediction on running text.

    Examples:
        unmask train mntp texts.txt -o run --steps 2 --batch 2 --max-length 16
        unmask train mntp texts.jsonl -o run --batch 2 --set mask_rate=0.5 --set strategy=all --dry-run
    """
    from unmask.training.data.sources import Source
    from unmask.training.recipe import Mntp

    stage = Mntp(data=tuple(Source(path=path, field=field) for path in data), **settings.given())
    _run(_single(stage, output, start, settings, Kind()), output, how)


@grouped
def simcse(
    data: DataArgument,
    output: OutputOption,
    start: Start,
    *,
    field: FieldOption = None,
    settings: Settings,
    kind: Kind,
    how: How,
) -> None:
    """Pull sentences apart without labels: each is the positive of itself under other dropout.

    Examples:
        unmask train simcse texts.txt -o run --steps 2 --batch 2
        unmask train simcse texts.txt -o run --batch 8 --lr 1e-4 --set temperature=0.1 --dry-run
    """
    from unmask.training.data.sources import Source
    from unmask.training.recipe import SimCse

    stage = SimCse(data=tuple(Source(path=path, field=field) for path in data), **settings.given())
    _run(_single(stage, output, start, settings, kind), output, how)


@grouped
def supervised(
    data: DataArgument,
    output: OutputOption,
    start: Start,
    *,
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="Put before each query.")] = "",
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Put it before the other texts, too.")] = False,
    settings: Settings,
    kind: Kind,
    how: How,
) -> None:
    """Learn from pairs: JSON lines with query, positive and, if you have them, negatives (see: unmask mine).

    Examples:
        unmask train supervised pairs.jsonl -o run --steps 2 --batch 2 --set warmup=0
        unmask train supervised pairs.jsonl -o run --instruction "Retrieve the answer:" --dry-run --batch 2
    """
    from unmask.training.data.sources import PairSource
    from unmask.training.recipe import Supervised

    changes = settings.given()
    if settings.steps is not None:
        changes["warmup"] = min(Supervised.warmup, settings.steps // 10)
    sources = tuple(PairSource(path=path, instruction=instruction, symmetric=symmetric) for path in data)
    _run(_single(Supervised(data=sources, **changes), output, start, settings, kind), output, how)


@grouped
def recipe(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Of a recipe, or its file (recipe.json).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run.")] = None,
    list_: Annotated[bool, typer.Option("--list", "-l", help="List the recipes instead.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as JSON instead, changes made.")] = False,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="STAGE=PATH", help="Data of a stage instead; repeatable.")
    ] = None,
    set_: SetOption = None,
    how: How,
) -> None:
    """Run all stages of a recipe, one on the other.

    Examples:
        unmask train recipe --list
        unmask train recipe small --show --set simcse.temperature=0.1
        unmask train recipe small -o run --data mntp=texts.txt --set mntp.batch=2 --max-steps 1 --dry-run
    """
    if list_:
        _list()
        return
    require(name is not None, "No recipe was named; expected one of: unmask train recipe --list")
    from unmask.training.recipe_file import read_recipe, recipe_json
    from unmask.training.recipes import find_recipe

    assert name is not None
    chosen = read_recipe(Path(name)) if name.endswith(".json") else find_recipe(name)
    chosen = _with_data(_with_settings(chosen, set_ or ()), data or ())
    if show:
        typer.echo(recipe_json(chosen))
        return
    require(output is not None, "No folder was given; expected --output FOLDER for the run.")
    assert output is not None
    _run(chosen, output, how)


def _list() -> None:
    from unmask.training.recipes import RECIPES

    rows = [
        (recipe.name, recipe.base, " + ".join(stage.kind for stage in recipe.stages), recipe.about)
        for recipe in RECIPES.values()
    ]
    print_table(("recipe", "base", "stages", "what it is"), rows)
    made("A recipe is data: change a field with --set, or its text with --data.", "unmask train recipe small -o run")


def _single(stage: Stage, output: Path, start: Start, settings: Settings, kind: Kind) -> Recipe:
    """Return a recipe of one stage; its settings are named without the stage."""
    from unmask.checkpoint import reference_pooling
    from unmask.training.recipe import Recipe

    recipe = Recipe(
        name=output.name,
        about=f"{Path(start.model).name if Path(start.model).exists() else start.model}: {stage.kind}.",
        base=start.model,
        adapters=tuple(start.adapter or ()),
        stages=(stage,),
        bidirectional=not kind.causal,
        pooling=reference_pooling(kind.pooling)[0],
        seed=settings.seed,
    )
    return _with_settings(recipe, [f"{stage.kind}.{setting}" for setting in settings.set_ or ()])


def _with_settings(recipe: Recipe, settings: Any) -> Recipe:
    for setting in settings:
        name, separator, value = setting.partition("=")
        require(bool(separator), f"--set {setting!r}: expected NAME=VALUE.")
        recipe = recipe.with_value(name, value)
    return recipe


def _with_data(recipe: Recipe, given: Any) -> Recipe:
    """Return the recipe with the data of some stages replaced; several of one stage add up."""
    from unmask.training.data.sources import Source
    from unmask.training.recipe import Supervised

    paths: dict[str, list[str]] = {}
    for entry in given:
        kind, separator, path = entry.partition("=")
        require(bool(separator), f"--data {entry!r}: expected STAGE=PATH, for instance mntp=texts.txt.")
        paths.setdefault(kind, []).append(path)
    for kind, some in paths.items():
        stage = recipe.stage(kind)
        if isinstance(stage, Supervised):
            pairs = tuple(_in_place_of(stage.data, path) for path in some)
            recipe = recipe.with_stage(kind, data=pairs)
        else:
            recipe = recipe.with_stage(kind, data=tuple(Source(path=path) for path in some))
    return recipe


def _in_place_of(sources: Sequence[PairSource], path: str) -> PairSource:
    """Return pairs with the instruction of those they take the place of: of the same name, or else of all."""
    from unmask.training.data.sources import PairSource

    name = PairSource(path=path).name
    like = [source for source in sources if source.name == name] or sources
    manners = {(source.instruction, source.symmetric) for source in like} or {("", False)}
    require(
        len(manners) == 1,
        f"--data {path}: the recipe's data have {len(manners)} different instructions; expected one, or a file called "
        "as one of them. Name data and instructions in a recipe's file: see --show.",
    )
    ((instruction, symmetric),) = manners
    return PairSource(path=path, instruction=instruction, symmetric=symmetric)


def _run(recipe: Recipe, output: Path, how: How) -> None:
    """Run a recipe, or only estimate it."""
    options = how.options()
    if how.dry_run:
        from unmask.training.estimate import estimate

        for line in estimate(recipe, options):
            typer.echo(line)
        made("Nothing was written.", "the same command without --dry-run")
        return
    from unmask.training.running import is_finished, run_recipe

    finished = is_finished(output)
    try:
        encoder = run_recipe(recipe, output, options=options, resume=how.resume, say=_say)
    except (KeyboardInterrupt, SystemExit):
        _say("Go on from the last checkpoint with: the same command and --resume")
        raise
    made(
        f"{'It made' if finished else 'Wrote'} {encoder}: an encoder. Its card, README.md, says how it was made; "
        "metrics.jsonl and plot.png lie beside each stage.",
        f'unmask search stdlib "How do I compress a file?" --model {quoted(encoder)}',
        f"tensorboard --logdir {quoted(output)}",
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)
