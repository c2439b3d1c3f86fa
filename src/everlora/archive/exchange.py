"""Exchanges the later tasks of a learner for others, or for none: all at once, whatever ends the process.

What is to be is prepared as a learner of its own in ``.next``, files at the root included. Then one file is written,
the MANIFEST, which lists the new tasks and says that they are being exchanged: from there on every reader finds the
new learner, in ``.next`` or already in place. The moves follow, and may be interrupted and repeated; whoever opens
the folder for writing next completes them.

    prepare ``.next``  →  MANIFEST with ``exchange``  →  old tasks and files of the root to ``undone/K``
                                                      →  new ones out of ``.next``  →  MANIFEST without it
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from everlora.archive.answers_so_far import FILE as ANSWERS
from everlora.archive.atomic import explained, link_tree, move, sync
from everlora.archive.broken_off import FOLDER as BROKEN_OFF
from everlora.archive.committed import read_stages
from everlora.archive.manifest import (
    BEFORE,
    COMMIT,
    MANIFEST,
    NEXT,
    Exchange,
    Manifest,
    files_at_root,
    read_manifest,
    write_manifest,
)
from everlora.archive.parity import PARITY
from everlora.archive.root import MATRIX, PATTERNS, sha256
from everlora.archive.schema import loaded, write
from everlora.core.errors import FolderError

UNDONE = "undone"
GONE = ".gone"
PURGED = (UNDONE, BROKEN_OFF, PARITY, ANSWERS)
"""What may still hold a task that was forgotten; a parity of former files gives them back."""
LEARNED = (*PATTERNS, MATRIX, "README.md", "adapter_config.json")
"""Files at the root that change when a task is learned."""


def prepare(path: Path, keep: int, place: Path | None = None) -> Path:
    """Make a folder that holds the first ``keep`` tasks of a learner, as a learner of its own.

    Args:
        path: the learner's folder.
        keep: how many tasks.
        place: by default where `exchange` looks for it.

    Raises:
        FolderError: it cannot be written.
    """
    place = place or path / NEXT
    try:
        shutil.rmtree(place, ignore_errors=True)
        (place / "tasks").mkdir(parents=True)
        for folder in _tasks(path):
            if number_in(folder) <= keep and (folder / COMMIT).is_file():
                link_tree(folder, place / "tasks" / folder.name)
        if (path / BEFORE).is_dir():
            link_tree(path / BEFORE, place / BEFORE)
        learned = set(_learned(path))
        for file in path.iterdir():
            if file.is_file() and not file.name.startswith(".") and file not in learned and file.name != MANIFEST:
                link_tree(file, place / file.name)
    except OSError as error:
        raise FolderError(f"cannot write {place}: {error.strerror or error}; nothing was changed") from error
    list_tasks(place)
    return place


def list_tasks(place: Path) -> None:
    """Write which tasks a prepared learner has, as they are by now."""
    seals = [stage.seal for stage in read_stages(place, hashes=False)]
    write_manifest(place, str(loaded(place / "run.yaml")["id"]), seals, complete=False)


def exchange(path: Path, keep: int, *, aside: bool, purge: bool = False) -> Path | None:
    """Put what was prepared in the place of all tasks behind the first ``keep``, and of the files at the root.

    Args:
        path: the learner's folder, which this process writes to.
        keep: how many tasks stay as they are.
        aside: move what is taken away to ``undone``, and do not delete it.
        purge: delete what earlier acts have moved there, the checkpoint of a task that was broken off, and the parity.

    Returns:
        Where that is; None where it was deleted.

    Raises:
        FolderError: it cannot be written; the learner is the former one, or the new one.
    """
    place = path / NEXT
    before = _before(place)
    new = Exchange(
        keep=keep,
        aside=f"{UNDONE}/{_free_number(path)}" if aside else None,
        files=[file.name for file in files_at_root(place)],
        purge=purge,
        before=before != _before(path),
    )
    listed = Manifest(
        run=str(loaded(path / "run.yaml")["id"]),
        tasks=[stage.seal for stage in read_stages(place)],
        before=before,
        exchange=new,
    )
    with explained(place):  # before they are listed: what they take the place of may be deleted at once
        for written in (*place.rglob("*"), place):
            sync(written)
    write(path / MANIFEST, listed)
    complete_exchange(path)
    return path / new.aside if new.aside else None


def complete_exchange(path: Path) -> None:
    """Do what is left of an exchange that was begun; without one, sweep what was prepared for one that never came.

    Raises:
        FolderError: the folder cannot be written.
    """
    manifest = read_manifest(path)
    try:
        if manifest is not None and manifest.exchange is not None:
            _move_tasks(path, manifest, manifest.exchange)
            _move_files(path, manifest.exchange)
            if manifest.exchange.before:
                _move_before(path, manifest, manifest.exchange)
            # What cannot be deleted now is deleted later: until then, the exchange is not complete.
            for name in _to_delete(manifest.exchange):
                _delete(path / name)
            write_manifest(path, manifest.run, manifest.tasks, complete=True)
        for left in (path / NEXT, path / GONE):
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise FolderError(
            f"cannot write to {path}: {error.strerror or error}; what was begun is completed when it can be"
        ) from error


def _to_delete(under_way: Exchange) -> tuple[str, ...]:
    """Name what goes with the tasks that are taken away; the parity of deleted files would give them back."""
    if under_way.purge:
        return (*PURGED, NEXT, GONE)
    return (GONE,) if under_way.aside else (GONE, PARITY)


def _before(path: Path) -> str | None:
    """Return the hash of what was measured before the first task; None where nothing was."""
    return sha256(path / BEFORE / COMMIT) if (path / BEFORE / COMMIT).is_file() else None


def _delete(place: Path) -> None:
    """Delete a file or folder, if it is there."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _move_tasks(path: Path, manifest: Manifest, under_way: Exchange) -> None:
    """Move the tasks that are taken away, then those that take their place."""
    aside, new = path / (under_way.aside or GONE), path / NEXT / "tasks"
    listed = [task.folder for task in manifest.tasks][under_way.keep :]
    for folder in _tasks(path):
        # One of a name that is listed is the former as long as the new one is still where it was prepared.
        former = folder.name not in listed or (new / folder.name / COMMIT).is_file()
        if number_in(folder) > under_way.keep and former:
            move(folder, aside / folder.name)
    for name in listed:
        if (new / name / COMMIT).is_file():
            move(new / name, path / "tasks" / name)


