"""Notes which tasks a learner's folder has, by the hashes of their COMMITs: what is lost or exchanged is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from everlora.archive.lock import LOCK, OWNER
from everlora.archive.root import hash_of
from everlora.archive.schema import Record, read_json, write
from everlora.core.errors import FolderError

MANIFEST = "MANIFEST"
COMMIT = "COMMIT"
BEFORE = "before"
"""Folder below a learner's of what was measured before its first task."""
NEXT = ".next"
"""Folder below a learner's in which tasks are prepared that are to take the place of others."""


class TaskSeal(Record):
    """Holds the hashes of a task's COMMIT and of that of its newest evaluation, whose folder is named.

    Attributes:
        folder: below ``tasks``.
        commit: SHA-256.
        evaluation, scores: name of the folder below the task's, and SHA-256; None before it was scored.
    """

    folder: str
    commit: str
    evaluation: str | None = None
    scores: str | None = None


class Exchange(Record):
    """Holds how the later tasks of a learner are being exchanged for others; see `everlora.archive.exchange`.

    Attributes:
        keep: how many tasks stay as they are.
        aside: folder below the learner's that what is taken away goes to; None deletes it.
        files: names of the files at the root that are exchanged, too.
        purge: delete what earlier acts have put aside.
        before: whether what was measured before the first task is exchanged, too.
    """

    keep: int
    aside: str | None = None
    files: list[str] = Field(default_factory=list)
    purge: bool = False
    before: bool = False


class Manifest(Record):
    """Holds what a folder has.

    Attributes:
        run: whose it is.
        tasks: in the order of learning.
        before: SHA-256 of the COMMIT of what was measured before the first task.
        files: SHA-256 of the files at the root; None while they are being written.
        exchange: what is being exchanged, so that ``tasks`` are those that will be there; None most of the time.
    """

    run: str
    tasks: list[TaskSeal] = Field(default_factory=list)
    before: str | None = None
    files: dict[str, str] | None = None
    exchange: Exchange | None = None


def read_manifest(path: Path) -> Manifest | None:
    """Read the manifest of a folder; None where there is none, as in folders of schema 3 and before.

    Raises:
        FolderError: it is damaged.
    """
    return read_json(Manifest, path / MANIFEST) if (path / MANIFEST).is_file() else None


def seal(task: Path, evaluation: Path | None) -> TaskSeal:
    """Hash the COMMIT of a task, and that of an evaluation of it."""
    return TaskSeal(
        folder=task.name,
        commit=hash_of(task / COMMIT),
        evaluation=evaluation.name if evaluation else None,
        scores=hash_of(evaluation / COMMIT) if evaluation else None,
    )


def write_manifest(path: Path, run: str, seals: Sequence[TaskSeal], *, complete: bool) -> None:
    """Write what a folder has; with the files at its root, unless they are about to be written."""
    before = path / BEFORE / COMMIT
    files = {file.name: hash_of(file) for file in files_at_root(path)} if complete else None
    found = Manifest(run=run, tasks=list(seals), before=hash_of(before) if before.is_file() else None, files=files)
    write(path / MANIFEST, found)


def mark_unfinished(path: Path) -> None:
    """Note that a file at the root is about to be written, if the manifest says that all of them are."""
    there = read_manifest(path)
    if there is not None and there.files is not None:
        write(path / MANIFEST, there.model_copy(update={"files": None}))


def check_at_root(path: Path, name: str) -> None:
    """Refuse a file at the root that is another one than the manifest of a finished folder lists.

    Raises:
        FolderError: it is.
    """
    there = read_manifest(path)
    known = (there.files or {}).get(name) if there else None
    if known is not None and (not (path / name).is_file() or hash_of(path / name) != known):
        raise FolderError(
            f"{path / name} is missing or was changed after it was written; everlora verify {path} says more"
        )


def files_at_root(path: Path) -> list[Path]:
    """List the files at the root of a folder that the manifest covers."""
    elsewhere = (MANIFEST, "run.yaml", "environment.json", "PARITY")  # written by themselves; they seal themselves
    found = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in found if file.name not in elsewhere)


def check_listed(path: Path, manifest: Manifest, there: Sequence[TaskSeal]) -> None:
    """Refuse a folder whose tasks are others than its manifest lists; the one after them may not be listed yet.

    Raises:
        FolderError: which task is missing or was changed.
    """
    for number, listed in enumerate(manifest.tasks):
        found = there[number] if number < len(there) else None
        place = path / "tasks" / listed.folder
        if found is None or found.folder != listed.folder:
            raise FolderError(f"{place} is missing; restore the folder from a copy")
        if found.commit != listed.commit:
            raise FolderError(f"{place / COMMIT} is another one than was written; restore the folder from a copy")
        if listed.evaluation is not None and not _same_scores(found, listed):
            raise FolderError(
                f"{place / listed.evaluation} is missing or another one than was written; restore the folder from a "
                f"copy"
            )
    if len(there) > len(manifest.tasks) + 1:
        raise FolderError(
            f"{path / 'tasks' / there[len(manifest.tasks) + 1].folder} is in no list of {path / MANIFEST}; it is of "
            f"another learner, take it away"
        )


def _same_scores(found: TaskSeal, listed: TaskSeal) -> bool:
    """Return whether a task's newest evaluation is the one that is listed, or one that was made after it."""
    if found.evaluation == listed.evaluation:
        return found.scores == listed.scores
    return found.evaluation is not None and number_of(found.evaluation) > number_of(str(listed.evaluation))


def number_of(folder: str) -> int:
    """Return the number in the name of an evaluation's folder; 0 where it is none.

    >>> number_of("evaluation-12")
    12
    """
    number = folder.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def is_new(path: Path) -> bool:
    """Return whether nothing is at ``path``, or no more than a process leaves that ended before it wrote run.yaml."""
    left = (file for file in path.iterdir() if file.name not in (LOCK, OWNER)) if path.is_dir() else iter(())
    unnamed = (".run.yaml.part", f".{MANIFEST}.part", f".{OWNER}.part", MANIFEST)
    return all(file.name in unnamed or (file.name == "tasks" and _is_empty(file)) for file in left)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def is_begun(path: Path) -> bool:
    """Return whether nothing was learned in ``path`` yet, and the process that made it ended before it was made."""
    if is_new(path):
        return True
    manifest = read_manifest(path)
    # A learner that is being taken back to its start has nothing, either, until that is completed.
    unfinished = manifest is not None and manifest.files is None and manifest.exchange is None
    return unfinished and (path / "run.yaml").is_file() and not any(path.glob(f"tasks/*/{COMMIT}"))
