"""``unmask encode``: files of texts → a file of vectors."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.common import (
    DEFAULT_MODEL,
    DtypeOption,
    FieldOption,
    MaxLengthOption,
    ModelOption,
    made,
    quoted,
)
from unmask.errors import EncodingFailedError

if TYPE_CHECKING:
    from unmask.bulk.encoding import Encodes


class Format(enum.StrEnum):
    """Number formats of vectors."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"


class Empty(enum.StrEnum):
    """What to do with blank texts."""

    error = "error"
    zero = "zero"


def encode(  # noqa: PLR0917 - typer reads the parameters
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files: .txt, .jsonl, .csv, .tsv, .parquet; - for stdin.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .npy, .parquet or .jsonl.")],
    model: ModelOption = DEFAULT_MODEL,
    field: FieldOption = None,
    id_field: Annotated[
        str | None, typer.Option("--id-field", help="Field to carry along as id (.parquet, .jsonl).")
    ] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="Write the texts, too (.parquet, .jsonl).")] = False,
    instruction: Annotated[
        str | None, typer.Option("--instruction", "-i", help="Put before each text; for queries, not documents.")
    ] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="Vectors of length 1; default: as the model says.")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", min=1, help="Keep only the first so many, and normalise.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Number format; binary packs 8 dimensions a byte.")] = (
        Format.float32
    ),
    max_length: MaxLengthOption = None,
    truncate: Annotated[
        bool, typer.Option("--truncate/--no-truncate", help="Cut the end of too long texts, or make them an error.")
    ] = True,
    empty: Annotated[Empty, typer.Option("--empty", help="A blank text is an error, or a zero vector.")] = Empty.error,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the output if it exists.")] = False,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, mps, cuda:0, several with commas, or all: every CUDA device.")
    ] = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Encode the texts of files; one vector a text, in their order. The output appears whole or not at all.

    Examples:
        unmask encode texts.txt -o vectors.npy
        unmask encode reviews.csv --field review --id-field id --with-text -o vectors.parquet
        unmask encode texts.jsonl -o small.npy --dimensions 256 --format int8
        cat texts.txt | unmask encode - -o vectors.jsonl --normalize
    """
    from unmask.bulk.encoding import encode_to_file
    from unmask.bulk.files import open_texts
    from unmask.bulk.vectors import check_target

    check_target(output, replace=replace, with_text=with_text or id_field is not None)
    records = open_texts(inputs, field=field, id_field=id_field)
    from unmask.engine.places import device_names  # imports torch: what is wrong with files is said before

    lost: list[str] = []
    with _opened(model, device_names(device), max_length, dtype) as (encoder, several):
        shape = encode_to_file(
            encoder,
            records,
            output,
            replace=replace,
            with_text=with_text,
            failed=lost.append if several else None,
            instruction=instruction,
            normalize=normalize,
            dimensions=dimensions,
            output=format_.value,
            truncate=truncate,
            empty=empty.value,
            progress=True,
        )
    unit = "bytes" if format_ is Format.binary else f"dimensions, {format_.value}"
    made(f"Wrote {output}: {shape[0]:,} vectors of {shape[1]} {unit}.", _following(inputs, output))
    if lost:
        raise EncodingFailedError(
            f"could not be encoded, alone and again, and have rows of zeros in {output}: {'; '.join(lost)}. The others "
            "are right. Remove such texts, or change them."
        )


@contextmanager
def _opened(model: str, devices: Sequence[str], max_length: int | None, dtype: str) -> Iterator[tuple[Encodes, bool]]:
    """Yield a model on one device, or on several: then it goes on where a text cannot be encoded."""
    if len(devices) == 1:
        from unmask.encoder import Encoder

        yield Encoder.load(model, max_length=max_length, device=devices[0], dtype=dtype, progress=True), False
        return
    from unmask.engine.pool import EncoderPool

    with EncoderPool.load(model, devices=devices, max_length=max_length, dtype=dtype, progress=True) as pool:
        yield pool, True


def _following(inputs: list[str], output: Path) -> str:
    if output.suffix == ".npy":
        return f"python -c \"import numpy; print(numpy.load({str(output)!r}, mmap_mode='r').shape)\""
    return (
        f'unmask search {quoted(inputs[0])} "What are you looking for?"' if inputs[0] != "-" else "unmask search --help"
    )
