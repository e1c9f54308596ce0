"""The encoder: texts → vectors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import checkpoint as checkpoints
from unmask.backbone.backbone import Backbone
from unmask.backbone.families import TEMPLATES, template_for
from unmask.backbone.loading import load_backbone, resolve_device, resolve_dtype
from unmask.backbone.memory import budget_for
from unmask.checkpoint import MAX_LENGTH, Checkpoint, Settings, reference_pooling
from unmask.errors import InputError
from unmask.form import Form, Output
from unmask.hub.catalogue import DEFAULT
from unmask.pipeline import Empty, Pipeline, check
from unmask.pooling import Pooling, pool_words
from unmask.progress import Progress
from unmask.text import BARE, Template, Text, TextTokenizer
from unmask.tokenizers import ModelTokenizer, load_tokenizer

Vectors = NDArray[np.generic]

_DEFAULTS: Final = Settings(
    pooling="mean",
    max_length=MAX_LENGTH,
    pool_instruction=False,
    append_eos=False,
    bidirectional=True,
    normalize=False,
)


@dataclass(frozen=True)
class TokenVectors:
    """The pooled span of one text, token by token.

    Attributes:
        tokens: the tokens as the vocabulary writes them.
        spans: each token's ``(start, end)`` in characters of the text, stripped; empty for the
            template's tokens.
        vectors: ``[tokens, D]`` float32.
    """

    tokens: list[str]
    spans: list[tuple[int, int]]
    vectors: NDArray[np.float32]


class Encoder:
    """A language model that turns texts into vectors.

    Made by :meth:`load`. Safe to call from several threads, and can be pickled to a worker process.

    Attributes:
        backbone: the model underneath.
        settings: how texts become vectors; all fields are set.
        checkpoint: where it was loaded from.
        pipeline: batches texts through it.
    """

    def __init__(self, backbone: Backbone, tokenizer: ModelTokenizer, settings: Settings, source: Checkpoint) -> None:
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.checkpoint = source
        texts = TextTokenizer(
            tokenizer.backend,
            template=self.template,
            max_length=self.max_length,
            control_tokens=tokenizer.control,
            append=self._eos_text() if settings.append_eos else "",
            pool_instruction=bool(settings.pool_instruction),
        )
        self.pipeline = Pipeline(backbone, texts, self.pooling, budget_for(backbone))

    @classmethod
    def load(
        cls,
        source: str | Path = DEFAULT,
        *,
        adapters: Sequence[str | Path] = (),
        bidirectional: bool | None = None,
        pooling: str | None = None,
        max_length: int | None = None,
        template: str | Template | None = None,
        pool_instruction: bool | None = None,
        device: str = "auto",
        dtype: str = "auto",
        merge_adapters: bool = True,
        progress: bool = False,
    ) -> Self:
        """Load an encoder.

        Args:
            source: a short name (``unmask pull --list``; by default, that of the encoder that comes with Unmask), a
                folder of any known layout, a GGUF file, or a hub name. An adapter's own base is found and loaded
                with it.
            adapters: adapters to apply on top, in order; each but the last is merged.
            bidirectional: False for the causal baseline. None: as the checkpoint says, else True.
            pooling: ``mean``, ``weighted_mean``, ``last``, ``first``, or llm2vec's names for them.
            max_length: most tokens of a text, template included. None: as the checkpoint says, else 512.
            template: name of a template or a :class:`Template`. None: as the checkpoint says, else the one
                that the model's family and chat template call for.
            pool_instruction: pool all tokens instead of the text's own.
            device: ``auto`` (CUDA, MPS, CPU) or a torch device.
            dtype: ``auto`` (bfloat16 on CUDA, else float32), ``float32``, ``bfloat16``, ``float16``.
            merge_adapters: merge the last adapter, too; False keeps it apart.
            progress: show downloads and conversion.

        Raises:
            CheckpointError: the checkpoint is missing, damaged or unknown; an adapter does not fit.
            BackboneError: the model cannot be bidirectional.
            InputError: an option is out of range.
        """
        mode, append_eos = reference_pooling(pooling) if pooling is not None else (None, None)
        if isinstance(template, str):
            if template not in TEMPLATES:
                raise InputError(f"template {template!r} is unknown; expected one of {', '.join(TEMPLATES)}.")
            template = TEMPLATES[template]
        asked = Settings(
            pooling=mode,
            append_eos=append_eos,
            max_length=max_length,
            template=template,
            pool_instruction=pool_instruction,
            bidirectional=bidirectional,
        )
        chosen_device = resolve_device(device)
        chosen_dtype = resolve_dtype(dtype, chosen_device)
        found = checkpoints.inspect(source, adapters=adapters, progress=progress)
        if found.cache is not None:
            found = cls._convert(found, progress)
        return cls._assemble(found, asked, chosen_device, chosen_dtype, merge_last=merge_adapters)

    @classmethod
    def _convert(cls, found: Checkpoint, progress: bool) -> Checkpoint:
        """Keep a converted copy of a checkpoint that is slow to load, and return the copy."""
        assert found.cache is not None
        if progress:
            sys.stderr.write("Converting the model, once (about half a minute) …\n")
        cpu = torch.device("cpu")
        slow = cls._assemble(replace(found, adapters=()), Settings(), cpu, torch.float32, merge_last=True)
        slow.save(found.cache)
        converted = checkpoints.inspect(found.cache)
        return replace(converted, adapters=found.adapters, settings=found.settings.over(converted.settings))

    @classmethod
    def _assemble(
        cls, found: Checkpoint, asked: Settings, device: torch.device, dtype: torch.dtype, *, merge_last: bool
    ) -> Self:
        settings = asked.over(found.settings).over(_DEFAULTS)
        tokenizer = load_tokenizer(found.tokenizer, found.tokenizer_parts)
        backbone = load_backbone(
            found.base,
            adapters=found.adapters,
            bidirectional=bool(settings.bidirectional),
            device=device,
            dtype=dtype,
            merge_last=merge_last,
        )
        if settings.template is None:
            fitting = template_for(backbone.config.model_type, tokenizer.chat_template)
            settings = replace(settings, template=fitting)
        return cls(backbone, tokenizer, settings, found)

    # --- what it is --------------------------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.backbone.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Most tokens of a text, template and special tokens included."""
        return self.settings.max_length or MAX_LENGTH

    @property
    def pooling(self) -> Pooling:
        """How token states become one vector."""
        return self.settings.pooling or "mean"

    @property
    def template(self) -> Template:
        """The strings around each text."""
        return self.settings.template or BARE

    @property
    def bidirectional(self) -> bool:
        """Whether every token sees the whole text."""
        return self.backbone.bidirectional

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which the model computes."""
        return self.backbone.dtype

    def _eos_text(self) -> str:
        eos = self.tokenizer.eos
        if eos is None:
            raise InputError("End-of-text pooling needs an EOS token, and this tokenizer has none. Use 'last'.")
        if self.template.suffix.endswith(eos):
            return ""
        row = self.backbone.family
        return dict(row.eos_text).get(eos, eos) if row else eos

    # --- texts → vectors ---------------------------------------------------------------------------

    def encode(
        self,
        texts: str | Text | Sequence[str | Text],
        *,
        instruction: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        output: Output = "float32",
        tensor: bool = False,
        truncate: bool = True,
        empty: Empty = "error",
        progress: bool = False,
    ) -> Any:
        """Encode texts.

        Args:
            texts: one text, or several.
            instruction: says what the vectors are for; put before each plain string (a :class:`Text`
                brings its own). By convention queries have one and documents have none.
            normalize: scale vectors to length 1. None: as the checkpoint says, else False.
            dimensions: keep only the first so many components, and normalise.
            output: ``float32``, ``float16``, ``int8`` or ``binary``; see :class:`unmask.form.Form`.
            tensor: return a torch tensor (on the CPU) instead of a numpy array.
            truncate: cut the end of texts that are too long; False makes them an error.
            empty: what a blank text is: an ``error``, or a ``zero`` vector.
            progress: show a progress bar.

        Returns:
            ``[n, D]``, or ``[D]`` for a single text; in the order of ``texts``.

        Raises:
            InputError: a text is not a string, blank, broken or too long, naming its index; or an
                option is out of range.
        """
        single = isinstance(texts, str | Text)
        given: Sequence[str | Text] = [texts] if isinstance(texts, str | Text) else texts
        if not isinstance(given, Sequence):
            raise InputError(
                f"texts is of type {type(given).__name__}; expected a string, a Text or a list of them. "
                "For an iterator of any length use encode_stream."
            )
        form = self._form(normalize, dimensions, output)
        checked = list(check(given, instruction, empty))
        with Progress("Encoding", total=len(given), unit="texts", extra_unit="tokens", enabled=progress) as bar:
            windows = self.pipeline.vectors(iter(checked), bar, truncate=truncate)
            parts = [form.apply(window.numpy()) for window in windows]
        vectors = np.concatenate(parts) if parts else form.apply(np.zeros((0, self.dimension), dtype=np.float32))
        if single:
            vectors = vectors[0]
        return torch.from_numpy(vectors) if tensor else vectors

    def encode_stream(
        self,
        texts: Iterable[str | Text],
        *,
        instruction: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        output: Output = "float32",
        truncate: bool = True,
        empty: Empty = "error",
        progress: bool = False,
        total: int | None = None,
    ) -> Iterator[Vectors]:
        """Encode texts of an iterator of any length, in bounded memory.

        Takes the arguments of :meth:`encode`, and ``total`` for the progress bar if it is known. The
        iterator is read in the caller's thread, up to two windows of texts ahead.

        Yields:
            Arrays ``[k, D]`` of up to 4,096 vectors, in the order of the texts.
        """
        form = self._form(normalize, dimensions, output)
        with Progress("Encoding", total=total, unit="texts", extra_unit="tokens", enabled=progress) as bar:
            for window in self.pipeline.vectors(check(texts, instruction, empty), bar, truncate=truncate):
                yield form.apply(window.numpy())

    def _form(self, normalize: bool | None, dimensions: int | None, output: Output) -> Form:
        wanted = bool(self.settings.normalize) if normalize is None else normalize
        form = Form(normalize=wanted, dimensions=dimensions, output=output)
        form.check(self.dimension)  # an option out of range is found before the work, not after
        return form

    def encode_tokens(
        self, texts: Sequence[str | Text], *, instruction: str | None = None, truncate: bool = True
    ) -> list[TokenVectors]:
        """Encode each token of the pooled span: the text's own, and the template's closing ones.

        Args:
            texts: as for :meth:`encode`; none may be blank.
            instruction: put before each plain string.
            truncate: cut texts that are too long instead of raising.
        """
        checked = [text for text in check(texts, instruction, "error") if text is not None]
        tokenized = self.pipeline.tokenizer.tokenize(checked, truncate=truncate, spans=True)
        with torch.inference_mode():
            states = [self.pipeline.hidden([text])[text.start :].float().cpu() for text in tokenized]
        backend = self.tokenizer.backend
        return [
            TokenVectors(
                tokens=[backend.id_to_token(token) or "" for token in text.ids[text.start :]],
                spans=text.spans or [],
                vectors=vectors.numpy(),
            )
            for text, vectors in zip(tokenized, states, strict=True)
        ]

    def encode_words(
        self, sentences: Sequence[Sequence[str]], *, instruction: str | None = None
    ) -> list[NDArray[np.float32]]:
        """Encode each word of sentences given as lists of words: the mean over its tokens.

        Args:
            sentences: words without white space at their ends, joined here by single spaces.
            instruction: put before each sentence.

        Returns:
            One ``[words, D]`` array a sentence.

        Raises:
            InputError: a sentence is too long, empty, or a word is blank.
        """
        bounds = [_word_bounds(words, number) for number, words in enumerate(sentences)]
        texts = [" ".join(words) for words in sentences]
        encoded = self.encode_tokens(texts, instruction=instruction, truncate=False)
        return [
            pool_words(torch.from_numpy(text.vectors), text.spans, words).numpy()
            for text, words in zip(encoded, bounds, strict=True)
        ]

    def similarity(self, a: Any, b: Any) -> NDArray[np.float32]:
        """Return the cosine of every vector of ``a`` with every one of ``b``, ``[len(a), len(b)]``."""
        left, right = (_unit(np.atleast_2d(np.asarray(x, dtype=np.float32))) for x in (a, b))
        return np.asarray(left @ right.T, dtype=np.float32)

    def save(self, folder: str | Path, *, notes: str | None = None, replace_existing: bool = False) -> Path:
        """Write the encoder, adapters merged, to a folder that loads here and in sentence-transformers.

        A few settings have no counterpart there. The folder then loads here only, holds no file of
        sentence-transformers, and a ``UserWarning`` and the model card say why.

        Args:
            folder: where; must not exist unless ``replace_existing``.
            notes: more to say in the model card, Markdown: how it was trained, what it is good for.
            replace_existing: put the new folder in the place of an old one.

        Returns:
            The folder. It appears whole or not at all.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        saved = checkpoints.write(
            Path(folder),
            backbone=self.backbone,
            tokenizer=self.tokenizer,
            texts=self.pipeline.tokenizer,
            settings=self.settings,
            source=self.checkpoint,
            notes=notes,
            replace_existing=replace_existing,
        )
        if saved.only_here:
            warnings.warn(
                f"{folder} loads in Unmask only, not in sentence-transformers: {saved.only_here}.", stacklevel=2
            )
        return saved.folder

    # --- to another process ------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return all that makes the encoder, less the pipeline, which belongs to this process."""
        return {**self.__dict__, "pipeline": self.pipeline.token_budget}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the encoder in the process it arrived in."""
        self.__init__(state["backbone"], state["tokenizer"], state["settings"], state["checkpoint"])  # type: ignore[misc]
        self.pipeline.token_budget = state["pipeline"]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _word_bounds(words: Sequence[str], number: int) -> list[tuple[int, int]]:
    """Return each word's ``(start, end)`` in the sentence made of ``words``."""
    bounds, start = [], 0
    for word in words:
        if not isinstance(word, str) or not word or word != word.strip():
            raise InputError(f"Sentence {number} holds {word!r}; expected words without white space at their ends.")
        bounds.append((start, start + len(word)))
        start += len(word) + 1
    return bounds
