"""What a worker does with cross-encoders: reads tokenizers, loads models, scores. Runs in worker processes only.

A score takes the place of a vector: an engine whose workers run this module has all that an engine has (fair queues,
batches of many callers, retries, models loaded on demand), and gives "vectors" of one component, from 0 to 1.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from unmask.backbone import float8
from unmask.backbone.loading import resolve_device, resolve_dtype
from unmask.backbone.memory import BUDGETS
from unmask.checkpoint.files import CONFIG_FILE, read_json_list, shown
from unmask.engine.pairs import PairTokenizer
from unmask.engine.settings import ModelSettings, Weights
from unmask.engine.tokens import Reading, packed
from unmask.engine.worker import Pending, serve
from unmask.errors import BackboneError, CheckpointError, InputError
from unmask.hub import locate
from unmask.text import Text, TextTokenizer

_HEAD: Final = "ForSequenceClassification"
#: A model whose tokenizer and configuration do not say its longest text.
_UNKNOWN_LENGTH: Final = 1_000_000
#: In one forward pass no pair is shorter than this share of the longest: the rest is padding.
_LEAST_SHARE: Final = 0.75
#: On these a model that is loaded must give the scores that sentence-transformers gives. The last one is cut.
_PROBES: Final = (
    ("How do I compress a file?", "Run gzip on it."),
    ("compress", "  Rain is expected\ton MONDAY, in the north.  "),
    ("A file? " * 300, "Use an archive. " * 600),
)
#: How far they may differ, by the bytes of the numbers that the model computes with.
_TOLERANCE: Final = {4: 1e-4, 2: 2e-2}


class CrossEncoders:
    """The cross-encoders of one device.

    Args:
        device: a torch device, ``auto`` for the best at hand.
        threads: processor threads; None: as torch chooses.
    """

    def __init__(self, device: str, threads: int | None) -> None:
        self._device = resolve_device(device)
        if threads is not None:
            torch.set_num_threads(threads)

    def read(self, model: ModelSettings) -> bytes:
        """Return a model's tokenizer of pairs, packed.

        Raises:
            CheckpointError: its files are missing, damaged, or not those of a cross-encoder with one score.
            InputError: more tokens are asked for than it reads, or too few for a pair.
        """
        backend, longest = _backend(_folder_of(model.source))
        wanted = model.max_length or longest
        if model.max_length is None and longest == _UNKNOWN_LENGTH:
            raise InputError("The model does not say how many tokens it reads at most. Set its max_length.")
        if wanted > longest:
            raise InputError(f"max_length is {wanted}; this model reads {longest} tokens at most.")
        pairs = PairTokenizer(backend, max_length=wanted)
        # The engine asks of a tokenizer only what both have.
        return packed(Reading(tokenizer=cast("TextTokenizer", pairs)))

    def load(self, weights: Weights) -> LoadedCrossEncoder:
        """Load a cross-encoder, and prove that it gives the scores of sentence-transformers.

        Raises:
            CheckpointError: as :meth:`read`.
            BackboneError: it gives others.
        """
        folder = _folder_of(weights.source)
        dtype = resolve_dtype(weights.dtype, self._device)
        if dtype == float8.FORMAT:
            raise InputError(f"dtype is {weights.dtype!r}, which is for encoders; expected 'bfloat16' for reranking.")
        try:
            model = CrossEncoder(
                str(folder),
                device=str(self._device),
                local_files_only=True,
                trust_remote_code=False,
                activation_fn=torch.nn.Sigmoid(),
                model_kwargs={"use_safetensors": True, "dtype": dtype},
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{weights.source} cannot be loaded: {error}") from error
        loaded = LoadedCrossEncoder(model, BUDGETS.get(self._device.type, BUDGETS["cpu"]))
        backend, longest = _backend(folder)
        loaded.prove(PairTokenizer(backend, max_length=longest))
        return loaded

    def tidy(self) -> None:
        """Give back what torch keeps of unloaded weights."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class LoadedCrossEncoder:
    """A cross-encoder, from token ids to scores.

    Attributes:
        size: bytes of its parameters.
        dimension: 1.
        budget: tokens of a batch that suit its device.
    """

    def __init__(self, model: CrossEncoder, budget: int) -> None:
        self._model = model.eval()
        self._typed = "token_type_ids" in model.tokenizer.model_input_names
        self.size = sum(p.numel() * p.element_size() for p in model.parameters())
        self.dimension = 1
        self.budget = budget

    def begin(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> Pending:
        """Return what gives :meth:`vectors`."""
        return partial(self.vectors, ids, lengths, starts)

    @torch.inference_mode()
    def vectors(self, ids: NDArray[np.int32], lengths: Sequence[int], starts: Sequence[int]) -> NDArray[np.float32]:
        """Return the scores of pairs, ``[N, 1]`` float32 from 0 to 1, as :meth:`CrossEncoder.predict` gives them."""
        bounds = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        pairs = [ids[begin:end].tolist() for begin, end in pairwise(bounds)]
        scores = np.empty((len(pairs), 1), dtype=np.float32)
        for rows in _alike(lengths):
            features = {"input_ids": [pairs[row] for row in rows]}
            if self._typed:
                features["token_type_ids"] = [[0] * starts[row] + [1] * (lengths[row] - starts[row]) for row in rows]
            padded = self._model.tokenizer.pad(features, return_tensors="pt").to(self._model.device)
            logits: Any = self._model({**padded, "modality": "text"})["scores"]
            scores[rows] = torch.sigmoid(logits.float()).reshape(-1, 1).cpu().numpy()
        return scores

    def warm_up(self) -> None:
        """Score one batch.

        Raises:
            BackboneError: it gives something that is not a finite number.
        """
        ids = np.arange(48, dtype=np.int32) % self._model.config.vocab_size
        if not np.isfinite(self.vectors(ids, (8, 40), (4, 20))).all():
            raise BackboneError(
                "The model's scores are not finite numbers. Its weights are damaged, or its dtype is too narrow: fetch "
                "it again, or choose another dtype."
            )

    def prove(self, tokenizer: PairTokenizer) -> None:
        """See that pairs tokenised by ``tokenizer`` get the scores that sentence-transformers gives them.

        Raises:
            BackboneError: they get others: the model reads a pair in a way of its own.
        """
        read = tokenizer.tokenize([Text(query, document) for query, document in _PROBES])
        ids = np.concatenate([pair.ids for pair in read]).astype(np.int32)
        found = self.vectors(ids, [len(pair.ids) for pair in read], [pair.start for pair in read])[:, 0]
        expected = self._model.predict(list(_PROBES), show_progress_bar=False)
        size = next(self._model.parameters()).element_size()
        if not np.allclose(found, expected, atol=_TOLERANCE.get(size, 2e-2)):
            raise BackboneError(
                f"The model's scores are not those of sentence-transformers: {found.tolist()}, expected "
                f"{np.asarray(expected).tolist()}. It reads a pair in a way of its own: choose another model."
            )


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows of pairs that go through the model together, longest first."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and lengths[row] >= _LEAST_SHARE * lengths[groups[-1][0]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _folder_of(source: str) -> Path:
    """Return where a cross-encoder lies, fetched if need be, and refuse what would not be one.

    Raises:
        CheckpointError: it is none, or not one that may be loaded.
    """
    folder = locate.path_of(source).path
    if not (folder / CONFIG_FILE).is_file() or not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{source} is no cross-encoder: it holds {shown(folder)}. Expected a folder or a hub name with "
            f"{CONFIG_FILE} and *.safetensors; pickled weights are not read."
        )
    config = _read(AutoConfig, folder)
    if not any(name.endswith(_HEAD) for name in config.architectures or ()):
        raise CheckpointError(
            f"{source} is no cross-encoder: its architecture is {', '.join(config.architectures or ['unknown'])}. "
            f"Expected one that ends with {_HEAD}."
        )
    if config.num_labels != 1:
        raise CheckpointError(
            f"{source} gives {config.num_labels} labels; expected one, the relevance. Choose a model for reranking."
        )
    modules = read_json_list(folder / "modules.json") if (folder / "modules.json").is_file() else []
    kinds = [str(module.get("type")) for module in modules]
    if any(not (kind.startswith("sentence_transformers.") and kind.endswith(".Transformer")) for kind in kinds):
        raise CheckpointError(f"{source} has the modules {', '.join(kinds)}; expected a transformer alone.")
    return folder


def _backend(folder: Path) -> tuple[Tokenizer, int]:
    """Return a model's tokenizer, and how many tokens the model reads at most, as sentence-transformers sees it."""
    tokenizer, config = _read(AutoTokenizer, folder), _read(AutoConfig, folder)
    positions = getattr(config, "max_position_embeddings", _UNKNOWN_LENGTH)
    return tokenizer.backend_tokenizer, int(min(tokenizer.model_max_length, positions, _UNKNOWN_LENGTH))


def _read(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # The libraries that read these files raise what they like.
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error


if __name__ == "__main__":
    # Standard error is the server's log.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    serve(CrossEncoders, sys.argv[1:])
