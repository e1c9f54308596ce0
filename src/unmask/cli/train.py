"""``unmask train``: text → an encoder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli.common import DEFAULT_BASE, ModelOption, made, print_table, quoted, require

if TYPE_CHECKING:
    from unmask.training.recipe import Recipe, Stage

DataArgument = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="Files, folders, or hf:owner/name of a Hugging Face data set.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; the encoder is made in it.")]
AdapterOption = Annotated[
    list[str] | None, typer.Option("--adapter", help="Merge this adapter first, for instance that of MNTP; repeatable.")
]
FieldOption = Annotated[str | None, typer.Option("--field", help="Field or column of the text; default: 'text'.")]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the optimiser.")]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Rows a step.")]
RateOption = Annotated[float | None, typer.Option("--learning-rate", "--lr", help="At its highest.")]
LengthOption = Annotated[int | None, typer.Option("--max-length", min=2, help="Most tokens of a text, or of a block.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as lora.rank=8; repeatable."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")]
CausalOption = Annotated[bool, typer.Option("--causal", help="Leave the base causal, as a baseline.")]
PoolingOption = Annotated[str, typer.Option("--pooling", help="mean, weighted_mean, last or first.")]
StsOption = Annotated[
    Path | None,
    typer.Option("--sts", help="Scored pairs (score, sentence, sentence; tabs) to choose the best step by."),
]
EveryOption = Annotated[int, typer.Option("--every", min=1, help="Steps between checkpoints, and between scores.")]
MaxStepsOption = Annotated[int | None, typer.Option("--max-steps", min=1, help="End every stage after so many steps.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=1, help="… or after so many tokens.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Of the base: auto, float32, bfloat16.")]
PassOption = Annotated[int | None, typer.Option("--pass-tokens", min=1, help="Most tokens of one pass: less memory.")]
CheckpointingOption = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Compute layers again in backward: less memory, a third slower."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Measure one step, print what the run would take, and stop.")
]


def mntp(  # noqa: PLR0917 - typer reads the parameters
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = DEFAULT_BASE,
    adapter: AdapterOption = None,
    field: FieldOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    learning_rate: RateOption = None,
    max_length: LengthOption = None,
    set_: SetOption = None,
    seed: SeedOption = 42,
    sts: StsOption = None,
    every: EveryOption = 100,
    max_steps: MaxStepsOption = None,
    max_tokens: MaxTokensOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    pass_tokens: PassOption = None,
    gradient_checkpointing: CheckpointingOption = False,
    resume: ResumeOption = False,
    dry_run: DryOption = False,
) -> None:
    """Teach a base to use both sides: masked next token prediction on running text.

    Examples:
        unmask train mntp texts.txt -o run --steps 2 --batch 2 --max-length 16
        unmask train mntp texts.jsonl -o run --batch 2 --set mask_rate=0.5 --set strategy=all --dry-run
    """
    from unmask.training.data.sources import Source
    from unmask.training.recipe import Mntp

    changes = _given(steps=steps, batch=batch, learning_rate=learning_rate, max_length=max_length)
    stage = Mntp(data=tuple(Source(path=path, field=field) for path in data), **changes)
    recipe = _single(stage, output, model, adapter, seed, set_, pooling="mean", causal=False)
    _run(recipe, output, locals())


def simcse(  # noqa: PLR0917
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = DEFAULT_BASE,
    adapter: AdapterOption = None,
    field: FieldOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    learning_rate: RateOption = None,
    max_length: LengthOption = None,
    set_: SetOption = None,
    seed: SeedOption = 42,
    causal: CausalOption = False,
    pooling: PoolingOption = "mean",
    sts: StsOption = None,
    every: EveryOption = 100,
    max_steps: MaxStepsOption = None,
    max_tokens: MaxTokensOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    pass_tokens: PassOption = None,
    gradient_checkpointing: CheckpointingOption = False,
    resume: ResumeOption = False,
    dry_run: DryOption = False,
) -> None:
    """Pull sentences apart without labels: each is the positive of itself under other dropout.

    Examples:
        unmask train simcse texts.txt -o run --steps 2 --batch 2
        unmask train simcse texts.txt -o run --batch 8 --lr 1e-4 --set temperature=0.1 --dry-run
    """
    from unmask.training.data.sources import Source
    from unmask.training.recipe import SimCse

    changes = _given(steps=steps, batch=batch, learning_rate=learning_rate, max_length=max_length)
    stage = SimCse(data=tuple(Source(path=path, field=field) for path in data), **changes)
    recipe = _single(stage, output, model, adapter, seed, set_, pooling=pooling, causal=causal)
    _run(recipe, output, locals())


def supervised(  # noqa: PLR0917
    data: DataArgument,
    output: OutputOption,
    model: ModelOption = DEFAULT_BASE,
    adapter: AdapterOption = None,
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="Put before each query.")] = "",
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Put it before the other texts, too.")] = False,
    steps: StepsOption = None,
    batch: BatchOption = None,
    learning_rate: RateOption = None,
    max_length: LengthOption = None,
    set_: SetOption = None,
    seed: SeedOption = 42,
    causal: CausalOption = False,
    pooling: PoolingOption = "mean",
    sts: StsOption = None,
    every: EveryOption = 100,
    max_steps: MaxStepsOption = None,
    max_tokens: MaxTokensOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    pass_tokens: PassOption = None,
    gradient_checkpointing: CheckpointingOption = False,
    resume: ResumeOption = False,
    dry_run: DryOption = False,
) -> None:
    """Learn from pairs: JSON lines with query, positive and, if you have them, negatives (see: unmask mine).

    Examples:
        unmask train supervised pairs.jsonl -o run --steps 2 --batch 2 --set warmup=0
        unmask train supervised pairs.jsonl -o run --instruction "Retrieve the answer:" --dry-run --batch 2
    """
    from unmask.training.data.sources import PairSource
    from unmask.training.recipe import Supervised

    changes = _given(steps=steps, batch=batch, learning_rate=learning_rate, max_length=max_length)
    if steps is not None:
        changes["warmup"] = min(Supervised.warmup, steps // 10)
    sources = tuple(PairSource(path=path, instruction=instruction, symmetric=symmetric) for path in data)
    recipe = _single(
        Supervised(data=sources, **changes), output, model, adapter, seed, set_, pooling=pooling, causal=causal
    )
    _run(recipe, output, locals())


def recipe(  # noqa: PLR0917
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
    sts: StsOption = None,
    every: EveryOption = 100,
    max_steps: MaxStepsOption = None,
    max_tokens: MaxTokensOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    pass_tokens: PassOption = None,
    gradient_checkpointing: CheckpointingOption = False,
    resume: ResumeOption = False,
    dry_run: DryOption = False,
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
    _run(chosen, output, locals())


def _list() -> None:
    from unmask.training.recipes import RECIPES

    rows = [
        (recipe.name, recipe.base, " + ".join(stage.kind for stage in recipe.stages), recipe.about)
        for recipe in RECIPES.values()
    ]
    print_table(("recipe", "base", "stages", "what it is"), rows)
    made("A recipe is data: change a field with --set, or its text with --data.", "unmask train recipe small -o run")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _single(  # noqa: PLR0917
    stage: Stage,
    output: Path,
    model: str,
    adapters: list[str] | None,
    seed: int,
    settings: list[str] | None,
    *,
    pooling: str,
    causal: bool,
) -> Recipe:
    """Return a recipe of one stage; its settings are named without the stage."""
    from unmask.checkpoint import reference_pooling
    from unmask.training.recipe import Recipe

    recipe = Recipe(
        name=output.name,
        about=f"{Path(model).name if Path(model).exists() else model}: {stage.kind}.",
        base=model,
        adapters=tuple(adapters or ()),
        stages=(stage,),
        bidirectional=not causal,
        pooling=reference_pooling(pooling)[0],
        seed=seed,
    )
    return _with_settings(recipe, [f"{stage.kind}.{setting}" for setting in settings or ()])


def _with_settings(recipe: Recipe, settings: Any) -> Recipe:
    for setting in settings:
        name, separator, value = setting.partition("=")
        require(bool(separator), f"--set {setting!r}: expected NAME=VALUE.")
        recipe = recipe.with_value(name, value)
    return recipe


def _with_data(recipe: Recipe, given: Any) -> Recipe:
    """Return the recipe with the data of some stages replaced; several of one stage add up."""
    from unmask.training.data.sources import PairSource, Source
    from unmask.training.recipe import Supervised

    paths: dict[str, list[str]] = {}
    for entry in given:
        kind, separator, path = entry.partition("=")
        require(bool(separator), f"--data {entry!r}: expected STAGE=PATH, for instance mntp=texts.txt.")
        paths.setdefault(kind, []).append(path)
    for kind, some in paths.items():
        make = PairSource if isinstance(recipe.stage(kind), Supervised) else Source
        recipe = recipe.with_stage(kind, data=tuple(make(path=path) for path in some))
    return recipe


def _run(recipe: Recipe, output: Path, given: dict[str, Any]) -> None:
    """Run a recipe with the options of a command, or only estimate it."""
    from unmask.training.extras import ALWAYS, SCORES, require_extras

    require_extras(*ALWAYS, *(SCORES if given["sts"] else ()))
    from unmask.training.loop import Pace
    from unmask.training.preparing import Options
    from unmask.training.running import is_finished, run_recipe
    from unmask.training.sts import read_sts

    pace = Pace(
        checkpoint=given["every"], evaluate=given["every"], max_steps=given["max_steps"], max_tokens=given["max_tokens"]
    )
    options = Options(
        device=given["device"],
        dtype=given["dtype"],
        tokens=given["pass_tokens"],
        checkpointing=given["gradient_checkpointing"],
        sts=read_sts(given["sts"]) if given["sts"] else None,
        pace=pace,
    )
    if given["dry_run"]:
        from unmask.training.estimate import estimate

        for line in estimate(recipe, options):
            typer.echo(line)
        made("Nothing was written.", "the same command without --dry-run")
        return
    finished = is_finished(output)
    try:
        encoder = run_recipe(recipe, output, options=options, resume=given["resume"], say=_say)
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
