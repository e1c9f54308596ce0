"""What a server is told: by flags, then the environment (``UNMASK_…``), then one TOML file, then these defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from unmask.engine.settings import EngineSettings
from unmask.errors import InputError
from unmask.gateway.api.instructions import Instructions, of_mteb, read_instructions
from unmask.gateway.api.keys import Keys, check_keys, read_keys, require_loopback
from unmask.gateway.api.limits import BodyLimits
from unmask.gateway.api.model_settings import ModelSettings, RerankerSettings
from unmask.hub.cache import home
from unmask.hub.catalogue import DEFAULT

__all__ = ["ModelSettings", "RerankerSettings", "Settings", "load_settings"]

_S = TypeVar("_S", bound="Settings")
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """All of a server's settings.

    Attributes:
        host: to listen on; more than this machine only with keys.
        port: to listen on, 0 for any that is free.
        data: folder of files and batches; None for one in Unmask's home.
        models: encoders to serve, by the names that requests use.
        rerankers: cross-encoders to serve, likewise.
        mteb_instructions: an input may begin with what mteb's tasks put before texts, too, where mteb is installed.
        api_keys: that may call; in the environment, separated by commas.
        api_keys_file: a file of more, one a line.
        requests_per_minute: of each key, None for any number.
        tokens_per_minute: of each key, None for any number.
        body_bytes: most of a body, files apart.
        file_bytes: most of a file.
        stored_bytes: of a caller's files together; None for any number.
        body_seconds: in which a body must begin to arrive.
        header_seconds: in which a request's head must arrive once its connection is open.
        idle_seconds: after which a connection without a request is closed.
        idle_connections: open connections that have sent no request; of more, the oldest are closed.
        request_seconds: that an answer may take.
        wait_seconds: longest ``Prefer: wait=N``.
        shutdown_seconds: in which what was taken is finished when the server stops.
        devices: torch devices, a worker process each, and another one for rerankers.
        threads: processor threads of a worker; None: as torch chooses.
        memory_bytes: of the encoders on a device, and as much again of the rerankers; None for any number.
        batch_tokens: most tokens of a batch; None: as suits the device.
        queue_tokens: that may wait, of each priority; beyond, requests are refused with 429.
        batch_seconds: after which a worker over a batch counts as hung.
        log_level: of the log on standard error.
        log_requests: write a line a request.
        otel_endpoint: of an OpenTelemetry collector, OTLP over HTTP; None for no traces.
    """

    model_config = SettingsConfigDict(env_prefix="UNMASK_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    data: Path | None = None
    models: dict[str, ModelSettings] = Field(default_factory=lambda: {DEFAULT: ModelSettings()}, min_length=1)
    rerankers: dict[str, RerankerSettings] = Field(default_factory=dict)
    mteb_instructions: bool = True
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    api_keys_file: Path | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    body_bytes: Annotated[int, Field(ge=1)] = 32_000_000
    file_bytes: Annotated[int, Field(ge=1, le=200_000_000)] = 200_000_000
    stored_bytes: Annotated[int, Field(ge=1)] | None = None
    body_seconds: _Seconds = 20
    header_seconds: _Seconds = 10
    idle_seconds: _Seconds = 75
    idle_connections: Annotated[int, Field(ge=1)] = 1000
    request_seconds: _Seconds = 600
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 120
    shutdown_seconds: _Seconds = 30
    devices: tuple[str, ...] = ("auto",)
    threads: Annotated[int, Field(ge=1)] | None = None
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    queue_tokens: Annotated[int, Field(ge=1)] = 600_000
    batch_seconds: _Seconds = 120
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_requests: bool = True
    otel_endpoint: str | None = None

    @property
    def folder(self) -> Path:
        """Where files and batches are."""
        return self.data or home() / "serve"

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    @field_validator("rerankers")
    @classmethod
    def _tell_apart(cls, value: Any, info: ValidationInfo) -> Any:
        both = sorted(set(value) & set(info.data.get("models", ())))
        if both:
            raise ValueError(f"{', '.join(both)} names an encoder, too; give each a name of its own")
        return value

    def keys(self) -> Keys:
        """Return the keys that may call.

        Raises:
            InputError: a key cannot be sent in a header, or the file cannot be read.
        """
        found = [key.get_secret_value() for key in self.api_keys]
        found += read_keys(self.api_keys_file) if self.api_keys_file else []
        check_keys(found)
        if self.api_keys_file and not found:
            raise InputError(f"The file of API keys {self.api_keys_file} holds none; expected one a line.")
        return Keys(found)

    def check(self) -> None:
        """Refuse to serve everybody on the network, or without a package that is needed.

        Raises:
            InputError: there is no key, and ``host`` is more than this machine; a package is missing; or as
                :meth:`keys`.
        """
        if not self.keys():
            require_loopback(self.host)
        self.check_packages()

    def check_packages(self) -> None:
        """Refuse to serve without a package that is needed.

        Raises:
            InputError: it is missing.
        """
        if self.rerankers and find_spec("sentence_transformers") is None:
            raise InputError(
                "Rerankers need sentence-transformers, which is not installed. "
                'Install it with: pip install "unmask[rerank]"'
            )

    def instructions(self) -> dict[str, Instructions]:
        """Return the instructions of every model.

        Raises:
            InputError: a file of them, or mteb's, cannot be read.
        """
        every = of_mteb() if self.mteb_instructions else []
        return {
            name: Instructions(
                model.query_instruction,
                [
                    *model.instructions,
                    *(read_instructions(model.instructions_file) if model.instructions_file else ()),
                    *every,
                ],
            )
            for name, model in self.models.items()
        }

    def preloaded(self) -> frozenset[str]:
        """Return the names of the models that must be loaded before the server is ready."""
        served: dict[str, RerankerSettings] = {**self.models, **self.rerankers}
        return frozenset(name for name, model in served.items() if model.preload)

    def engine(self) -> EngineSettings:
        """Return what the engine of the encoders is told."""
        return self._engine(self.models)

    def reranker_engine(self) -> EngineSettings | None:
        """Return what the engine of the rerankers is told, None if there are none."""
        return self._engine(self.rerankers) if self.rerankers else None

    def _engine(self, models: Mapping[str, RerankerSettings]) -> EngineSettings:
        return EngineSettings(
            models=tuple(model.engine(name) for name, model in models.items()),
            devices=self.devices,
            threads=self.threads,
            memory=self.memory_bytes,
            batch_tokens=self.batch_tokens,
            queue_tokens=self.queue_tokens,
            batch_seconds=self.batch_seconds,
        )

    def body_limits(self, *, upload: bool) -> BodyLimits:
        """Return what a body may be."""
        # A form is a little larger than the file in it.
        size = self.file_bytes + 100_000 if upload else self.body_bytes
        return BodyLimits(size=size, seconds=self.body_seconds)

    def shown(self) -> dict[str, Any]:
        """Return the settings as plain data, keys masked."""
        return self.model_dump(mode="json")


def load_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Return a server's settings; see :func:`load`."""
    return load(Settings, config, flags)


def load(kind: type[_S], config: Path | None = None, flags: Mapping[str, Any] | None = None) -> _S:
    """Return settings from flags, the environment and a TOML file, in this order of precedence.

    Args:
        kind: of which settings.
        config: the file, None for none.
        flags: by the settings' names; None stands for "does not say".

    Raises:
        InputError: a setting is unknown or out of range, or the file cannot be read; never shows a value.
    """
    if config is not None and not config.is_file():
        raise InputError(f"There is no file of settings {config}. Check its path.")

    class _Loaded(kind):  # type: ignore[valid-type,misc]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config)

    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return _Loaded(**given)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{config} is not TOML: {error}. Correct it.") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(
            f"Setting {name!r} cannot be used: {first['msg']}. Correct its flag, UNMASK_{name.upper()} or the file."
        ) from error
