"""Responses of providers → arrays: whatever the pieces, and nothing that is wrong passes."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.gateway.routing.vectors import MalformedError, VectorReader, Vectors

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4) / 7


def written(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def response(rows: Any = VECTORS, *, plain: bool = False, **more: Any) -> dict[str, Any]:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [float(value) for value in row] if plain else written(row),
        }
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    return {"object": "list", "data": data, "model": "m", "usage": usage} | more


def read(body: bytes, count: int = 3, dimension: int | None = None, size: int = 65_536) -> Vectors:
    reader = VectorReader(count, dimension)
    for first in range(0, len(body), size):
        reader.feed(body[first : first + size])
    return reader.finish()


@given(st.integers(1, 400), st.booleans(), st.sampled_from([None, 2]))
def test_the_pieces_do_not_matter(size: int, plain: bool, indent: int | None) -> None:
    found = read(json.dumps(response(plain=plain), indent=indent).encode(), size=size)
    assert np.array_equal(found.array, VECTORS)
    assert found.array.dtype == np.float32
    assert found.tokens == 9


def test_the_order_of_keys_and_vectors_does_not_matter() -> None:
    said = response()
    said["data"] = [dict(reversed(each.items())) for each in reversed(said["data"])]
    assert np.array_equal(read(orjson.dumps(dict(reversed(said.items())))).array, VECTORS)


def test_escaped_slashes_are_slashes() -> None:
    rows = np.frombuffer(b"\x3f\xff\xff\x3e" * 12, dtype="<f4").reshape(3, 4)
    assert "/" in written(rows[0])
    body = orjson.dumps(response(rows)).replace(b"/", rb"\/")
    assert np.array_equal(read(body).array, rows)


def test_the_word_in_a_string_is_no_key() -> None:
    body = orjson.dumps({"note": 'say "embedding":"AAAA" to me', "embedding ": 1} | response())
    assert np.array_equal(read(body).array, VECTORS)


@pytest.mark.parametrize("named", ["prompt_tokens", "total_tokens"])
def test_usage_by_either_name_or_none(named: str) -> None:
    assert read(orjson.dumps(response(usage={named: 5}))).tokens == 5
    unsaid: list[Any] = [None, {}, [], {"prompt_tokens": None}]
    for usage in unsaid:
        assert read(orjson.dumps(response(usage=usage))).tokens is None


def broken(**row: Any) -> bytes:
    said = response()
    said["data"][1] |= row
    return orjson.dumps(said)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"<html><body>Bad gateway</body></html>", "not JSON"),
        (b"[]", "no list of data"),
        (b"{}", "no list of data"),
        (b'{"data": [1, 2, 3]}', "no list of data"),
        (b'{"data": []}', "0 vectors for 3"),
        (orjson.dumps(response(VECTORS[:2])), "2 vectors for 3"),
        (orjson.dumps(response(np.ones((4, 4)))), "more vectors than"),
        (orjson.dumps(response())[:-1], "not JSON"),
        (orjson.dumps(response())[:90], "inside of a vector"),
        (broken(embedding=written([1, 2, 3])), "3 components; expected 4"),
        (broken(embedding=written([1, 2, 3, np.nan])), "no number"),
        (broken(embedding=written([1, 2, 3, np.inf])), "no number"),
        (broken(embedding=[1.0, 2.0, 3.0, 1e50]), "no number"),
        (broken(embedding=[1.0, 2.0, 3.0, "4"]), "no number"),
        (broken(embedding=[1.0, 2.0, 3.0, True]), "no number"),
        (broken(embedding=[[1.0, 2.0, 3.0, 4.0]]), "not JSON"),
        (broken(embedding=written([0, 0, 0, 0])), "all zeros"),
        (broken(embedding=""), "0 components"),
        (broken(embedding=[]), "0 components"),
        (broken(embedding="AAA="), "row of float32"),
        (broken(embedding="@@@@"), "not base64"),
        (broken(embedding=None), "2 vectors for 3"),
        (broken(embedding=1), "2 vectors for 3"),
        (broken(index=0), "indices"),
        (broken(index=7), "indices"),
        (broken(index=True), "indices"),
        (broken(index="1"), "indices"),
        (orjson.dumps(response(usage={"prompt_tokens": -1})), "usage"),
        (orjson.dumps(response(usage={"prompt_tokens": 1.5})), "usage"),
        (orjson.dumps(response(usage={"prompt_tokens": True})), "usage"),
        (orjson.dumps(response(padding="x" * 200_000)), "far too long"),
        (orjson.dumps({"embedding": "A" * 4_000_000}), "far too long"),
        (orjson.dumps(response(more={"embedding": 3})), ""),
    ],
)
def test_what_is_wrong_is_found(body: bytes, message: str) -> None:
    if not message:
        assert read(body).tokens == 9  # something else of that name
        return
    for size in (65_536, 50):
        with pytest.raises(MalformedError, match=message):
            read(body, size=size)


def test_the_expected_dimension_is_kept() -> None:
    assert read(orjson.dumps(response()), dimension=4).array.shape == (3, 4)
    with pytest.raises(MalformedError, match="4 components; expected 5"):
        read(orjson.dumps(response()), dimension=5)


def test_vectors_that_stand_elsewhere_do_not_count() -> None:
    said = response(VECTORS[:2])
    said["more"] = {"embedding": written(VECTORS[2])}
    said["data"].append({"index": 2, "embedding": 2})
    with pytest.raises(MalformedError, match="where they belong"):
        read(orjson.dumps({"more": said.pop("more")} | said))


def test_a_large_response_is_held_once() -> None:
    count, dimension = 256, 1024
    rows = np.random.default_rng(1).standard_normal((count, dimension), dtype=np.float32)
    body = orjson.dumps(response(rows))
    pieces = [body[first : first + 65_536] for first in range(0, len(body), 65_536)]
    tracemalloc.start()
    reader = VectorReader(count, dimension)
    for piece in pieces:
        reader.feed(piece)
    found = reader.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found.array, rows)
    assert peak < rows.nbytes + 400_000  # the text alone has a third more than the array
