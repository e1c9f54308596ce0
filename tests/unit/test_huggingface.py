"""Repositories of the hub: what is asked for, and what each failure is called. No sockets: the client is replaced."""

from __future__ import annotations

import errno
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, errors

from unmask.errors import DownloadError, InputError
from unmask.hub import huggingface
from unmask.hub.huggingface import fetch_repository

NAME = "owner/model"
Client = Callable[..., str]


def answered(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    """Return the error the client raises for an answer of the hub."""
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind(f"{status} Client Error.\n\nThe second paragraph.", response=response)


def not_cached(
    cause: Exception | None, kind: type[errors.LocalEntryNotFoundError] = errors.LocalEntryNotFoundError
) -> Exception:
    """Return the error the client raises when the cache does not help either."""
    incomplete = kind is errors.IncompleteSnapshotError
    error = errors.IncompleteSnapshotError("no", "folder") if incomplete else kind("Got: no\nmore")
    error.__cause__ = cause
    return error


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the client raise ``error``."""

    def client(*_args: object, **_options: object) -> str:
        raise error

    monkeypatch.setattr(huggingface, "snapshot_download", client)


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path, files: list[str]) -> list[dict[str, Any]]:
    """Make the client "fetch" those of ``files`` it is asked for into ``folder``; return its calls."""
    calls: list[dict[str, Any]] = []

    def client(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        for file in files:
            wanted = any(fnmatch(file, pattern) for pattern in options["allow_patterns"])
            if wanted and not any(fnmatch(file, pattern) for pattern in options["ignore_patterns"]):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(huggingface, "snapshot_download", client)
    return calls


def fetched(folder: Path) -> set[str]:
    """Return the files below ``folder``."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_an_encoder_needs_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needed = {
        "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "adapter_config.json", "adapter_model.safetensors", "llm2vec_config.json",
        "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json", "unmask.json",
    }  # fmt: skip
    refused = {
        "modeling_llama_encoder.py", "1_Pooling/code.py", "pytorch_model.bin", "consolidated.safetensors",
        "original/model.safetensors", "original/consolidated.00.pth", "onnx/model.onnx", "model.Q4.gguf", "README.md",
        "training_args.bin", "optimizer.pt",
    }  # fmt: skip
    calls = serve(monkeypatch, tmp_path, sorted(needed | refused))
    assert fetch_repository(NAME, revision="v1") == tmp_path
    assert fetched(tmp_path) == needed
    assert [(call["name"], call["revision"]) for call in calls] == [(NAME, "v1")]


def test_older_weights_are_fetched_where_there_are_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = serve(monkeypatch, tmp_path, ["config.json", "pytorch_model.bin", "training_args.bin", "modeling.py"])
    fetch_repository(NAME)
    assert fetched(tmp_path) == {"config.json", "pytorch_model.bin"}
    assert [call["revision"] for call in calls] == [None, None]


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json"])
def test_a_model_or_an_adapter_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str) -> None:
    serve(monkeypatch, tmp_path, [file, "weights.safetensors"])
    assert (fetch_repository(NAME) / file).is_file()


def test_a_repository_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(monkeypatch, tmp_path, ["model.Q4.gguf"])
    with pytest.raises(DownloadError, match=f"{NAME} holds neither config.json nor adapter_config.json; expected"):
        fetch_repository(NAME)


@pytest.mark.parametrize("name", ["model", "a/b/c", "/model", "owner/", "", "owner/mo del", "./model", "../x"])
def test_what_is_no_name_is_refused_unasked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fail(monkeypatch, AssertionError("the hub was asked"))
    with pytest.raises(InputError, match=r"owner/name.*smollm2-135m-sup, llm2vec-") as caught:
        fetch_repository(name)
    assert repr(name) in str(caught.value)


def test_what_the_client_takes_for_no_name_is_refused_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, errors.HFValidationError("Cannot have -- in it"))
    with pytest.raises(InputError, match=r"'owner--x/y' names no model.*owner/name"):
        fetch_repository("owner--x/y")


REFUSALS = [
    (answered(errors.RepositoryNotFoundError, 404), ["Is the name right?", "private", "hf auth login"]),
    (answered(errors.RepositoryNotFoundError, 401), ["Is the name right?", "private", "hf auth login"]),
    (
        answered(errors.GatedRepoError, 403),
        ["gated", f"Accept its licence on https://hub.test/{NAME}", "hf auth login"],
    ),
    (answered(errors.DisabledRepoError, 403), ["disabled"]),
    (answered(errors.RevisionNotFoundError, 404), ["no revision v9", "branch, tag or commit"]),
    (answered(errors.HfHubHTTPError, 401), ["refuses", "hf auth login"]),
    (answered(errors.HfHubHTTPError, 403), ["lacks the right", "hf auth login"]),
    (answered(errors.HfHubHTTPError, 429), ["too many requests", "Wait"]),
    (not_cached(answered(errors.HfHubHTTPError, 503)), ["answered 503", "Try again later"]),
    (errors.OfflineModeIsEnabled("no"), ["HF_HUB_OFFLINE", "Unset that"]),
    (not_cached(errors.OfflineModeIsEnabled("no")), ["HF_HUB_OFFLINE", "Unset that"]),
    (not_cached(errors.OfflineModeIsEnabled("no"), errors.IncompleteSnapshotError), ["HF_HUB_OFFLINE"]),
    (not_cached(ConnectionError("refused")), ["could not be fetched (ConnectionError: refused)", "with a network"]),
    (not_cached(None), ["could not be fetched (LocalEntryNotFoundError: Got: no)", "with a network"]),
    (TimeoutError("slow"), ["could not be fetched (TimeoutError: slow)", "with a network"]),
    (RuntimeError("broken pipe\nand more"), ["could not be fetched (RuntimeError: broken pipe)"]),
    (OSError(errno.ENOSPC, "No space left on device"), ["is full", "HF_HOME"]),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), ["is full", "HF_HOME"]),
]


@pytest.mark.parametrize(("error", "parts"), REFUSALS, ids=[type(error).__name__ for error, _ in REFUSALS])
def test_each_failure_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, error: Exception, parts: list[str]) -> None:
    fail(monkeypatch, error)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.test")
    with pytest.raises(DownloadError) as caught:
        fetch_repository(NAME, revision="v9")
    message = str(caught.value)
    assert message.startswith(NAME)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
    assert caught.value.__cause__ is error


def test_stopping_by_hand_is_no_failure_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fetch_repository(NAME)


@pytest.mark.parametrize("progress", [True, False])
def test_the_bytes_written_are_shown_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, progress: bool
) -> None:
    def client(_name: str, *, tqdm_class: Any, **_options: Any) -> str:
        # As huggingface_hub does it: two bars of bytes whose totals grow, and one that counts files.
        names = ("huggingface_hub.snapshot_download.transfer", "huggingface_hub.snapshot_download")
        bars = [tqdm_class(disable=None, name=name, unit="B", unit_scale=True, total=0) for name in names]
        with tqdm_class(total=1, desc="Fetching 1 files") as files:
            for bar in bars:
                bar.total += 3_000_000
                bar.refresh()
                bar.update(1_000_000)
                bar.set_postfix_str("1 B/s", refresh=False)
                bar.update(2_000_000)
                bar.set_description("complete")
            files.update(1)
        for file in ("config.json", "model.safetensors"):
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface, "snapshot_download", client)
    fetch_repository(NAME, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Downloading {NAME}: 3.0 MB in ") if progress else err == ""
    assert err.count("\n") == int(progress)
