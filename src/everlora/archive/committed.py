"""Reads what a learner's folder holds of its tasks, and refuses what was changed or lost since it was written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from everlora.archive.broken_off import sweep_checkpoint
from everlora.archive.commits import Baseline, Commit, Evaluation, KeptRows
from everlora.archive.manifest import (
    COMMIT,
    MANIFEST,
    NEXT,
    Manifest,
    TaskSeal,
    check_listed,
    number_of,
    read_manifest,
    seal,
)
from everlora.archive.records import Seconds
from everlora.archive.root import hash_of
from everlora.archive.schema import loaded, restored, schema_of
from everlora.archive.unchanged import Unchanged
from everlora.core.errors import FolderError

EVALUATION = "evaluation-"
LISTED = 4
"""Since this schema a folder has a manifest before it has a task."""
PREDICTIONS = "predictions.jsonl"
_content = Unchanged(loaded)
"""What a COMMIT says."""


@dataclass(frozen=True)
class Committed:
    """Holds a finished stage as read from disk.

    Attributes:
        path: its folder.
        facts: what its COMMIT says, and that of its newest evaluation: `row` is empty before there is one.
        evaluation: folder of that evaluation; None before there is one.
        counts: how many rows were answered of each task, in the order of learning; empty in older folders.
        kept: test rows that were kept since it was learned.
    """

    path: Path
    facts: Commit
    evaluation: Path | None = None
    counts: tuple[int, ...] = ()
    kept: tuple[KeptRows, ...] = ()

    @property
    def evaluated(self) -> bool:
        """Return whether it was scored."""
        return self.evaluation is not None or bool(self.facts.row)

    @property
    def predictions(self) -> Path:
        """Return the file that holds every answer; folders of schema 3 and before have it beside the adapter."""
        return (self.evaluation or self.path) / PREDICTIONS

    @cached_property
    def seal(self) -> TaskSeal:
        """Return the hashes of its COMMITs."""
        return seal(self.path, self.evaluation)


@dataclass(frozen=True)
class CommittedBaseline:
    """Holds what was measured before the first task, as read from disk."""

    path: Path
    facts: Baseline


def read_stages(path: Path, *, hashes: bool = True, complete: bool | None = None) -> list[Committed]:
    """Return the finished stages in order.

    Args:
        path: the learner's folder.
        hashes: read every file, to see whether it is what was written.
        complete: see whether the tasks are those of the manifest; by default where files are read.

    Raises:
        FolderError: a file of a finished stage is missing or changed, or a whole stage.
    """
    manifest = read_manifest(path)
    found = [read_stage(folder, hashes=hashes) for folder in _folders(path, manifest)]
    for number, stage in enumerate(found, start=1):
        if stage.facts.number != number:
            raise FolderError(f"{path / 'tasks'} has no task {number}; restore its folder from a copy")
        if stage.facts.run != found[0].facts.run:
            raise FolderError(f"{stage.path} was learned by another run than {found[0].path}; take it away")
    if (hashes if complete is None else complete) and (manifest := listed(path, found)) is not None:
        check_listed(path, manifest, [stage.seal for stage in found])
    return found


def listed(path: Path, found: Sequence[Committed]) -> Manifest | None:
    """Read the manifest of a folder; None where there is none, as in folders of schema 3 and before.

    Args:
        path: the learner's folder.
        found: its tasks.

    Raises:
        FolderError: it is damaged, lost, or another run's.
    """
    manifest, cure = read_manifest(path), f"everlora verify {path} --repair makes it anew, if its tasks are sound"
    if manifest is None and any(schema_of(stage.path / COMMIT) >= LISTED for stage in found):
        raise FolderError(f"{path / MANIFEST} is missing; {cure}")
    if manifest is not None and any(stage.facts.run != manifest.run for stage in found):
        raise FolderError(f"{path / MANIFEST} is of another run than its tasks; {cure}")
    return manifest


def sweep_left(path: Path, manifest: Manifest, found: Sequence[Committed]) -> None:
    """Remove what an ended process did not: a checkpoint of what is committed, evaluations that a newer one follows.

    Args:
        path: the learner's folder.
        manifest: what it lists.
        found: its tasks.
    """
    sweep_checkpoint(path, [stage.seal.commit for stage in found])
    sweep_evaluations(path, manifest)


def sweep_evaluations(path: Path, manifest: Manifest) -> None:
    """Remove evaluations in whose place a newer one is listed: a process may have ended before it did."""
    for task in manifest.tasks:
        for place in (path / "tasks" / task.folder).glob(f"{EVALUATION}*"):
            if task.evaluation is not None and number_of(place.name) < number_of(task.evaluation):
                shutil.rmtree(place)


def _folders(path: Path, manifest: Manifest | None) -> list[Path]:
    """List the folders of the finished stages, in order; where tasks are being exchanged, the new ones."""
    if manifest is None or manifest.exchange is None:
        # A process killed just before the renaming leaves a sealed folder under its hidden name: not in place.
        sealed = [p.parent for p in (path / "tasks").glob(f"[0-9]*/{COMMIT}")]
        # By number: 100 comes after 99, and not, as a text, before 11.
        return sorted(sealed, key=lambda p: p.name.partition("-")[0].zfill(9))
    new = [path / NEXT / "tasks" / task.folder for task in manifest.tasks]
    return [place if (place / COMMIT).is_file() else path / "tasks" / place.name for place in new]


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a folder one of whose files is missing, or has another hash.

    Raises:
        FolderError: which file it is.
    """
    for name, sha in files.items():
        try:
            same = hash_of(folder / name) == sha
        except OSError:  # there is none, or a folder stands in its place
            same = False
        if not same:
            raise FolderError(f"{folder / name} is missing or was changed after it was written; restore the folder")


