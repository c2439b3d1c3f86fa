"""Rows of earlier tasks that are kept in the run folder, to be learned again beside those of a new task."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from everlora.core.errors import FolderError
from everlora.core.roles import Rehearsal
from everlora.core.task import Example, Task
from everlora.engine.seeds import seed_for

FILE = "rehearsal.jsonl"


def chosen(part: Rehearsal, task: Task, seed: int) -> Task | None:
    """The rows of a finished task that the part keeps, as a task; None if it keeps none. Test rows are never kept."""
    draw = random.Random(seed_for(seed, task.name, part.name))
    rows = [task.train[k] for k in sorted(part.choose([row.target for row in task.train], draw))]
    return replace(task, train=rows, test=rows[:1], dev=()) if rows else None


def write(folder: Path, tasks: Sequence[Task]) -> None:
    """Write kept rows, a line for each, behind a line for what their task is; nothing if there are none."""
    lines: list[dict[str, Any]] = []
    for task in tasks:
        about = {"name": task.name, "labels": list(task.labels), "instruction": task.instruction, "form": task.form}
        lines.append({"task": about})
        lines += [{"input": _plain(row.input), "target": row.target} for row in task.train]
    if lines:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> list[Task]:
    """Read the rows that were kept of a committed stage.

    Raises:
        FolderError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    found: list[tuple[dict[str, Any], list[Example]]] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            if "task" in content:
                found.append((content["task"], []))
            else:
                found[-1][1].append(Example(_restored(content["input"]), content["target"]))
        return [
            Task(**{**about, "labels": tuple(about["labels"])}, train=rows, test=rows[:1]) for about, rows in found
        ]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise FolderError(f"{path} is damaged; restore it from a copy") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"pixels": base64.b64encode(value.tobytes()).decode(), "shape": list(value.shape)}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and "pixels" in value:
        return np.frombuffer(base64.b64decode(value["pixels"]), np.uint8).reshape(value["shape"])
    return value
