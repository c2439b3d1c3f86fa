"""Loads classification tasks from the Hugging Face hub, in the form of the local files.

Sizes are ours: up to `TRAIN` rows of each class to train on, `DEV` set aside from the rest of the training split, and
`TEST` of each class from the split that has labels. The choice is drawn once, with a seed of its own, so that every
run sees the same rows. Rows that train or dev share with test are left out, and the stream's note counts them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everlora.core.benchmark import TaskInfo
from everlora.core.errors import DataError
from everlora.data.hub import as_table, load_split
from everlora.data.rows import Row, Table
from everlora.data.task import Task
from everlora.data.tasks import build_task

TRAIN, DEV, TEST = 1000, 100, 500
DRAW_SEED = 0
INSTEAD = "give --data-dir a folder that holds the benchmark's files"


@dataclass(frozen=True, kw_only=True)
class HubTask:
    """Says where a task lies on the hub and how its rows become ``text`` and ``label``; ``hub`` in the YAML.

    Attributes:
        path: id of the data set.
        config: its configuration, if it has several.
        fields: the lines of our text, as name and column; an empty name writes the column alone. A line whose column
            is empty in a row is left out.
        without: a column that, when empty, makes ``short`` take the place of ``fields``.
        short: see ``without``.
        label_column: the column of the label's number.
        names: our label for each number; the task's labels, in order, if left out.
        first: the number of the first label.
        test: the split with labels that nobody trains on.
    """

    path: str
    config: str | None = None
    fields: tuple[tuple[str, str], ...]
    without: str = ""
    short: tuple[tuple[str, str], ...] = ()
    label_column: str = "label"
    names: tuple[str, ...]
    first: int = 0
    test: str = "validation"

    def text(self, row: Row) -> str:
        """Write one row's text."""
        short = self.without and not str(row[self.without] or "").strip()
        lines = [(name, str(row[column] or "").strip()) for name, column in (self.short if short else self.fields)]
        return "\n".join(f"{name}: {value}" if name else value for name, value in lines if value)


def hub_task(task: TaskInfo) -> Task:
    """Load a task from the hub.

    Raises:
        DataError: the task has no place on the hub, or the hub cannot be reached or read.
    """
    if not task.hub:
        raise DataError(f"the task {task.name!r} has no source on the hub here; {INSTEAD}")
    place = place_of(task)
    training = load_split(place.path, place.config, "train", instead=INSTEAD)
    testing = load_split(place.path, place.config, place.test, instead=INSTEAD)
    return drawn_task(task, training, testing)


def place_of(task: TaskInfo) -> HubTask:
    """Return where a task lies on the hub; its labels name the numbers there where nothing else is said."""
    facts = {key: _tuples(value) for key, value in task.hub.items()}
    return HubTask(**{"names": task.labels, **facts})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def drawn_task(task: TaskInfo, training: Any, testing: Any) -> Task:
    """Draw a task's splits from the two `datasets.Dataset` that the hub has of it.

    Raises:
        DataError: a column is missing, or a row is unusable.
    """
    place = place_of(task)
    train, dev = draw(_numbers(training, place), TRAIN, DEV)
    test, _ = draw(_numbers(testing, place), TEST, 0)
    tables = {"train": _table(training, train, place, "train"), "test": _table(testing, test, place, place.test)}
    if dev:
        tables["dev"] = _table(training, dev, place, "train")
    return build_task(
        task.name,
        tables,
        labels=task.labels,
        instruction=task.instruction,
        overlap="drop",
        metric=task.metric,
        source=f"hub:{place.path}" + (f"/{place.config}" if place.config else ""),
    )


def draw(numbers: Sequence[int], main: int, aside: int) -> tuple[list[int], list[int]]:
    """Choose rows by their label's number: up to ``main`` of each class, and up to ``aside`` others.

    Not more than a tenth of a class is set aside, because the small sets (CB has 250 rows) need theirs to train on.

    Returns:
        The two lists of row indices, each in random order.
    """
    dice = random.Random(DRAW_SEED)
    classes: dict[int, list[int]] = {}
    for index, number in enumerate(numbers):
        classes.setdefault(number, []).append(index)
    chosen: list[int] = []
    others: list[int] = []
    # By number: which class happens to stand first must not decide what is drawn of the others.
    for number in sorted(classes):
        rows = classes[number]
        dice.shuffle(rows)
        cut = min(aside, len(rows) // 10)
        others += rows[:cut]
        chosen += rows[cut : cut + main]
    dice.shuffle(chosen)
    dice.shuffle(others)
    return chosen, others


def _numbers(data: Any, place: HubTask) -> list[int]:
    wanted = [place.label_column, *(column for _, column in place.fields)]
    for column in wanted:
        if column not in data.column_names:
            raise DataError(
                f"{place.path} has no column {column!r} (found: {', '.join(data.column_names)}); {INSTEAD}"
            )
    return list(data[place.label_column])


def _table(data: Any, indices: Sequence[int], place: HubTask, split: str) -> Table:
    raw = as_table(data.select(indices), f"{place.path} {split}", [index + 1 for index in indices])
    rows = []
    for index, row in enumerate(raw.rows):
        label = row[place.label_column]
        number = label - place.first if isinstance(label, int) else -1
        if not 0 <= number < len(place.names):
            raise DataError(f"{raw.at(index)}: label {label} has no name here; {INSTEAD}")
        rows.append({"text": place.text(row), "label": place.names[number]})
    return Table(where=raw.where, rows=rows, numbers=raw.numbers)
