"""Stores rows of earlier tasks in the run folder, and chooses those that are trained again with a new task."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from everlora.core.errors import ConfigError, FolderError
from everlora.core.roles import Rehearsal
from everlora.data.task import Example, Task
from everlora.runtime.seeds import seed_for
from everlora.training.stages import Stage

FILE = "rehearsal.jsonl"


def choose_rows(part: Rehearsal, task: Task, *seed: int) -> Task | None:
    """Choose rows of a task's training set, as a task; None if the part chooses none. Test rows are never among them.

    ``seed`` is the run's and, where rows are drawn for every task, the number of the stage.
    """
    # By the task's name: the rows of a task stay the same whatever other tasks there are.
    draw = random.Random(seed_for(seed[0], task.name, part.name, *seed[1:]))
    rows = [
        task.train[k] for k in sorted(part.choose([row.target if task.labels else "" for row in task.train], draw))
    ]
    # A task must have a test row. It is never answered: of what is rehearsed only the training rows are used.
    return replace(task, train=rows, test=rows[:1], dev=()) if rows else None


def draws_for_every_task(part: Rehearsal | None) -> bool:
    """Return whether rows are drawn for every task from the earlier ones' training sets, which then count as stored.

    These sets are always at hand: a learner is given all of its tasks from the first one on, and `check_same_tasks`
    refuses others.
    """
    return part is not None and part.resample == "each-task"


def select_rows(part: Rehearsal | None, tasks: Sequence[Task], seed: int) -> tuple[list[Task], list[str]]:
    """Select what is stored of the tasks of a finished stage; with a warning for each of which no row is chosen."""
    if part is None:
        return [], []
    found = {task.name: choose_rows(part, task, seed) for task in tasks}
    missing = [f"no row of {name!r} is kept to be rehearsed" for name, rows in found.items() if rows is None]
    if draws_for_every_task(part):
        return list(tasks), missing
    return [rows for rows in found.values() if rows is not None], missing


def draw_rows(part: Rehearsal | None, stored: Sequence[Task], seed: int, stage: int) -> list[Task]:
    """Draw what is trained again at a stage from what is stored."""
    if part is None or not draws_for_every_task(part):
        return list(stored)
    return [rows for task in stored if (rows := choose_rows(part, task, seed, stage)) is not None]


def stage_to_train(part: Rehearsal | None, stage: Stage, seed: int) -> Stage:
    """Return the stage as it is trained: on nothing but what is stored of it, if the part is ``rehearsed_only``.

    Raises:
        ConfigError: nothing is stored.
    """
    if part is None or not part.rehearsed_only:
        return stage
    rows, _ = select_rows(part, stage.tasks, seed)
    if not rows:
        raise ConfigError(f"{part.name!r} keeps no row of any task, so there is nothing to learn; raise its ratio")
    return replace(stage, tasks=tuple(rows))


def size(tasks: Sequence[Task]) -> int:
    """Count the bytes of rows: their texts in UTF-8, their pixels, and their answers."""
    return sum(_bytes(row.input) + len(row.target.encode()) for task in tasks for row in task.train)


def count(tasks: Sequence[Task]) -> int:
    """Count the training rows of tasks."""
    return sum(len(task.train) for task in tasks)


def write(folder: Path, part: Rehearsal | None, tasks: Sequence[Task]) -> None:
    """Write stored rows, a line for each, behind a line for what their task is; nothing if there are none.

    Whole training sets are not written: the learner is given them again.
    """
    if not draws_for_every_task(part):
        write_rows(folder / FILE, tasks)


def write_rows(path: Path, tasks: Sequence[Task]) -> None:
    """Write training rows of tasks as `write` does; nothing if there are none."""
    lines: list[dict[str, Any]] = []
    for task in tasks:
        card = {"name": task.name, "labels": list(task.labels), "instruction": task.instruction, "form": task.form}
        card |= {key: value for key in ("shared_labels", "prompt_limit") if (value := getattr(task, key)) is not None}
        lines.append({"task": card})
        for row in task.train:
            also = {"also": list(row.also)} if row.also else {}
            lines.append({"input": _plain(row.input), "target": row.target, **also})
    if lines:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")


def read(folder: Path, part: Rehearsal | None, tasks: Sequence[Task]) -> list[Task]:
    """Read the rows that were stored of a committed stage, of ``tasks``.

    Raises:
        FolderError: the file is damaged.
    """
    return list(tasks) if draws_for_every_task(part) else read_rows(folder / FILE)


def read_rows(path: Path) -> list[Task]:
    """Read what `write_rows` wrote; nothing where there is no file.

    Raises:
        FolderError: the file is damaged.
    """
    if not path.exists():
        return []
    found: list[tuple[dict[str, Any], list[Example]]] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            if "task" in content:
                found.append((content["task"], []))
            else:
                found[-1][1].append(
                    Example(_restored(content["input"]), content["target"], tuple(content.get("also", ())))
                )
        return [Task(**{**card, "labels": tuple(card["labels"])}, train=rows, test=rows[:1]) for card, rows in found]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise FolderError(f"{path} is damaged; restore it from a copy") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"pixels": base64.b64encode(value.tobytes()).decode(), "shape": list(value.shape)}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and "pixels" in value:
        # A copy: an array over bytes is read-only, and torch shares memory with arrays that it is given.
        return np.frombuffer(base64.b64decode(value["pixels"]), np.uint8).reshape(value["shape"]).copy()
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return len((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode())
