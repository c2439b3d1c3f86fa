"""Defines a `TaskStream`, tasks in the order in which they are learned, and what identifies one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from everlora.core.errors import DataError
from everlora.core.notebook import html_table
from everlora.data.task import Task

SHOWN = 6
"""Tasks that are named before the rest is left out."""


@dataclass(frozen=True, kw_only=True, repr=False)
class TaskStream:
    """Holds tasks in the order in which they are learned.

    Attributes:
        name: of the stream, for messages.
        tasks: the tasks, each with a name of its own.
        note: what a reader of the data should know.

    >>> from everlora.data.task import Example
    >>> rows = [Example("a good film", "positive")]
    >>> TaskStream(name="mine", tasks=(Task(name="films", train=rows, test=rows),)).names
    ('films',)
    """

    name: str
    tasks: tuple[Task, ...]
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if other := [one for one in self.tasks if not isinstance(one, Task)]:
            raise DataError(f"stream {self.name!r} is of tasks (everlora.Task), and {other[0]!r} is none")
        if not self.tasks:
            raise DataError(f"stream {self.name!r} has no tasks")
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"stream {self.name!r} names the task {twice[0]!r} twice; give each task its own name")

    def __repr__(self) -> str:
        names = ", ".join(self.names[:SHOWN]) + (", …" if len(self) > SHOWN else "")
        return f"TaskStream({self.name!r}: {len(self)} tasks: {names})"

    def _repr_html_(self) -> str:
        rows = [
            [
                f"{k} {task.name}",
                f"{len(task.train):,}",
                f"{len(task.test):,}",
                str(len(task.labels) or "free"),
                task.metric,
            ]
            for k, task in enumerate(self, start=1)
        ]
        return html_table(repr(self), ["task", "training rows", "test rows", "labels", "metric"], rows, self.note)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def take(self, train: int | None = None, evaluate: int | None = None, *, seed: int = 0) -> TaskStream:
        """Cut every task; see `Task.take`."""
        return replace(self, tasks=tuple(task.take(train, evaluate, seed=seed) for task in self.tasks))

    def digest(self) -> str:
        """Hash the list of tasks and all their data: this, not a number, identifies an order."""
        return digest_of_order([(task.name, task.digest()) for task in self.tasks])


def left_out_note(tasks: Iterable[Task]) -> str:
    """Tell how many rows of the sources are not in the tasks, and why, a sentence for each reason; empty if none."""
    found = []
    for task in tasks:
        for reason, count in task.left_out.items():
            split, why = reason.split(": ", 1)
            found.append(f"{task.name}: {count} {split} rows left out because {why}.")
    return " ".join(found)


def hash_of_list(tasks: Sequence[str]) -> str:
    """Hash the names of tasks, in order, in which orders of one number in different papers differ."""
    return hashlib.sha256(json.dumps(list(tasks)).encode()).hexdigest()[:12]


def digest_of_order(tasks: Sequence[tuple[str, str]]) -> str:
    """Hash the names and digests of tasks, in order."""
    return hashlib.sha256(json.dumps([list(pair) for pair in tasks]).encode()).hexdigest()[:16]


def own_stream(tasks: object) -> TaskStream:
    """Make a stream of tasks that are given in Python; one that is made already stays as it is.

    Raises:
        DataError: they are no tasks.
    """
    if isinstance(tasks, TaskStream):
        return tasks
    if not isinstance(tasks, Iterable):
        raise DataError(f"a learner follows a stream or a list of tasks (everlora.Task), not {tasks!r}")
    return TaskStream(name="own", tasks=tuple(tasks))
