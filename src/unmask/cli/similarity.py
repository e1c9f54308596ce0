"""``unmask similarity``: how alike texts are."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from unmask.cli.common import (
    DEFAULT_MODEL,
    FieldOption,
    JsonOption,
    ModelOption,
    is_file,
    load,
    made,
    one_line,
    option_model,
    print_json,
    print_table,
    require,
)

#: Larger tables are nothing to read.
_ROWS: Final = 50
_COLUMNS: Final = 8


def similarity(
    texts: Annotated[
        list[str], typer.Argument(metavar="A B...", help="Texts, the first against the rest; or two files.")
    ],
    model: ModelOption = DEFAULT_MODEL,
    field: FieldOption = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", "-i", help="Put before A (each text of file A).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the cosine of the first text with each other one, or of all texts of two files.

    Examples:
        unmask similarity "a cat sleeps" "a kitten naps" "stock prices fell"
        unmask similarity questions.txt texts.txt --json
    """
    require(len(texts) > 1, f"Got {len(texts)} text; expected at least two, or two files. Give another one.")
    left, right = _read(texts, field)
    require(
        json or (len(left) <= _ROWS and len(right) <= max(_COLUMNS, _ROWS * (len(left) == 1))),
        f"{len(left)} × {len(right)} texts are too many for a table (at most {_ROWS} × {_COLUMNS}). Give --json, "
        "or use unmask search.",
    )
    encoder = load(model)
    cosine = encoder.similarity(encoder.encode(left, instruction=instruction), encoder.encode(right))
    if json:
        print_json({"a": left, "b": right, "cosine": [[round(value, 6) for value in row] for row in cosine.tolist()]})
        return
    if len(left) == 1:
        rows = sorted(zip(cosine[0].tolist(), right, strict=True), key=lambda row: -row[0])
        print_table(("cosine", f"with: {one_line(left[0], 90)}"), [(score, one_line(text)) for score, text in rows])
    else:
        names = [one_line(text, 24) for text in right]
        print_table(("", *names), [(one_line(a, 40), *row) for a, row in zip(left, cosine.tolist(), strict=True)])
    made(
        f"Compared {len(left)} × {len(right)} texts.",
        f'unmask search stdlib "How do I compare two texts?"{option_model(model)}',
    )


def _read(arguments: list[str], field: str | None) -> tuple[list[str], list[str]]:
    if len(arguments) != 2 or not all(is_file(argument) for argument in arguments):
        require(field is None, "--field is for files; expected two files. Leave it out, or give two files.")
        return arguments[:1], arguments[1:]
    from unmask.bulk.files import open_texts

    left, right = ([record.text for record in open_texts([file], field=field)] for file in arguments)
    return left, right
