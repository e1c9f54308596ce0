"""``unmask bench``: how fast a model encodes on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import DEFAULT_MODEL, DtypeOption, JsonOption, load, made, print_json, print_table, quoted

if TYPE_CHECKING:
    from unmask.measure import Speed


def bench(  # noqa: PLR0917 - typer reads the parameters
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Short name, folder, GGUF file or hub name.")
    ] = DEFAULT_MODEL,
    texts: Annotated[
        int, typer.Option("--texts", min=1, help="Texts of the short mix; the long one has a quarter.")
    ] = 128,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs of each; the median counts.")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, mps, cuda:0 …")] = "auto",
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure load time and speed, and compare with this machine's ceiling: the model's matrix products alone.

    Examples:
        unmask bench smollm2-135m --texts 16 --repeats 1
        unmask bench --texts 16 --repeats 1 --json
    """
    from unmask.corpora import long_mix, short_mix, stdlib_docstrings
    from unmask.measure import ceiling, count_tokens, throughput

    load(model, device=device, dtype=dtype)  # the first time may fetch and convert
    start = time.perf_counter()
    encoder = load(model, device=device, dtype=dtype)
    loading = time.perf_counter() - start
    entries = stdlib_docstrings(keep=True)
    mixes = {"short": short_mix(entries, texts), "long": long_mix(entries, max(1, texts // 4))}
    encoder.encode(mixes["short"][:8])
    limit = ceiling(encoder.backbone.model, encoder.pipeline.token_budget)
    speeds = {
        name: throughput(encoder.encode, mix, tokens=count_tokens(encoder, mix), repeats=repeats)
        for name, mix in mixes.items()
    }
    # Once more, for a busy moment would make the encoder look better than the machine is.
    limit = max(limit, ceiling(encoder.backbone.model, encoder.pipeline.token_budget))
    if json:
        measured = {
            name: {"texts": speed.texts, "tokens": speed.tokens, "seconds": round(speed.seconds, 4)}
            | {
                "tokens_per_second": round(speed.tokens_per_second, 1),
                "share": round(speed.tokens_per_second / limit, 4),
            }
            for name, speed in speeds.items()
        }
        print_json({"model": model, "load_seconds": round(loading, 3), "ceiling": round(limit, 1), "mixes": measured})
        return
    rows = [(name, *_row(speed, limit)) for name, speed in speeds.items()]
    print_table(("mix", "texts", "tokens each", "texts/s", "tokens/s", "% of the ceiling"), rows, title=model)
    made(
        f"Loaded in {loading:.1f} s. Ceiling: {limit:,.0f} tokens/s, the model's own matrix products alone, "
        f"{encoder.pipeline.token_budget} tokens at a time, on {encoder.device} in {encoder.dtype}.",
        f"unmask info {quoted(model)}",
    )


def _row(speed: Speed, limit: float) -> tuple[str, ...]:
    each, share = speed.tokens / speed.texts, 100 * speed.tokens_per_second / limit
    numbers = (f"{each:.0f}", f"{speed.texts_per_second:.1f}", f"{speed.tokens_per_second:.0f}", f"{share:.0f}")
    return (str(speed.texts), *numbers)
