"""Vectors in the form that a caller wants."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.form import OUTPUTS, Form, Output, normalized


def vectors(rows: int = 50, columns: int = 64) -> NDArray[np.float32]:
    """Return vectors of very different lengths."""
    drawn = np.random.default_rng(2).standard_normal((rows, columns)).astype(np.float32)
    return np.asarray(drawn * np.logspace(-3, 3, rows)[:, None], dtype=np.float32)


def test_lengths_are_those_that_torch_gives() -> None:
    given = vectors()
    given[3] = 0
    expected = torch.nn.functional.normalize(torch.from_numpy(given), dim=-1).numpy()
    assert normalized(given).dtype == np.float32
    np.testing.assert_allclose(normalized(given), expected, atol=1e-7)


def test_cut_vectors_are_normalised_and_zero_stays_zero() -> None:
    given = np.array([[3, 4, 12], [0, 0, 0]], dtype=np.float32)
    assert np.allclose(Form(dimensions=2).apply(given), np.array([[0.6, 0.8], [0, 0]]))
    assert np.allclose(Form(normalize=True).apply(given), np.array([[3 / 13, 4 / 13, 12 / 13], [0, 0, 0]]))
    assert np.array_equal(Form().apply(given), given)


def test_int8_keeps_the_direction() -> None:
    quantised = Form(output="int8").apply(vectors())
    assert quantised.dtype == np.int8
    cosines = (normalized(quantised.astype(np.float32)) * normalized(vectors())).sum(axis=1)
    assert cosines.min() > 0.9999
    assert np.abs(quantised.astype(int)).max(axis=1).tolist() == [127] * 50
    assert not Form(output="int8").apply(np.zeros((1, 4), dtype=np.float32)).any()


def test_binary_packs_the_first_dimension_into_the_highest_bit() -> None:
    bits = Form(output="binary").apply(np.array([[1, -1, 1, 0, -2, 3, 1, 1, 5, -1]], dtype=np.float32))
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[0b10100111, 0b10000000]]


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_vectors_keep_their_width(output: Output) -> None:
    made = Form(output=output, dimensions=12).apply(np.zeros((0, 16), dtype=np.float32))
    assert made.shape == (0, 2 if output == "binary" else 12)


@pytest.mark.parametrize("options", [{"dimensions": 0}, {"output": "int4"}])
def test_impossible_forms_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Form(**options)  # type: ignore[arg-type]


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match="dimensions is 6; this encoder's vectors have 1 to 5"):
        Form(dimensions=6).apply(vectors(8, 5))


def test_it_needs_no_torch() -> None:
    code = "import sys, unmask.form; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=True)