def read_stage(path: Path, *, hashes: bool = True) -> Committed:
    """Return the finished stage in a folder; see `read_stages`."""
    facts = restored(Commit, path / COMMIT, _content(path / COMMIT))
    if path.name != folder_name(facts.number, facts.name):
        raise FolderError(
            f"{path / COMMIT} is of task {facts.number}, {facts.name!r}, and not of its folder's; restore the folder"
        )
    if hashes:
        verify_files(path, facts.files)
    newest = newest_evaluation(path)
    if newest is None:
        return Committed(path, facts)
    scores = restored(Evaluation, newest / COMMIT, _content(newest / COMMIT))
    if (scores.run, scores.number, scores.name) != (facts.run, facts.number, facts.name):
        raise FolderError(f"{newest / COMMIT} is of another task than its folder's; restore the folder")
    if hashes:
        verify_files(newest, scores.files)
    return Committed(path, _with_scores(facts, scores), newest, tuple(scores.counts), tuple(scores.kept))


def newest_evaluation(path: Path) -> Path | None:
    """Return the folder of the newest evaluation of the task in ``path``; None before there is one."""
    found = [place.parent for place in path.glob(f"{EVALUATION}*/{COMMIT}")]
    return max(found, key=lambda folder: number_of(folder.name), default=None)


def _with_scores(facts: Commit, scores: Evaluation) -> Commit:
    """Return what is known of a stage with how it was scored."""
    trained, seconds = facts.seconds, scores.seconds
    took = Seconds(train=trained.train, evaluate=seconds) if isinstance(trained, Seconds) else seconds
    warning = "; ".join(filter(None, (facts.warning, scores.warning))) or None
    known = {name: getattr(scores, name) for name in ("row", "fingerprint", "general")}
    return facts.model_copy(update={**known, "seconds": took, "warning": warning})


def folder_name(number: int, name: str) -> str:
    """Return the name of a task's folder.

    >>> folder_name(3, "reviews")
    '03-reviews'
    """
    return f"{number:02d}-{name}"


def last_scores(stages: Sequence[Committed]) -> dict[str, float]:
    """Return by task the score that was measured last; nothing of tasks that never were."""
    names = [name for stage in stages for name in stage.facts.data]
    found: dict[str, float] = {}
    for stage in stages:
        found |= {name: cell for name, cell in zip(names, stage.facts.row, strict=False) if cell is not None}
    return found
