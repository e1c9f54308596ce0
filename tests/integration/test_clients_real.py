"""A vector equals itself: the encoder that comes with Unmask, behind ``unmask serve``, asked for in every way."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.integration.test_api_support import Unmask
from unmask import Encoder

MODEL = "smollm2-135m-unsup"
TEXTS = ["How do I compress a file?", "图书馆 7 🌞", "x", "two\nlines\tand <|endoftext|>", "The library opens. " * 20]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_model(tmp_path: Path) -> None:
    """Alone, in any mix, through all forms of input, as floats and as base64 (the client's default)."""
    encoder = Encoder.load(MODEL, device="cpu")
    expected = encoder.encode(TEXTS, normalize=True)
    dice = random.Random(0)
    mixes = [dice.choices(range(len(TEXTS)), k=dice.randint(2, 5)) for _ in range(8)]

    async def work(url: str, tokens: list[list[int]]) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600) as client:

            async def check(given: Any, picked: list[int], format_: Any) -> None:
                answer = await client.embeddings.create(model=MODEL, input=given, encoding_format=format_)
                found = np.array([row.embedding for row in answer.data])
                cosines = (found * expected[picked]).sum(-1) / np.linalg.norm(found, axis=-1)
                assert cosines.min() >= 0.99999, (given, format_)

            for format_ in (openai.NOT_GIVEN, "float"):
                for forms in (TEXTS, tokens):
                    alone = [check(form, [index], format_) for index, form in enumerate(forms)]
                    mixed = [check([forms[index] for index in mix], mix, format_) for mix in mixes]
                    await asyncio.gather(*alone, *mixed)
                for number in range(len(TEXTS)):  # with nobody else at the time
                    await check(TEXTS[number], [number], format_)

    with Unmask(tmp_path, {MODEL: {}}) as server, server.client() as client:
        rows = client.post("/v1/tokenize", json={"model": MODEL, "input": TEXTS}).json()["data"]
        asyncio.run(work(server.url, [row["tokens"] for row in rows]))
