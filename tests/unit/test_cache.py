"""Where things are kept, and that folders and files appear whole or not at all."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from unmask.errors import InputError
from unmask.hub.cache import atomic_file, atomic_folder, home

Writer = Callable[..., AbstractContextManager[Path]]


def test_home_is_read_from_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNMASK_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home() == tmp_path / ".cache" / "unmask"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == tmp_path / ".cache" / "unmask"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "unmask"
    monkeypatch.setenv("UNMASK_HOME", "~/own")
    assert home() == tmp_path / "own"


def test_a_folder_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "new" / "model"
    with atomic_folder(target) as draft:
        (draft / "config.json").write_text("{}")
        assert draft.parent == target.parent
        assert not target.exists()
    assert (target / "config.json").read_text() == "{}"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_folder_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "model"):
        pass
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_file_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "new" / "vectors.npy"
    with atomic_file(target) as draft:
        draft.write_bytes(b"1")
        assert draft.suffix == ".npy"
        assert not target.exists()
    assert target.read_bytes() == b"1"
    assert [path.name for path in target.parent.iterdir()] == ["vectors.npy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_failed_leaves_all_as_it_was(tmp_path: Path, error: type[BaseException], replace: bool) -> None:
    target = tmp_path / "model"
    if replace:
        target.mkdir()
        (target / "old").touch()
    before = sorted(tmp_path.rglob("*"))

    def write_half() -> None:
        with atomic_folder(target, replace=replace) as draft:
            (draft / "half").touch()
            raise error

    with pytest.raises(error):
        write_half()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_failed_leaves_all_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "vectors.npy"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_file(target, replace=True) as draft:
            draft.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("writer", [atomic_folder, atomic_file])
def test_what_exists_is_refused_by_name_before_any_work(tmp_path: Path, writer: Writer) -> None:
    target = tmp_path / "there"
    target.mkdir()
    with pytest.raises(InputError, match=f"{target} exists already"), writer(target):
        pytest.fail("the block ran")


@pytest.mark.parametrize("writer", [atomic_folder, atomic_file])
def test_what_someone_else_wrote_meanwhile_stays(tmp_path: Path, writer: Writer) -> None:
    target = tmp_path / "there"

    def write_while_another_does() -> None:
        with writer(target) as draft:
            draft.touch()
            target.write_text("theirs")

    with pytest.raises(InputError, match="exists already"):
        write_while_another_does()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_folder_is_replaced_whole_where_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with atomic_folder(target, replace=True) as draft:
        (draft / "new").touch()
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_replaced_where_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "vectors.npy"
    target.write_bytes(b"old")
    with atomic_file(target, replace=True) as draft:
        draft.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with atomic_folder(link, replace=True) as draft:
        (draft / "new").touch()
    assert link.is_symlink()
    assert (real / "new").exists()


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def refuse_new(self: Path, to: Path) -> Path:
        if (self / "new").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(target, replace=True) as draft:
        (draft / "new").touch()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_does_not_give_way_to_a_folder_nor_a_folder_to_a_file(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    with pytest.raises(InputError, match="is a file; expected a folder"), atomic_folder(file, replace=True):
        pytest.fail("the block ran")
    with pytest.raises(InputError, match="is a folder; expected a file"), atomic_file(folder, replace=True):
        pytest.fail("the block ran")


@pytest.mark.parametrize("writer", [atomic_folder, atomic_file])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "below"
    with pytest.raises(InputError, match=f"{target} cannot be written"), writer(target):
        pytest.fail("the block ran")
