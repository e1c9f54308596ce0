"""What is measured: one of our encoders, or any other model that gives vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

import numpy as np
import torch

from unmask.encoder import Encoder
from unmask.evaluation.outcome import Measured
from unmask.evaluation.tasks import Matrix
from unmask.form import Form
from unmask.hardware import hardware
from unmask.identity import identity
from unmask.progress import Progress
from unmask.text import Text

#: Libraries that figures may depend on.
LIBRARIES: Final = (
    "unmask", "torch", "transformers", "sentence-transformers", "numpy", "scikit-learn", "scipy", "ir-measures",
    "seqeval",
)  # fmt: skip


class Subject(Protocol):
    """A model that is measured. Any object with these will do; see :class:`OwnEncoder`."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def source(self) -> str:
        """What it was loaded from."""

    @property
    def identity(self) -> str:
        """Changes when its vectors may; kept vectors are found by it."""

    @property
    def dimension(self) -> int:
        """Components of a vector."""

    @property
    def max_length(self) -> int:
        """Most tokens of a text."""

    @property
    def parameters(self) -> int:
        """How many it has."""

    @property
    def encoder(self) -> Encoder | None:
        """The encoder, if it is one of Unmask's."""

    def encode(self, texts: Sequence[Text], bar: Progress) -> Matrix:
        """Return the vectors of ``texts``, none of them blank, ``[n, D]``.

        A model that can tell how many tokens they had advances ``bar`` by texts and tokens; no other need touch it.
        """


@dataclass(frozen=True, kw_only=True)
class OwnEncoder:
    """An encoder of Unmask as a subject; made by :meth:`of`.

    Attributes:
        encoder: as it was loaded, for tasks that ask for more than vectors of texts; these never cut a text.
        cut: the same with the most tokens of a text that were asked for.
    """

    name: str
    source: str
    identity: str
    dimension: int
    max_length: int
    parameters: int
    encoder: Encoder
    cut: Encoder

    @classmethod
    def of(cls, encoder: Encoder, *, name: str, source: str, max_length: int | None = None) -> OwnEncoder:
        """Return an encoder as a subject.

        Args:
            encoder: the encoder.
            name: how tables call it.
            source: what it was loaded from.
            max_length: most tokens of a text; None: as the encoder says.

        Raises:
            InputError: ``max_length`` leaves no room for a text.
        """
        settings = replace(encoder.settings, max_length=max_length or encoder.max_length)
        cut = Encoder(encoder.backbone, encoder.tokenizer, settings, encoder.checkpoint)
        return cls(
            name=name,
            source=source,
            identity=hashlib.sha256(identity(cut).encode()).hexdigest()[:32],
            dimension=encoder.dimension,
            max_length=cut.max_length,
            parameters=sum(parameter.numel() for parameter in encoder.backbone.model.parameters()),
            encoder=encoder,
            cut=cut,
        )

    def encode(self, texts: Sequence[Text], bar: Progress) -> Matrix:
        """Return the vectors of ``texts``, ``[n, D]``; normalised if the checkpoint says so."""
        form = Form(normalize=bool(self.cut.settings.normalize))
        windows = self.cut.pipeline.vectors(iter(texts), bar, truncate=True)
        return np.concatenate([np.asarray(form.apply(window.numpy()), dtype=np.float32) for window in windows])


def describe(subject: Subject, *, tokens_per_second: float | None) -> Measured:
    """Return what was measured, on this machine, now.

    Args:
        subject: the model.
        tokens_per_second: how fast it encoded, None if that is not known.
    """
    return Measured(
        name=subject.name,
        source=subject.source,
        identity=subject.identity,
        dimension=subject.dimension,
        max_length=subject.max_length,
        parameters=subject.parameters,
        tokens_per_second=tokens_per_second,
        hardware=hardware(subject.encoder.device if subject.encoder else torch.device("cpu")),
        versions={name: found for name in LIBRARIES if (found := _version(name))},
        date=now(),
    )


def now() -> str:
    """Return the date and time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
