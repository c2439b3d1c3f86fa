"""Reads the scores of tasks that were each learned alone, from a run that did so: the reference of intransigence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.archive.folder import read_matrix, read_run, stages
from everlora.core.errors import FolderError
from everlora.data.task import Task
from everlora.settings.spec import LearnerSpec

SAME = ("model", "revision", "max_source_length", "prompt")


def single_task_reference(path: Path, settings: LearnerSpec, tasks: Sequence[Task]) -> dict[str, float]:
    """Read by task its score right after it was learned, from a run that learned every task by itself (per-task).

    Args:
        path: the run folder.
        settings: of the run that is to be compared; model, prompt and scoring must be the same.
        tasks: with the same rows.

    Raises:
        FolderError: no such run, of other settings, or without one of the tasks.
    """
    record, done = read_run(path), [stage.facts for stage in stages(path)]
    composition, other = record.composition, record.settings
    if composition.consolidator != "keep" or composition.name != "per-task":
        raise FolderError(f"{path} learned with {composition.name!r}; --single needs a run with per-task")
    for key in SAME:
        if getattr(other, key) != getattr(settings, key):
            raise FolderError(f"{path} has {key} {getattr(other, key)!r}, this run {getattr(settings, key)!r}")
    for key in ("scoring", "split"):
        if getattr(other.evaluation, key) != getattr(settings.evaluation, key):
            raise FolderError(f"{path} has {key} {getattr(other.evaluation, key)!r}, this run another")
    names = read_matrix(path).tasks if done else []
    found: dict[str, float] = {}
    for task in tasks:
        facts = next((facts for facts in done if facts.data.get(task.name) == task.digest()), None)
        score = facts.row[names.index(task.name)] if facts else None
        if score is None:
            raise FolderError(f"{path} did not learn task {task.name!r}, or from other rows")
        found[task.name] = score
    return found
