"""Nouns of a task sequence: `Example`, `Task`, `TaskStream`.

A task is data and nothing else. How an example becomes tokens is the business of a model family (`engine/families`);
here only the parts are kept apart, so that a long text can be cut without cutting the instruction or the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from everlora.core.errors import DataError, nearest

Form = Literal["labelled", "prompted", "chat", "image"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        input: the text (`labelled`), the whole prompt (`prompted`), a list of chat messages without the last
            answer (`chat`), or an array of shape (height, width) or (height, width, 3) of unsigned bytes (`image`).
        target: the answer: a label's name, or free text.
    """

    input: Any
    target: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a stream.

    Attributes:
        name: short, unique in its stream, used in folder names (letters, digits, ``-`` and ``_``).
        train, dev, test: the splits. ``dev`` may be empty; tuning uses it and never ``test``.
        labels: the closed set of answers, in order; empty for free text.
        instruction: one sentence that tells the model what to do; shown with the options (`labelled` only).
        form: what ``Example.input`` holds.
        source: where the data come from, for the run's record.
    """

    name: str
    train: Sequence[Example]
    test: Sequence[Example]
    dev: Sequence[Example] = ()
    labels: tuple[str, ...] = ()
    instruction: str = ""
    form: Form = "labelled"
    source: str = ""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise DataError(f"task name {self.name!r} must consist of letters, digits, '-' and '_'")
        for split in ("train", "test"):
            if not len(getattr(self, split)):
                raise DataError(f"task {self.name!r} has an empty {split} split; give it at least one row")
        if self.labels:
            known = set(self.labels)
            for split in ("train", "dev", "test"):
                for row, example in enumerate(getattr(self, split), start=1):
                    if example.target not in known:
                        raise DataError(
                            f"task {self.name!r}, {split} row {row}: label {example.target!r} is outside the label set"
                            f"{nearest(example.target, known)}"
                        )

    def take(self, train: int | None = None, evaluate: int | None = None) -> Task:
        """Return the task with at most the first ``train`` training and ``evaluate`` dev and test rows."""
        return replace(self, train=self.train[:train], dev=self.dev[:evaluate], test=self.test[:evaluate])

    def digest(self) -> str:
        """Hash of all rows, labels and the instruction: two tasks with one digest are the same data."""
        sha = hashlib.sha256(json.dumps([self.name, self.labels, self.instruction, self.form]).encode())
        for split in (self.train, self.dev, self.test):
            sha.update(b"\x00split")
            for example in split:
                raw = example.input.tobytes() if self.form == "image" else json.dumps(example.input).encode()
                sha.update(raw + b"\x01" + example.target.encode() + b"\x02")
        return sha.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class TaskStream:
    """Tasks in the order in which they are learned."""

    name: str
    tasks: tuple[Task, ...]
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise DataError(f"stream {self.name!r} has no tasks")
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"stream {self.name!r} names the task {twice[0]!r} twice; give each task its own name")

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def take(self, train: int | None = None, evaluate: int | None = None) -> TaskStream:
        """Cut every task; see `Task.take`."""
        return replace(self, tasks=tuple(task.take(train, evaluate) for task in self.tasks))

    def digest(self) -> str:
        """Hash of the list of tasks and of all their data: this, not a number, identifies an order."""
        return hashlib.sha256(json.dumps([[t.name, t.digest()] for t in self.tasks]).encode()).hexdigest()[:16]
