"""What an engine serves, and with what; every value is checked where it is set."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What lies in memory for a model: models that differ in nothing else share it, and their texts share batches.

    Attributes:
        source: as :meth:`unmask.Encoder.load` takes it.
        adapters: as well.
        dtype: as well.
    """

    source: str
    adapters: tuple[str, ...] = ()
    dtype: str = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """One model under one name.

    Attributes:
        name: by which requests name it.
        source: a short name, folder, GGUF file or hub name.
        adapters: adapters to apply on top, in order.
        max_length: most tokens of a text; None: as the checkpoint says.
        dtype: number format; ``auto``: bfloat16 on CUDA, else float32.
        preload: load it when the engine starts, not when it is first asked for.
    """

    name: str
    source: str
    adapters: tuple[str, ...] = ()
    max_length: int | None = None
    dtype: str = "auto"
    preload: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError(f"A model's name is {self.name!r}; expected a name that requests can use.")
        if not self.source.strip():
            raise InputError(f"The source of model {self.name!r} is blank; expected a folder or a model's name.")
        if self.max_length is not None and self.max_length < 1:
            raise InputError(f"max_length of model {self.name!r} is {self.max_length}; expected at least 1.")

    @property
    def weights(self) -> Weights:
        """What of it lies in memory."""
        return Weights(source=self.source, adapters=self.adapters, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """An engine.

    Attributes:
        models: what it serves; the first is the one that :meth:`served` names first.
        devices: torch devices, a worker process each; every model runs on all of them.
        threads: processor threads of a worker; None: as torch chooses.
        memory: most bytes of parameters on a device; None: all models may be in memory at once.
        batch_tokens: most tokens of a batch; None: as suits the device.
        queue_tokens: most tokens that may wait, of each priority.
        batch_seconds: a worker that takes longer over a batch is hung, and is restarted.
        ahead_seconds: a full batch is kept ready in the worker's pipe where a batch takes less: there, the way back and
            forth would count. Where it takes longer the next batch is made when the worker is free, of the requests
            that came till then.
        retry_seconds: how long a model that could not be loaded is left alone.
    """

    models: tuple[ModelSettings, ...]
    devices: tuple[str, ...] = ("auto",)
    threads: int | None = None
    memory: int | None = None
    batch_tokens: int | None = None
    queue_tokens: int = 600_000
    batch_seconds: float = 120.0
    ahead_seconds: float = 0.25
    retry_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("No model is given; expected at least one to serve.")
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"Several models are named {', '.join(twice)}; expected a name of its own for each.")
        if not self.devices:
            raise InputError("No device is given; expected at least one, such as 'auto' or 'cpu'.")
        for name in ("threads", "memory", "batch_tokens", "queue_tokens", "batch_seconds", "ahead_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; expected more than 0.")
        if not self.retry_seconds >= 0:
            raise InputError(f"retry_seconds is {self.retry_seconds}; expected 0 or more.")
