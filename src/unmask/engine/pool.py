"""Several devices, one encoder: a worker process each, started once and kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import checkpoint as checkpoints
from unmask.backbone.loading import resolve_dtype
from unmask.engine.background import Background
from unmask.engine.feeding import Failure, Feeding
from unmask.engine.patient import PatientEngine
from unmask.engine.places import ALL, device_names
from unmask.engine.process import WORKER
from unmask.engine.settings import EngineSettings, ModelSettings
from unmask.errors import EncodingFailedError, InputError, StoppingError
from unmask.form import Form, Output
from unmask.hub.catalogue import DEFAULT
from unmask.pipeline import Empty, check
from unmask.progress import Progress
from unmask.text import Text

Vectors = NDArray[np.generic]

#: A batch that takes longer has hung: models that are large for their device are slow, and nobody waits for an answer.
BATCH_SECONDS: Final = 1800.0
#: Texts that an error names.
_NAMED: Final = 10


class EncoderPool:
    """An encoder on several devices; made by :meth:`load`, ended by :meth:`close` or a ``with`` block.

    The workers are started once and stay for all calls; calls may come from several threads. A worker that dies is
    restarted, and what it had goes to the others or to itself. A text on which workers fail, alone and again, is given
    up: it costs no other.

        with EncoderPool.load("smollm2-135m-unsup", devices="all") as pool:
            vectors = pool.encode(texts)

    Args:
        settings: of the engine underneath: one model, preloaded, and the devices.
        normalize: whether vectors have length 1 where a call does not say.
        worker: the command that is a worker.

    Attributes:
        settings: as given.
        dimension: components of a vector.
    """

    def __init__(self, settings: EngineSettings, *, normalize: bool = False, worker: Sequence[str] = WORKER) -> None:
        self.settings = settings
        self._normalize = normalize
        self._background = Background("encoder pool")
        self._engine = PatientEngine(settings, worker=worker)
        # Also called when the pool is forgotten, and when the program ends.
        self._end = weakref.finalize(self, _end, self._background, self._engine)
        try:
            self._background.run(self._engine.start())
            self.tokenizer, self.dimension = self._background.run(self._engine.ready())
            self._feeding = Feeding(self._engine, self._background)
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(
        cls,
        source: str | Path = DEFAULT,
        *,
        devices: str | Sequence[str] = ALL,
        adapters: Sequence[str | Path] = (),
        max_length: int | None = None,
        dtype: str = "auto",
        threads: int | None = None,
        progress: bool = False,
    ) -> Self:
        """Load an encoder on several devices; returns when all are ready.

        Pooling, template and what else makes a vector are as the checkpoint says.

        Args:
            source: as :meth:`unmask.Encoder.load` takes it.
            devices: torch devices, a worker process each: names in a list, or in one string with commas; ``all`` for
                all CUDA devices.
            adapters: adapters to apply on top, in order.
            max_length: most tokens of a text, template included. None: as the checkpoint says, else 512.
            dtype: as :meth:`unmask.Encoder.load` takes it.
            threads: processor threads of a worker. None: workers on the processor share this process's number.
            progress: show downloads.

        Raises:
            InputError: a device is not there, or an option is out of range.
            CheckpointError: the checkpoint is missing, damaged or unknown.
            ModelUnavailableError: a device cannot have the model.
        """
        names = device_names(devices)
        for name in names:
            resolve_dtype(dtype, torch.device(name))
        normalize = checkpoints.inspect(source, adapters=adapters, progress=progress).settings.normalize
        on_processor = names.count("cpu")
        if threads is None and on_processor > 1:
            threads = max(1, torch.get_num_threads() // on_processor)
        model = ModelSettings(
            name="pool",
            source=_lasting(source),
            adapters=tuple(map(_lasting, adapters)),
            max_length=max_length,
            dtype=dtype,
            preload=True,
        )
        settings = EngineSettings(
            models=(model,), devices=names, threads=threads, batch_seconds=BATCH_SECONDS, ahead_seconds=BATCH_SECONDS
        )
        return cls(settings, normalize=bool(normalize))

    # --- texts → vectors ---------------------------------------------------------------------------

    def encode(
        self,
        texts: str | Text | Sequence[str | Text],
        *,
        instruction: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        output: Output = "float32",
        truncate: bool = True,
        empty: Empty = "error",
        progress: bool = False,
        failed: Callable[[Failure], None] | None = None,
    ) -> Any:
        """Encode texts; takes the arguments of :meth:`unmask.Encoder.encode` and gives the same vectors.

        Args:
            texts: one text, or several.
            instruction: put before each plain string.
            normalize: scale vectors to length 1. None: as the checkpoint says, else False.
            dimensions: keep only the first so many components, and normalise.
            output: ``float32``, ``float16``, ``int8`` or ``binary``.
            truncate: cut texts that are too long instead of raising.
            empty: what a blank text is: an ``error``, or a ``zero`` vector.
            progress: show a progress bar.
            failed: told of each text that was given up, whose vector is zero. None: they are an error.

        Returns:
            ``[n, D]``, or ``[D]`` for a single text; in the order of ``texts``.

        Raises:
            InputError: as :meth:`unmask.Encoder.encode`.
            EncodingFailedError: workers failed on some texts, alone and again. All others were encoded: the error
                has ``vectors``.
            ModelUnavailableError: no device can compute any more.
            StoppingError: the pool is closed.
        """
        single = isinstance(texts, str | Text)
        given: Sequence[str | Text] = [texts] if isinstance(texts, str | Text) else texts
        if not isinstance(given, Sequence):
            raise InputError(
                f"texts is of type {type(given).__name__}; expected a string, a Text or a list of them. "
                "For an iterator of any length use encode_stream."
            )
        failures: list[Failure] = []
        parts = self.encode_stream(
            given,
            instruction=instruction,
            normalize=normalize,
            dimensions=dimensions,
            output=output,
            truncate=truncate,
            empty=empty,
            progress=progress,
            total=len(given),
            failed=failed or failures.append,
        )
        none = self._form(normalize, dimensions, output).apply(np.zeros((0, self.dimension), dtype=np.float32))
        vectors = np.concatenate([none, *parts])
        if failures:
            raise _failed(failures, vectors)
        return vectors[0] if single else vectors

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
        failed: Callable[[Failure], None] | None = None,
    ) -> Iterator[Vectors]:
        """Encode texts of an iterator of any length, in bounded memory.

        Takes the arguments of :meth:`encode`, and ``total`` for the progress bar if it is known. The iterator is read
        in the caller's thread, up to a window for each device and one more ahead. ``failed`` hears of a text before its
        vector is yielded; without it, the error comes after the last vector.

        Yields:
            Arrays ``[k, D]`` of up to 4,096 vectors, in the order of the texts.
        """
        if not self._end.alive:
            raise StoppingError("The pool is closed; expected an open one. Load it again.")
        form = self._form(normalize, dimensions, output)
        checked = check(texts, instruction, empty)
        failures: list[Failure] = []
        told = failed or failures.append
        with Progress("Encoding", total=total, unit="texts", extra_unit="tokens", enabled=progress) as bar:
            for vectors, lost in self._feeding.windows(checked, bar, truncate=truncate):
                for failure in lost:
                    told(failure)
                yield form.apply(vectors)
        if failures:
            raise _failed(failures)

    def _form(self, normalize: bool | None, dimensions: int | None, output: Output) -> Form:
        wanted = self._normalize if normalize is None else normalize
        form = Form(normalize=wanted, dimensions=dimensions, output=output)
        form.check(self.dimension)
        return form

    # --- life --------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the workers; who still waits for vectors gets a :class:`~unmask.errors.StoppingError`."""
        self._end()

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _end(background: Background, engine: PatientEngine) -> None:
    try:
        background.run(engine.stop(0))
    finally:
        background.close()


def _failed(failures: Sequence[Failure], vectors: Vectors | None = None) -> EncodingFailedError:
    names = ", ".join(str(failure.index) for failure in failures[:_NAMED])
    names += f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
    error = EncodingFailedError(
        f"Text{'s' if len(failures) > 1 else ''} {names} could not be encoded, alone and again: {failures[0].why}. "
        "All others were. Remove, or change, what failed."
    )
    error.vectors = vectors
    return error


def _lasting(path: str | Path) -> str:
    """Return a path in full: a worker that is restarted may do so in another working directory."""
    found = Path(path).expanduser()
    return str(found.absolute()) if found.exists() else str(path)
