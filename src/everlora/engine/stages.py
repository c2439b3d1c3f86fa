"""The plan of a life: which tasks are learned together, and which row of the matrix that fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.core.errors import FolderError
from everlora.core.method import Method
from everlora.core.task import Task
from everlora.record.folder import Committed


@dataclass(frozen=True)
class Stage:
    """A piece of a life: the tasks that are learned together, and the row of the matrix that it fills."""

    number: int
    name: str
    tasks: tuple[Task, ...]
    row: int
    trains: bool = True


def stages(method: Method, tasks: Sequence[Task]) -> list[Stage]:
    """Stages of a method on a stream: one per task, or a single one for joint and frozen references."""
    last = len(tasks) - 1
    if method.regime == "sequence":
        return [Stage(k + 1, task.name, (task,), k) for k, task in enumerate(tasks)]
    return [Stage(1, method.name, tuple(tasks), last, trains=method.regime == "joint")]


def agree(committed: Sequence[Committed], planned: Sequence[Stage], folder: Path) -> None:
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
