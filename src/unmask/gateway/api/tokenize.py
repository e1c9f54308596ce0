"""``POST /v1/tokenize``: texts → tokens as the model reads them; without instruction they are an input, too."""

from __future__ import annotations

import orjson

from unmask.engine.contract import EmbeddingEngine
from unmask.gateway.api.embeddings import Reply
from unmask.gateway.api.schemas import TokenizeRequest
from unmask.text import Text


async def tokenize(engine: EmbeddingEngine, model: str, request: TokenizeRequest) -> Reply:
    """Answer a request.

    Args:
        engine: that knows the model.
        model: the name it is served under.
        request: of any of its names.

    Raises:
        UnknownModelError: the model is not served.
        InputError: a text is too long and is not to be cut, or has no token; names its index.
    """
    strings = [request.input] if isinstance(request.input, str) else request.input
    texts = [Text(request.instruction or "", string) for string in strings]
    tokenized = await engine.tokenize(model, texts, truncate=request.truncate is not False)
    total = sum(len(text.ids) for text in tokenized)
    data = [
        {"object": "tokens", "index": index, "tokens": text.ids, "content_start": text.start}
        for index, text in enumerate(tokenized)
    ]
    usage = {"prompt_tokens": total, "total_tokens": total}
    body = orjson.dumps({"object": "list", "data": data, "model": request.model, "usage": usage})
    # Nothing was computed for it: it is on nobody's account.
    return Reply(body=body, model=model, tokens=0)