def _move_files(path: Path, under_way: Exchange) -> None:
    """Move the files at the root that are taken away, then those that take their place."""
    aside, new = path / (under_way.aside or GONE), path / NEXT
    for file in _learned(path):
        if file.name not in under_way.files or (new / file.name).is_file():
            move(file, aside / file.name)
    for name in under_way.files:
        if (new / name).is_file():
            move(new / name, path / name)


def _move_before(path: Path, manifest: Manifest, under_way: Exchange) -> None:
    """Move what was measured before the first task, then what takes its place, if anything does."""
    old, new = path / BEFORE, path / NEXT / BEFORE
    comes = manifest.before is not None and (new / COMMIT).is_file()
    if old.is_dir() and (comes or manifest.before is None):
        move(old, path / (under_way.aside or GONE) / BEFORE)
    if comes:
        move(new, old)


def _learned(path: Path) -> list[Path]:
    found = {file for pattern in LEARNED for file in path.glob(pattern) if file.is_file()}
    return sorted(file for file in found if not file.name.startswith("."))


def _tasks(path: Path) -> Sequence[Path]:
    return sorted((path / "tasks").glob("[0-9]*"), key=number_in)


def number_in(folder: Path) -> int:
    """Return the number in the name of a task's folder.

    >>> number_in(Path("tasks/03-reviews"))
    3
    """
    number = folder.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _free_number(path: Path) -> int:
    taken = [int(folder.name) for folder in (path / UNDONE).glob("[0-9]*") if folder.name.isdecimal()]
    return max(taken, default=0) + 1
