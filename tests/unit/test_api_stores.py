"""Files and batches on the disk: whole or not at all, and a batch's end even when the disk is full."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from unmask.errors import InputError
from unmask.gateway.api.batch_lines import check_requests, good_line, read_requests, undone_line
from unmask.gateway.api.batch_schemas import BatchError, BatchRequest
from unmask.gateway.api.batch_store import Answers, BatchStore, file_ids
from unmask.gateway.api.errors import NotFoundError
from unmask.gateway.api.file_store import FileStore
from unmask.gateway.api.storing import own_folder, whole_file

LINE = b'{"custom_id":"%d","method":"POST","url":"/v1/embeddings","body":{}}\n'


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    return BatchStore(tmp_path / "batches", FileStore(tmp_path / "files"))


def made(store: BatchStore) -> str:
    """Make a batch of ten requests and return its id."""
    source = io.BytesIO(b"".join(LINE % number for number in range(10)))
    file = store.files.add(source, filename="in", owner="me")
    request = BatchRequest(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    return store.add(request, "me", "me").id


def written(store: BatchStore, batch_id: str) -> list[str]:
    """Return the ids in a batch's output, each line of which must be whole."""
    lines = store.files.data(file_ids(batch_id)[0]).read_bytes().splitlines()
    return [json.loads(line)["custom_id"] for line in lines]


def again(store: BatchStore, tmp_path: Path) -> BatchStore:
    """Return the store as a new process finds it."""
    return BatchStore(tmp_path / "batches", FileStore(tmp_path / "files"))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(TypeError), whole_file(path) as file:
        file.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    first = own_folder(tmp_path / "data")
    with pytest.raises(InputError, match="another server's"):
        own_folder(tmp_path / "data")
    first.close()
    own_folder(tmp_path / "data").close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        own_folder(tmp_path / "file")


def test_answers_survive_and_a_torn_line_does_not_count(store: BatchStore) -> None:
    batch_id = made(store)
    answers = Answers(store, batch_id)
    answers.add([good_line("0", b"{}"), undone_line("1", "c", "m"), good_line("2", b"{}")])
    answers.close()
    for file_id in file_ids(batch_id):
        with store.files.data(file_id).open("ab") as file:
            file.write(b'{"custom_id":"3"')
    answers = Answers(store, batch_id)
    assert (answers.done, answers.counts) == ({"0", "1", "2"}, [2, 1])
    answers.add([good_line("3", b"{}")])
    answers.close()
    assert written(store, batch_id) == ["0", "2", "3"]


def test_answers_that_do_not_fit_leave_the_file_as_it_was(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = made(store)
    answers = Answers(store, batch_id)
    answers.add([good_line("0", b"{}")])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            answers.add([good_line("1", b"{}")])
    assert (answers.done, answers.counts) == ({"0"}, [1, 0])
    answers.add([good_line("2", b"{}")])
    answers.close()
    assert written(store, batch_id) == ["0", "2"]


def test_the_end_of_a_batch_is_written_with_the_space_kept_free(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    batch_id = made(store)
    reserve = tmp_path / "batches" / f"{batch_id}.reserve"
    assert reserve.stat().st_size >= 65_536
    real: Any = os.fsync

    def full_unless_freed(number: int) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full_unless_freed)
    with pytest.raises(OSError, match="No space"):
        store.move(batch_id, "in_progress")
    assert store.current(batch_id).status == "validating"
    store.finish(batch_id, "failed", [BatchError(code="storage_full", message="Full.")])
    assert again(store, tmp_path).current(batch_id).status == "failed"


def test_what_moved_is_on_the_disk(store: BatchStore, tmp_path: Path) -> None:
    batch_id = made(store)
    store.move(batch_id, "in_progress")
    assert [batch.status for batch in again(store, tmp_path).unfinished()] == ["in_progress"]
    Answers(store, batch_id).close()
    store.finish(batch_id, "completed")
    found = again(store, tmp_path)
    assert found.unfinished() == []
    assert found.get(batch_id, "me").output_file_id is None  # nothing was answered, so there is no file
    with pytest.raises(NotFoundError):
        found.get(batch_id, "you")


def test_lines_are_read_in_blocks_and_blank_ones_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"\n".join(LINE % number for number in range(600)))
    assert check_requests(path, "/v1/embeddings") == (600, [])
    blocks = list(read_requests(path))
    assert len(blocks) > 2
    assert [each.custom_id for block in blocks for each in block] == [str(number) for number in range(600)]
