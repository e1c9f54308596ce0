"""The engine without a model keeps the contract."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from unmask.engine.contract import EmbeddingEngine
from unmask.engine.fake import FakeEngine
from unmask.errors import InputError, StoppingError, TooManyTokensError, UnknownModelError
from unmask.text import Text


def test_the_fake_keeps_the_contract() -> None:
    async def use(engine: EmbeddingEngine) -> None:
        await engine.start()
        both = await engine.embed("fake", [Text("", "a"), Text("", "é")], caller="x")
        again = await engine.embed("fake", [Text("", "é")], caller="y", priority="batch", wait=1)
        assert both.vectors.shape == (2, 384)
        assert both.vectors.dtype == np.float32
        assert both.tokens == (1, 2)
        assert np.array_equal(both.vectors[1:], again.vectors)
        assert not np.array_equal(both.vectors[0], both.vectors[1])
        assert np.isfinite(both.vectors).all()
        assert np.abs(both.vectors).min() > 0
        with_instruction = await engine.tokenize("fake", [Text("query:", "é")])
        assert with_instruction[0].start == 7
        tokens = await engine.tokenize("fake", [Text("", "étage")])
        assert await engine.detokenize("fake", [text.ids for text in tokens]) == ["étage"]
        assert len((await engine.tokenize("fake", [Text("", "x" * 600)]))[0].ids) == 512
        with pytest.raises(InputError, match="Text 1 has 600 tokens"):
            await engine.embed("fake", [Text("", "a"), Text("", "x" * 600)], caller="x", truncate=False)
        assert (await engine.embed("fake", [Text("", "abc")], caller="x", most_tokens=3)).tokens == (3,)
        with pytest.raises(TooManyTokensError, match="more than 3 tokens"):
            await engine.embed("fake", [Text("", "abc"), Text("", "d")], caller="x", most_tokens=3)
        with pytest.raises(InputError, match="Token array 1 holds 256"):
            await engine.detokenize("fake", [[1], [256]])
        with pytest.raises(UnknownModelError, match="'other' is not served"):
            await engine.embed("other", [Text("", "a")], caller="x")
        assert [(each.name, each.state) for each in engine.served()] == [("fake", "ready")]
        assert (engine.load().batches, engine.load().batch_tokens) == (3, 8)
        await engine.stop(0)
        with pytest.raises(StoppingError):
            await engine.embed("fake", [Text("", "a")], caller="x")

    asyncio.run(use(FakeEngine()))
