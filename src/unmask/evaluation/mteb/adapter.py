"""An encoder under mteb's encoder protocol (``mteb.models.EncoderProtocol``, mteb 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.encoder import Encoder
from unmask.errors import InputError
from unmask.evaluation.mteb.instructions import Instructions
from unmask.evaluation.mteb.meta import known, measured
from unmask.text import Text

Matrix = NDArray[np.float32]

#: Most bytes of vectors that are kept while a task lasts; mteb itself holds a corpus in pieces, too.
REMEMBERED_BYTES: Final = 2**28


class Vectors(Protocol):
    """What gives vectors of texts, such as :class:`unmask.evaluation.store.VectorStore`."""

    def vectors(self, texts: Iterable[Text]) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]``; those of blank texts are zero."""


class MtebEncoder:
    """What mteb's tasks ask: texts in batches → vectors, and how alike vectors are.

    It is no subclass of mteb's ``AbsEncoder``, so that mteb need not be imported to define it.

    Args:
        encoder: the model.
        meta: mteb's ``ModelMeta``.
        facts: the fields of it that were measured on ``encoder``.
        instructions: what each task's texts get.
        encoded: told how many texts were encoded, as they are; not if there is a store.
        store: keeps vectors; without one those of a task are remembered while it lasts.
    """

    def __init__(
        self,
        encoder: Encoder,
        meta: Any,
        *,
        facts: Mapping[str, Any],
        instructions: Instructions,
        encoded: Callable[[int], None] | None = None,
        store: Vectors | None = None,
    ) -> None:
        self.encoder = encoder
        self.instructions = instructions
        self._meta = meta
        self._facts = dict(facts)
        self._remembered = _Remembered(encoder, encoded)
        self._store: Vectors = store or self._remembered
        self._task = ""

    @property
    def mteb_model_meta(self) -> Any:
        """Return what mteb's leaderboard is told about the model."""
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, registered: Any) -> None:
        """Take the registered metadata, which mteb puts here once it has loaded us, but keep what was measured."""
        self._meta = type(registered)(**{**dict(registered), **self._facts})

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Matrix:
        """Return the vectors of a task's texts, ``[n, D]`` float32; blank texts are zero.

        A document's text is its title and its body, joined by mteb. A text that has been encoded with the same
        instruction is not encoded again.

        Args:
            inputs: mteb's batches; ``text`` holds the texts.
            task_metadata: says which instruction they get.
            hf_split: not needed.
            hf_subset: not needed.
            prompt_type: whether they are queries or documents; None if both sides are alike.
            kwargs: mteb's ``encode_kwargs``. Batches are of our own size, and the progress is shown by the caller.

        Raises:
            InputError: a ``precision`` other than float32 is asked for, or a text cannot be encoded.
        """
        precision = kwargs.get("precision") or "float32"
        if precision != "float32":
            raise InputError(f"mteb asks for precision {precision!r}; expected float32, which is what figures are of.")
        if task_metadata.name != self._task:
            self._task = task_metadata.name
            self._remembered.forget()
        instruction = self.instructions.of(task_metadata, prompt_type)
        return self._store.vectors(Text(instruction, text) for batch in inputs for text in batch["text"])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of every vector of the first with every one of the second, a tensor ``[n, m]``."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each vector of the first with its counterpart in the second, a tensor ``[n]``."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def adapt(
    encoder: Encoder,
    *,
    name: str,
    instructions: Instructions | None = None,
    encoded: Callable[[int], None] | None = None,
    store: Vectors | None = None,
) -> MtebEncoder:
    """Return ``encoder`` as ``mteb.evaluate`` takes it.

    Args:
        encoder: the model.
        name: what the leaderboard calls it, ``organisation/name``; a name alone gets the organisation ``unmask``.
        instructions: what each task's texts get; mteb's own if None.
        encoded: told how many texts were encoded, as they are; not if there is a store.
        store: keeps vectors from task to task and from run to run; None: those of a task, while it lasts.
    """
    from mteb.models.model_meta import ModelMeta

    used = instructions or Instructions()
    facts = measured(encoder, used)
    meta = ModelMeta(loader=None, **known(name), **facts)
    return MtebEncoder(encoder, meta, facts=facts, instructions=used, encoded=encoded, store=store)


class _Remembered:
    """Vectors of texts, each distinct one encoded once; the latest are kept from call to call."""

    def __init__(self, encoder: Encoder, encoded: Callable[[int], None] | None) -> None:
        self._encoder = encoder
        self._encoded = encoded
        self._kept: dict[Text, Matrix] = {}
        self._room = REMEMBERED_BYTES // (4 * encoder.dimension)

    def forget(self) -> None:
        """Let go of every vector."""
        self._kept.clear()

    def vectors(self, texts: Iterable[Text]) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]``."""
        places: dict[Text, int] = {}
        rows = [places.setdefault(text, len(places)) for text in texts]
        vectors = np.empty((len(places), self._encoder.dimension), dtype=np.float32)
        new = [text for text in places if text not in self._kept]
        for text, place in places.items():
            if text in self._kept:
                vectors[place] = self._kept[text]
        done = 0
        for window in self._encoder.encode_stream(new, empty="zero"):
            vectors[[places[text] for text in new[done : done + len(window)]]] = window
            done += len(window)
            if self._encoded:
                self._encoded(len(window))
        self._keep(new, vectors, places)
        return vectors if len(places) == len(rows) else vectors[rows]

    def _keep(self, new: list[Text], vectors: Matrix, places: Mapping[Text, int]) -> None:
        for text in new[-self._room :]:
            # A copy: a view would keep the whole matrix alive.
            self._kept[text] = vectors[places[text]].copy()
        for text in list(self._kept)[: max(0, len(self._kept) - self._room)]:
            del self._kept[text]
