"""What is said of the files at the root of a run folder, and which changes of them are found."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from everlora.archive import root, unchanged
from everlora.archive.results import MatrixRecord, RootFiles
from everlora.archive.root import check_root, root_files, sha256
from everlora.archive.schema import write
from everlora.core.errors import FolderError

WEIGHTS = "adapter_model.safetensors"


def run_folder(path: Path, *, stages: int = 2, committed: int = 2, said: bool = True) -> Path:
    """A run folder whose root is that of so many stages, of which so many are committed."""
    (path / WEIGHTS).write_bytes(b"weights")
    (path / "adapter_config.json").write_bytes(b"{}")
    (path / ".hidden.safetensors").write_bytes(b"half written")
    (path / "notes.txt").write_text("mine")
    (path / "run.yaml").write_text("x: 1")
    for k in range(committed):
        (path / "tasks" / f"0{k + 1}-t").mkdir(parents=True)
        (path / "tasks" / f"0{k + 1}-t" / "COMMIT").touch()
    root = root_files(path, stages) if said else None
    write(path / "matrix.json", MatrixRecord(
        id="x", tasks=["a"], counts=[1], matrix=[[1.0]], metrics={}, stored_elements=0, adapter_elements=0,
        memory_bytes=0, root=root,
    ))  # fmt: skip
    return path


def test_the_files_of_a_learner_are_noted_with_their_hashes(tmp_path: Path) -> None:
    assert root_files(tmp_path, 1) is None
    run_folder(tmp_path)
    digests = {"adapter_config.json": b"{}", WEIGHTS: b"weights"}
    assert root_files(tmp_path, 3) == RootFiles(
        stages=3, digests={name: hashlib.sha256(content).hexdigest() for name, content in digests.items()}
    )


@pytest.mark.parametrize("committed", [0, 2])
def test_a_file_that_was_changed_or_taken_away_is_named(committed: int, tmp_path: Path) -> None:
    """Also where no task is there: a learner's root alone may have been copied."""
    check_root(run_folder(tmp_path, committed=committed))
    (tmp_path / WEIGHTS).write_bytes(b"others")
    for complete in (True, False):
        with pytest.raises(FolderError, match=f"{WEIGHTS} was changed after it was written, or is damaged; delete it"):
            check_root(tmp_path, complete=complete)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(FolderError, match=f"{WEIGHTS} is missing; run again with --resume, which makes it"):
        check_root(tmp_path)
    check_root(tmp_path, complete=False)


@pytest.mark.parametrize(
    "folder",
    [{"committed": 1}, {"committed": 3}, {"said": False}],
    ids=["a stage was taken away", "stopped behind a commit", "of an older everlora"],
)
def test_a_root_of_which_nothing_is_known_is_taken_as_it_is(folder: dict[str, int], tmp_path: Path) -> None:
    run_folder(tmp_path, **folder)  # type: ignore[arg-type]
    (tmp_path / WEIGHTS).write_bytes(b"others")
    check_root(tmp_path)


@pytest.mark.parametrize("name", ["run.yaml", "matrix.json"])
def test_what_is_no_run_folder_is_not_looked_at(name: str, tmp_path: Path) -> None:
    run_folder(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"others")
    (tmp_path / name).unlink()
    check_root(tmp_path)


def test_a_matrix_that_cannot_be_read_is_left_to_whoever_needs_it(tmp_path: Path) -> None:
    run_folder(tmp_path)
    (tmp_path / "matrix.json").write_text("{")
    check_root(tmp_path)


def test_a_file_that_nobody_changed_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = tmp_path / "x", list[Path]()
    file.write_bytes(b"one")
    monkeypatch.setattr(root, "sha256", lambda path: read.append(path) or sha256(path))
    first = root.hash_of(file)
    assert root.hash_of(file) == first == sha256(file)
    assert len(read) == 2, "just written: another change could have the same time"
    monkeypatch.setattr(unchanged, "SETTLED", 0)
    assert [root.hash_of(file) for _ in range(3)] == [first] * 3
    assert len(read) == 3
    before = file.stat()
    time.sleep(0.02)  # beyond the grain of a disk's clock
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert root.hash_of(file) == sha256(file) != first, "as many bytes, the time of then: but it was changed"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        root.hash_of(file)
