"""A repository of the model hub, fetched into the hub's own cache: only what an encoder needs."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm as hub_tqdm

from unmask.errors import DownloadError, InputError, UnmaskError
from unmask.hub.catalogue import CATALOGUE
from unmask.progress import Progress

_DESCRIPTIONS: Final = (
    "config.json",
    "unmask.json",
    "llm2vec_config.json",
    "adapter_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/*",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_SAFETENSORS: Final = ("*.safetensors", "*.safetensors.index.json")
#: The older weights, fetched only where there are no others.
_PICKLES: Final = ("pytorch_model*.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
#: Code never; the weights a second time in Mistral's own form, or those of another runtime in a sub-folder, neither.
_NEVER: Final = ("*.py", "consolidated*", "*/*.safetensors", "*/*.safetensors.index.json")

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

_LOGIN: Final = "run `hf auth login` on this machine"
_OTHERWISE: Final = "Or give the path of a folder that holds the model."
#: What each error of the hub's client means to the user; the first that fits is said.
_MEANINGS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (GatedRepoError, "is gated and your account may not read it yet. Accept its licence on {page}, then " + _LOGIN),
    (DisabledRepoError, "was disabled by its owner or by the hub. See {page}"),
    (
        RepositoryNotFoundError,
        "is no repository you may read, and no folder here. Is the name right? If it is private, " + _LOGIN,
    ),
    (RevisionNotFoundError, "has no revision {revision}; expected a branch, tag or commit that {page} lists"),
    (
        OfflineModeIsEnabled,
        "is not all in the cache, and HF_HUB_OFFLINE forbids to fetch it. Unset that, or bring the cache over",
    ),
)
_STATUSES: Final = MappingProxyType({
    401: "cannot be had with the access token of this machine: the hub refuses it. Renew it: " + _LOGIN,
    403: "cannot be read with the access token of this machine: it lacks the right to. Renew it: " + _LOGIN,
    429: "cannot be had now: the hub has had too many requests from here. Wait some minutes, or " + _LOGIN,
})  # fmt: skip
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def fetch_repository(name: str, *, revision: str | None = None, progress: bool = False) -> Path:
    """Return the folder, in the hub's cache, with the files of a repository that an encoder needs.

    What is cached is not fetched again, and serves alone where the hub cannot be reached.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; the main branch by default.
        progress: whether to show the download.

    Raises:
        InputError: ``name`` is not of that form.
        DownloadError: there is no such repository or revision, it is gated, the hub cannot be reached and
            the cache does not hold it, or the disk is full.
    """
    if _NAME.fullmatch(name) is None:
        raise InputError(_not_a_name(name))
    folder = _fetch(name, revision, _DESCRIPTIONS + _SAFETENSORS, progress=progress)
    if not any((folder / config).is_file() for config in ("config.json", "adapter_config.json")):
        raise DownloadError(
            f"{name} holds neither config.json nor adapter_config.json; expected a language model, an adapter or "
            "an encoder in the form of transformers. Is it a repository of another form of the model?"
        )
    if not any(folder.glob("*.safetensors")):
        folder = _fetch(name, revision, _DESCRIPTIONS + _PICKLES, progress=progress)
    return folder


def _fetch(name: str, revision: str | None, patterns: tuple[str, ...], *, progress: bool) -> Path:
    with Progress(f"Downloading {name}", unit="bytes", enabled=progress) as bar:
        try:
            folder = snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(_NEVER),
                tqdm_class=_reporting_to(bar),
            )  # fmt: skip
        # The client's errors have no base in common, and its transport's come from another library.
        except Exception as error:
            raise _explain(error, name, revision) from error
    return Path(folder)


def _reporting_to(progress: Progress) -> type[Any]:
    """Return a bar class for the hub's client that draws nothing and tells ``progress`` of its bytes."""

    class Bar(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # The client counts bytes twice, as they come in and as they are written: the second is the file.
            self.is_wanted = kwargs.get("unit") == "B" and not str(kwargs.get("name")).endswith(".transfer")
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self.is_wanted:
                self.refresh()
                progress.advance(int(n or 0))

        def refresh(self, *args: Any, **kwargs: Any) -> None:
            if self.is_wanted:
                progress.total = self.total

    return Bar


def _explain(error: Exception, name: str, revision: str | None) -> UnmaskError:
    """Return the error to raise for one of the hub's client."""
    if isinstance(error, HFValidationError):
        return InputError(_not_a_name(name))
    # "Not in the cache" is said with the reason it could not be fetched as its cause.
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            page = f"{constants.ENDPOINT}/{name}"
            return DownloadError(f"{name} {meaning.format(page=page, revision=revision or 'main')}. {_OTHERWISE}")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        default = f"cannot be had now: the hub answered {status}. Try again later"
        return DownloadError(f"{name} {_STATUSES.get(status, default)}. {_OTHERWISE}")
    if isinstance(error, OSError) and error.errno in _FULL:
        return DownloadError(
            f"{name} does not fit: the disk of the hub's cache, {constants.HF_HUB_CACHE}, is full. Make room, or name "
            "another folder in HF_HOME; what came is kept."
        )
    first = str(error).partition("\n")[0]
    return DownloadError(
        f"{name} is not all in the cache and could not be fetched ({type(error).__name__}: {first}). Try again with a "
        f"network that reaches the hub: what came is kept. {_OTHERWISE}"
    )


def _not_a_name(name: str) -> str:
    short = ", ".join(entry.name for entry in CATALOGUE)
    return (
        f"{name!r} names no model, and no folder or file here. Expected a folder, a GGUF file, the name of a "
        f"repository on the hub (owner/name), or one of these short names: {short}."
    )
