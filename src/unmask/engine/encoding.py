"""What a worker does with models: reads tokenizers, loads encoders, computes. Runs in worker processes only."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import checkpoint as checkpoints
from unmask.backbone.backbone import Backbone
from unmask.backbone.compiled import rooms
from unmask.backbone.families import family_of, template_for
from unmask.backbone.loading import read_config, resolve_device
from unmask.checkpoint import Checkpoint, Settings
from unmask.encoder import Encoder
from unmask.engine.settings import ModelSettings, Weights
from unmask.engine.tokens import Reading, packed
from unmask.engine.worker import Pending
from unmask.errors import BackboneError
from unmask.text import TextTokenizer, TokenizedText
from unmask.tokenizers import load_tokenizer
from unmask.transfers import fetched

#: Tokens of each text of the first batch: the first passes are slow, and no caller should wait for them.
_WARM_UP: Final = (8, 8, 64)


class Encoders:
    """The models of one device.

    Args:
        device: as :meth:`unmask.Encoder.load` takes it.
        threads: processor threads; None: as torch chooses.
    """

    def __init__(self, device: str, threads: int | None) -> None:
        self._device = device
        if threads is not None:
            torch.set_num_threads(threads)

    def read(self, model: ModelSettings) -> bytes:
        """Return what is known of a model's texts, packed; a model that must be converted first is.

        Raises:
            UnmaskError: as :meth:`unmask.Encoder.load`.
        """
        found = checkpoints.inspect(model.source, adapters=model.adapters)
        asked = Settings(max_length=model.max_length)
        if found.cache is not None or found.base.is_file():
            encoder = Encoder.load(
                model.source, adapters=model.adapters, max_length=model.max_length, device="cpu", dtype="float32"
            )
            return packed(_reading(encoder.pipeline.tokenizer, encoder.settings))
        return packed(_reading(_text_tokenizer(found, asked), found.settings))

    def load(self, weights: Weights) -> LoadedEncoder:
        """Load an encoder.

        Raises:
            UnmaskError: as :meth:`unmask.Encoder.load`.
        """
        return LoadedEncoder(
            Encoder.load(weights.source, adapters=weights.adapters, device=self._device, dtype=weights.dtype)
        )

    def tidy(self) -> None:
        """Give back what torch keeps of unloaded weights."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class LoadedEncoder:
    """An encoder, from token ids to vectors.

    Attributes:
        size: bytes of its parameters.
        dimension: components of a vector.
        budget: tokens of a batch that suit its device.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._pipeline = encoder.pipeline
        self._vocabulary = int(encoder.backbone.config.vocab_size)
        self.size = sum(p.numel() * p.element_size() for p in encoder.backbone.model.parameters())
        self.dimension = encoder.dimension
        self.budget = encoder.pipeline.token_budget

    @torch.inference_mode()
    def begin(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> Pending:
        """Return what gives ``[N, D]`` float32: what :meth:`unmask.Encoder.encode` gives, not normalised.

        A GPU has been ordered to compute them when this returns; a processor does when they are asked for.
        """
        bounds = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        numbers = ids.tolist()
        texts = [
            TokenizedText(ids=numbers[begin:end], start=start)
            for (begin, end), start in zip(pairwise(bounds), starts, strict=True)
        ]
        if self._pipeline.backbone.device.type != "cuda":
            return partial(self._computed, texts)
        arrived = fetched(self._pipeline.pooled(texts))
        return lambda: arrived().numpy()

    @torch.inference_mode()
    def _computed(self, texts: Sequence[TokenizedText]) -> NDArray[np.float32]:
        return np.asarray(self._pipeline.pooled(texts).cpu().numpy(), dtype=np.float32)

    def warm_up(self) -> None:
        """Run one batch; of compiled layers, one of each size, since the first of a size waits for the compiler.

        Raises:
            BackboneError: it gives something that is not a finite number.
        """
        compiled = self._pipeline.backbone.form == "compiled"
        batches = [(_WARM_UP[-1],) * (room // _WARM_UP[-1]) for room in rooms(self.budget)] if compiled else [_WARM_UP]
        for lengths in batches:
            self._try(lengths)

    def _try(self, lengths: Sequence[int]) -> None:
        ids = np.arange(sum(lengths), dtype=np.int32) % self._vocabulary
        if not np.isfinite(self.begin(ids, lengths, (0,) * len(lengths))()).all():
            raise BackboneError(
                "The model's vectors hold numbers that are not finite. Its weights are damaged, or its dtype is too "
                "narrow: fetch it again, or choose another dtype."
            )


def _reading(tokenizer: TextTokenizer, settings: Settings) -> Reading:
    own = (settings.query_instruction or "").strip()
    return Reading(tokenizer=tokenizer, query_instruction=own or None)


def _text_tokenizer(found: Checkpoint, asked: Settings) -> TextTokenizer:
    """Return the text tokenizer that an encoder of a checkpoint has, without its weights."""
    settings = asked.over(found.settings)
    tokenizer = load_tokenizer(found.tokenizer, found.tokenizer_parts)
    outline = _Outline(found)
    if settings.template is None:
        settings = Settings(template=template_for(outline.config.model_type, tokenizer.chat_template)).over(settings)
    return Encoder(cast("Backbone", outline), tokenizer, settings, found).pipeline.tokenizer


class _Outline:
    """What an encoder asks of its backbone before the first text."""

    def __init__(self, found: Checkpoint) -> None:
        self.config = read_config(found.base)
        self.family = family_of(self.config.model_type)
        self.device = resolve_device("cpu")
