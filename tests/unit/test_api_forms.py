"""Vectors in the forms that callers want are those of the library; instructions are split where they are registered."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import numpy as np
import orjson
import pytest

from unmask.errors import InputError
from unmask.gateway.api.forms import TYPES, Wanted
from unmask.gateway.api.instructions import DEFAULTS, Instructions, read_instructions
from unmask.pooling import Form, Output
from unmask.text import Text

VECTORS = np.random.default_rng(5).standard_normal((4, 12)).astype(np.float32)
VECTORS[2] = 0
OUTPUTS: dict[str, Output] = {"float": "float32", "int8": "int8", "binary": "binary"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dimensions", [None, 1, 5, 12])
def test_forms_are_those_of_the_library(kind: str, normalize: bool, dimensions: int | None) -> None:
    import torch

    wanted = Wanted(normalize=normalize, dimensions=dimensions, type=kind, base64=False)
    form = Form(normalize=normalize, dimensions=dimensions, output=OUTPUTS[kind])
    expected = form.apply(torch.from_numpy(VECTORS))
    found = wanted.form(VECTORS)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1e-6)


def test_rows_hold_the_very_numbers() -> None:
    plain = Wanted(normalize=False, dimensions=None, type="float", base64=False)
    packed = Wanted(normalize=False, dimensions=None, type="float", base64=True)
    rows = orjson.loads(asyncio_free(plain, VECTORS))
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), VECTORS)
    for row, vector in zip(orjson.loads(asyncio_free(packed, VECTORS)), VECTORS, strict=True):
        assert base64.b64decode(row["embedding"]) == vector.astype("<f4").tobytes()


def asyncio_free(wanted: Wanted, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    """Return the rows without an event loop: so few are written at once."""
    coroutine = wanted.rows(vectors)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    rows: bytes = ended.value.value
    return rows


def test_more_dimensions_than_there_are_is_an_error() -> None:
    wanted = Wanted(normalize=True, dimensions=13, type="float", base64=False)
    with pytest.raises(InputError, match="have 1 to 12"):
        wanted.check(12)
    wanted.check(13)
    wanted.check(None)
    assert asyncio.iscoroutinefunction(wanted.rows)


def test_the_longest_instruction_that_fits_is_split_off() -> None:
    known = Instructions("Find:", ["Find: it", "  Sort it:  ", "", "Find:"])
    assert known.known == ("Find:", "Find: it", "Sort it:", *DEFAULTS)
    assert known.split("Find: it now") == Text("Find: it", " now")
    assert known.split("Find: item") == Text("Find:", " item")
    assert known.split("Sort it:\tx") == Text("Sort it:", "\tx")
    for plain in ("Find:x", "Find: ", "Find:", " Find: x", "find: x", ""):
        assert known.split(plain) == Text("", plain)


def test_a_file_of_instructions(tmp_path: Path) -> None:
    file = tmp_path / "instructions.txt"
    file.write_text("Instruct: find\\nQuery:\n\nSort:\n", encoding="utf-8")
    assert read_instructions(file) == ["Instruct: find\nQuery:", "Sort:"]
    with pytest.raises(InputError, match="cannot be read"):
        read_instructions(tmp_path / "none")
