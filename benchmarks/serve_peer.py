"""sentence-transformers behind FastAPI, as it is commonly done: a request is a call of ``encode`` in a thread.

    python serve_peer.py MODEL PORT

Runs in an environment of its own: the standard library, FastAPI and sentence-transformers only.
"""

from __future__ import annotations

import base64
import sys
from threading import Lock
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Request(BaseModel):
    """What OpenAI's client sends."""

    model: str
    input: str | list[str]
    encoding_format: str = "float"


def application(model: str) -> FastAPI:
    """Return the server's application."""
    encoder = SentenceTransformer(model, device="cpu")
    app = FastAPI()
    # All cores work on one call at a time: side by side, calls only take them from one another.
    one = Lock()

    @app.post("/v1/embeddings")
    def embed(request: Request) -> dict[str, Any]:
        texts = [request.input] if isinstance(request.input, str) else request.input
        with one:
            vectors = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        wanted = vectors.astype("<f4")
        rows = [
            base64.b64encode(row.tobytes()).decode() if request.encoding_format == "base64" else row.tolist()
            for row in wanted
        ]
        data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
        return {"object": "list", "data": data, "model": request.model}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), access_log=False, log_level="warning")
