"""Files and folders in one step: what reaches the disk in which order, and what is left where a step fails."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from everlora.archive import atomic
from everlora.core.errors import FolderError


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note every sync and every renaming with the inode that it is of, in order."""
    found: list[tuple[str, int]] = []
    sync, rename = os.fsync, os.replace
    handles: list[int] = []

    def noted_sync(handle: int) -> None:
        found.append(("sync", os.fstat(handle).st_ino))
        handles.append(handle)
        sync(handle)

    def noted_rename(source: Path, target: Path) -> None:
        for handle in handles:
            with pytest.raises(OSError, match="descriptor"):
                os.fstat(handle)  # closed
        handles.clear()
        found.append(("rename", source.stat().st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    return found


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_text_is_on_the_disk_before_its_name_is(tmp_path: Path, events: list[tuple[str, int]]) -> None:
    file = tmp_path / "a.txt"
    atomic.write_text(file, "one")
    assert events == [("sync", inode(file)), ("rename", inode(file)), ("sync", inode(tmp_path))]
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    atomic.write_text(file, "old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FolderError, match=r"a\.txt: No space left on device; what was there before is intact"):
        atomic.write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(FolderError, match="No such file or directory"):
        atomic.write_text(tmp_path / "absent" / "a.txt", "new")


def test_json_is_readable_and_finite(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic.write_json(file, {"ä": [1.5]})
    assert file.read_text(encoding="utf-8") == '{\n "ä": [\n  1.5\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(file, float("nan"))


def test_a_copy_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and time may be right and the content not: a disk that fails silently."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"learned")
    atomic.copy_checked(source, target)
    assert target.read_bytes() == b"learned"

    def spoil(source: Path, target: Path) -> None:
        target.write_bytes(bytes(source.stat().st_size))
        os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))

    monkeypatch.setattr(shutil, "copyfile", spoil)
    with pytest.raises(FolderError, match="b was not written as it was to be"):
        atomic.copy_checked(source, target)


def test_a_folder_is_on_the_disk_before_its_name_is(tmp_path: Path, events: list[tuple[str, int]]) -> None:
    target = tmp_path / "new" / "01"
    with atomic.staged(target) as folder:
        assert not target.exists()
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    inside = {("sync", inode(path)) for path in (target, target / "deep", target / "deep" / "file")}
    assert set(events[:3]) == inside
    assert events[3:] == [("rename", inode(target)), ("sync", inode(target.parent))]
    assert os.listdir(target.parent) == ["01"]


def test_what_an_earlier_run_left_half_written_is_no_part_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".01.part").mkdir()
    (tmp_path / ".01.part" / "old").write_text("x")
    with atomic.staged(tmp_path / "01") as folder:
        (folder / "new").write_text("y")
    assert os.listdir(tmp_path / "01") == ["new"]


def test_nothing_of_a_folder_remains_where_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), atomic.staged(tmp_path / "01"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []

    def remove_and_stop() -> None:
        with atomic.staged(tmp_path / "01") as folder:
            folder.rmdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remove_and_stop()
    monkeypatch.setattr(os, "replace", fail)
    with (
        pytest.raises(FolderError, match="01: No space left on device; earlier tasks"),
        atomic.staged(tmp_path / "01"),
    ):
        pass
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="Not a directory"), atomic.staged(tmp_path / "file" / "01"):
        pass
