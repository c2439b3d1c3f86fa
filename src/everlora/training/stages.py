"""The plan of a life: what is learned together, what is asked when, and which row of the matrix that fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlora.archive.folder import Committed
from everlora.core.errors import DataError, FolderError
from everlora.core.method import Method
from everlora.data.task import Task
from everlora.metrics.answers import DEFAULT, normalise
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.models.families import Family
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec, Schedule


@dataclass(frozen=True)
class Stage:
    """A piece of a life: the tasks that are learned together, and the row of the matrix that it fills.

    What is drawn at random in it depends on ``seeded``: its number, or 1 where tasks know nothing of one another, so
    that each is learned as in a run of its own.
    """

    number: int
    name: str
    tasks: tuple[Task, ...]
    row: int
    trains: bool = True
    seeded: int = 1


def stages(method: Method, tasks: Sequence[Task]) -> list[Stage]:
    """Stages of a method on a stream: one per task, or a single one for joint and frozen references."""
    last = len(tasks) - 1
    if method.regime == "sequence":
        seeded = [1 if method.independent_tasks else k + 1 for k in range(len(tasks))]
        return [Stage(k + 1, task.name, (task,), k, seeded=seeded[k]) for k, task in enumerate(tasks)]
    return [Stage(1, method.name, tuple(tasks), last, trains=method.regime == "joint")]


def validate_task(task: Task, family: Family, evaluation: EvalSpec, progress: Progress) -> None:
    """Refuse, before anything is trained, a task that could not be learned or answered when its turn comes.

    What was left out of its source is told.

    Raises:
        DataError: no rows to be scored on, no labels where labels are scored, or rows that the family cannot read.
    """
    if not len(getattr(task, evaluation.split)):
        raise DataError(f"task {task.name!r} has no {evaluation.split} rows to be scored on")
    if evaluation.scoring == "labels" and not task.labels:
        raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
    family.check(task)
    for why, count in task.left_out.items():
        progress.info(f"task {task.name!r}: {count} rows left out ({why})")


def tasks_to_evaluate(
    stage: Stage, tasks: Sequence[Task], schedule: Schedule, method: Method, ahead: bool = False
) -> list[Task]:
    """The tasks whose test rows are answered after a stage; with ``ahead`` the one that comes next, too.

    Nobody has learned that one: where a task id chooses an adapter, the newest answers.
    """
    last = stage.row == len(tasks) - 1
    following = list(tasks[stage.row + 1 : stage.row + 2]) if ahead else []
    if method.task_id_at_inference or (schedule == "diagonal" and not last):
        return [stage.tasks[0], *following]
    return [] if schedule == "final" and not last else [*tasks[: stage.row + 1], *following]


def matrix_row(
    stage: Stage, tasks: Sequence[Task], scores: Mapping[str, float], matrix: ScoreMatrix, method: Method
) -> list[Cell]:
    """The row of the matrix that a stage fills; None where nothing was asked."""
    row = [scores.get(task.name) for task in tasks]
    if not method.task_id_at_inference:
        return row
    # Each task is answered by its own adapter, which never changes again: a[i][j] = a[j][j].
    earlier = matrix.cells[stage.row - 1] if stage.row else (None,) * len(tasks)
    return [old if new is None else new for old, new in zip(earlier, row, strict=True)]


def task_metadata(tasks: Sequence[Task]) -> dict[str, Any]:
    """What a committed stage says about its tasks: digests, and where it applies the metric and rows left out."""
    said: dict[str, Any] = {"data": {task.name: task.digest() for task in tasks}}
    metric = {task.name: task.metric for task in tasks if task.metric != DEFAULT}
    left_out = {task.name: dict(task.left_out) for task in tasks if task.left_out}
    guessed = {task.name: chance for task in tasks if (chance := chance_level(task)) is not None}
    said |= {"chance": guessed} if guessed else {}
    return said | ({"metric": metric} if metric else {}) | ({"left_out": left_out} if left_out else {})


def chance_level(task: Task) -> float | None:
    """Percent of guessing among the task's labels; None where that is not known: free answers, or a corpus metric."""
    names = {normalise(label) for label in task.labels}
    known = task.metric in (DEFAULT, "exact_match_raw") and task.labels and len(names) == len(task.labels)
    return 100.0 / len(task.labels) if known else None


def check_same_tasks(committed: Sequence[Committed], planned: Sequence[Stage], folder: Path) -> None:
    """Refuse tasks that are not those which the folder holds, before anything is touched.

    Raises:
        FolderError: other tasks, fewer tasks, or other data.
    """
    if len(committed) > len(planned):
        raise FolderError(
            f"{folder} holds {len(committed)} learned tasks, more than the {len(planned)} given now; give the same "
            f"tasks, and new ones behind them"
        )
    for done, stage in zip(committed, planned, strict=False):
        if done.facts["name"] != stage.name:
            raise FolderError(f"{done.path} holds task {done.facts['name']!r}, not {stage.name!r}")
        if done.facts["data"] != {task.name: task.digest() for task in stage.tasks}:
            raise FolderError(f"{done.path} was learned from other data than these; choose another --out")
