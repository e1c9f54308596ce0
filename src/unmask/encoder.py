"""The encoder: texts → vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import checkpoint as checkpoints
from unmask.backbone.attention import Layout
from unmask.backbone.families import TEMPLATES, template_for
from unmask.backbone.loading import Backbone, load_backbone, resolve_device, resolve_dtype
from unmask.checkpoint import MAX_LENGTH, Checkpoint, Settings, reference_pooling
from unmask.errors import InputError
from unmask.packing import plan
from unmask.pooling import OUTPUTS, Output, Pooling, convert, finish, pool
from unmask.progress import Progress
from unmask.text import BARE, Template, Text, TextTokenizer, TokenizedText, check_text
from unmask.tokenizers import ModelTokenizer, load_tokenizer

Vectors = NDArray[np.generic]
Empty = Literal["error", "zero"]

#: Tokens of one forward pass. On a CPU, states of this many tokens still fit into its caches.
_BUDGETS: Final = {"cpu": 1024, "cuda": 16384, "mps": 4096}
#: Texts, and characters, that are sorted by length together; what a stream holds in memory.
_WINDOW_TEXTS: Final = 4096
_WINDOW_CHARACTERS: Final = 4_000_000
_DEFAULTS: Final = Settings(
    pooling="mean",
    max_length=MAX_LENGTH,
    pool_instruction=False,
    append_eos=False,
    bidirectional=True,
    normalize=False,
)


@dataclass(frozen=True)
class _Window:
    """Texts that are packed together: their tokens, None in place of an empty text."""

    tokens: list[TokenizedText | None]


class Encoder:
    """A language model that turns texts into vectors.

    Made by :meth:`load`. Safe to call from several threads, and can be pickled to a worker process.

    Attributes:
        backbone: the model underneath.
        settings: how texts become vectors; all fields are set.
        checkpoint: where it was loaded from.
        token_budget: most tokens of one forward pass.
    """

    def __init__(self, backbone: Backbone, tokenizer: ModelTokenizer, settings: Settings, source: Checkpoint) -> None:
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.checkpoint = source
        self.token_budget: int = _BUDGETS.get(self.device.type, _BUDGETS["cpu"])
        self._texts = TextTokenizer(
            tokenizer.backend,
            template=self.template,
            max_length=self.max_length,
            control_tokens=tokenizer.control,
            append=self._eos_text() if settings.append_eos else "",
            pool_instruction=bool(settings.pool_instruction),
        )
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        source: str | Path,
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
            source: a short name (``unmask pull --list``), a folder of any known layout, a GGUF file, or a
                hub name. An adapter's own base is found and loaded with it.
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
        return cls._assemble(found, asked, chosen_device, chosen_dtype, merge_adapters)

    @classmethod
    def _convert(cls, found: Checkpoint, progress: bool) -> Checkpoint:
        """Keep a converted copy of a checkpoint that is slow to load, and return the copy."""
        assert found.cache is not None
        with Progress("Converting the model, once", enabled=progress):
            slow = cls._assemble(replace(found, adapters=()), Settings(), torch.device("cpu"), torch.float32, True)
            slow.save(found.cache)
        converted = checkpoints.inspect(found.cache)
        return replace(converted, adapters=found.adapters, settings=found.settings.over(converted.settings))

    @classmethod
    def _assemble(
        cls, found: Checkpoint, asked: Settings, device: torch.device, dtype: torch.dtype, merge_last: bool
    ) -> Self:
        settings = asked.over(found.settings).over(_DEFAULTS)
        tokenizer = load_tokenizer(found.tokenizer)
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
        return self.backbone.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which the model computes."""
        return self.backbone.model.dtype

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
            output: ``float32``, ``float16``, ``int8`` or ``binary``; see :func:`unmask.pooling.convert`.
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
        options = {"normalize": normalize, "dimensions": dimensions, "output": output}
        with Progress("Encoding", total=len(given), unit="texts", extra_unit="tokens", enabled=progress) as bar:
            checked = list(self._check(given, instruction, 0, empty))
            parts = list(self._stream(iter(checked), bar, truncate=truncate, **options))
        vectors = np.concatenate(parts) if parts else self._finish(torch.zeros(0, self.dimension), **options)
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
        options = {"normalize": normalize, "dimensions": dimensions, "output": output}
        with Progress("Encoding", total=total, unit="texts", extra_unit="tokens", enabled=progress) as bar:
            yield from self._stream(self._check(texts, instruction, 0, empty), bar, truncate=truncate, **options)

    def similarity(self, a: Any, b: Any) -> NDArray[np.float32]:
        """Return the cosine of every vector of ``a`` with every one of ``b``, ``[len(a), len(b)]``."""
        left, right = (_unit(np.atleast_2d(np.asarray(x, dtype=np.float32))) for x in (a, b))
        return np.asarray(left @ right.T, dtype=np.float32)

    def save(self, folder: str | Path, *, replace_existing: bool = False) -> Path:
        """Write the encoder, adapters merged, to a folder that loads here and in sentence-transformers.

        Args:
            folder: where; must not exist unless ``replace_existing``.
            replace_existing: put the new folder in the place of an old one.

        Returns:
            The folder. It appears whole or not at all.
        """
        return checkpoints.write(self, Path(folder), replace_existing=replace_existing)

    # --- the pipeline ------------------------------------------------------------------------------

    def _check(
        self, texts: Iterable[str | Text], instruction: str | None, first: int, empty: Empty
    ) -> Iterator[Text | None]:
        """Yield each text, checked, with the instruction put on plain strings; None for a blank one."""
        if empty not in ("error", "zero"):
            raise InputError(f"empty is {empty!r}; expected 'error' or 'zero'.")
        for index, given in enumerate(texts, start=first):
            text = check_text(given, index)
            if instruction and not isinstance(given, Text):
                text = Text(instruction, text.content)
            if text.content.strip():
                yield text
            elif empty == "zero":
                yield None
            else:
                raise InputError(f'Text {index} is empty. Remove it, or pass empty="zero" for a zero vector.')

    def _stream(
        self,
        texts: Iterator[Text | None],
        bar: Progress,
        *,
        truncate: bool,
        normalize: bool | None,
        dimensions: int | None,
        output: Output,
    ) -> Iterator[Vectors]:
        """Encode window by window; the next window is tokenised while this one is computed."""
        if output not in OUTPUTS:
            raise InputError(f"output is {output!r}; expected one of {', '.join(OUTPUTS)}.")
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool_:
            waiting: Future[_Window] | None = None
            first = 0
            while True:
                window = _take_window(texts)
                upcoming = pool_.submit(self._tokenize, window, first, truncate) if window else None
                if waiting is not None:
                    vectors = self._compute(waiting.result(), bar)
                    yield self._finish(vectors, normalize=normalize, dimensions=dimensions, output=output)
                if upcoming is None:
                    return
                waiting, first = upcoming, first + len(window)

    def _tokenize(self, window: list[Text | None], first: int, truncate: bool) -> _Window:
        present = [(i, text) for i, text in enumerate(window) if text is not None]
        tokens: list[TokenizedText | None] = [None] * len(window)
        if not truncate or len(present) < len(window):
            # One at a time where an error must name the text's own index.
            for i, text in present:
                tokens[i] = self._texts.tokenize([text], first_index=first + i, truncate=truncate)[0]
            return _Window(tokens)
        return _Window(list(self._texts.tokenize([text for _, text in present], first_index=first)))

    @torch.inference_mode()
    def _compute(self, window: _Window, bar: Progress) -> torch.Tensor:
        """Return the pooled vectors of a window, ``[n, D]`` float32 on the CPU."""
        vectors = torch.zeros(len(window.tokens), self.dimension)
        present = [i for i, tokens in enumerate(window.tokens) if tokens is not None]
        lengths = [len(cast(TokenizedText, window.tokens[i]).ids) for i in present]
        for pack in plan(lengths, self.token_budget):
            indices = [present[i] for i in pack]
            vectors[indices] = self._forward([cast(TokenizedText, window.tokens[i]) for i in indices]).cpu()
            bar.advance(len(indices), extra=sum(lengths[i] for i in pack))
        bar.advance(len(window.tokens) - len(present))
        return vectors

    def _forward(self, pack: Sequence[TokenizedText]) -> torch.Tensor:
        """Run one pack and pool it, ``[n, D]`` float32."""
        lengths = tuple(len(text.ids) for text in pack)
        ids = torch.tensor(list(chain.from_iterable(text.ids for text in pack)), device=self.device)
        with self._turn:
            hidden_TD = self.backbone.hidden(ids, Layout(lengths, causal=not self.bidirectional))
        return pool(
            hidden_TD,
            lengths=torch.tensor(lengths, device=self.device),
            starts=torch.tensor([text.start for text in pack], device=self.device),
            mode=self.pooling,
        )

    def _finish(
        self, vectors: torch.Tensor, *, normalize: bool | None, dimensions: int | None, output: Output
    ) -> Vectors:
        wanted = bool(self.settings.normalize) if normalize is None else normalize
        return convert(finish(vectors, normalize=wanted, dimensions=dimensions).numpy(), output)

    # --- to another process ------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return all that makes the encoder, less what belongs to this process."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_turn", "_texts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the encoder in the process it arrived in."""
        self.__init__(state["backbone"], state["tokenizer"], state["settings"], state["checkpoint"])  # type: ignore[misc]
        self.token_budget = state["token_budget"]


def _take_window(texts: Iterator[Text | None]) -> list[Text | None]:
    """Take the next texts off the iterator: a window's worth, fewer at the end."""
    window: list[Text | None] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text.content) if text else 0
        if len(window) == _WINDOW_TEXTS or characters > _WINDOW_CHARACTERS:
            break
    return window


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
