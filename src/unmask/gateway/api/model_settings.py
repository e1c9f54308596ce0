"""What a server is told of each model: an encoder, or a cross-encoder that reranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from unmask.engine.settings import ModelSettings as EngineModel


class RerankerSettings(BaseModel):
    """A cross-encoder to serve.

    Attributes:
        source: a folder or hub name; None for the name under which it is served.
        max_length: most tokens of a query and a document together; None: as the checkpoint says.
        dtype: number format; ``auto``: bfloat16 on CUDA, else float32.
        preload: load it at the start, and be ready only then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    dtype: str = "auto"
    preload: bool = True

    def engine(self, name: str) -> EngineModel:
        """Return what an engine is told of it.

        Args:
            name: by which requests name it.
        """
        return EngineModel(
            name=name,
            source=self.source or name,
            max_length=self.max_length,
            dtype=self.dtype,
            preload=self.preload,
        )


class ModelSettings(RerankerSettings):
    """An encoder to serve.

    Attributes:
        source: a short name, folder, GGUF file or hub name; None for the name under which it is served.
        max_length: most tokens of a text; None: as the checkpoint says.
        dtype: number format; ``auto``: bfloat16 on CUDA, else float32.
        preload: load it at the start, and be ready only then.
        adapters: adapters to apply on top, in order.
        query_instruction: what ``input_type: query`` and rerank's queries have; None: as the checkpoint says.
        instructions: more that an input may begin with.
        instructions_file: a file of more, one a line.
    """

    adapters: tuple[str, ...] = ()
    query_instruction: str | None = None
    instructions: tuple[str, ...] = ()
    instructions_file: Path | None = None

    def engine(self, name: str) -> EngineModel:
        """Return what an engine is told of it; arguments are those of :meth:`RerankerSettings.engine`."""
        return replace(super().engine(name), adapters=self.adapters)
