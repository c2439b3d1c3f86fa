"""Scores of tasks that were each learned alone, read from a run that did so: the reference of intransigence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everlora.archive.folder import identified, stages
from everlora.core.errors import FolderError
from everlora.data.task import Task

SAME = ("model", "revision", "max_source_length", "prompt")


def single_task_reference(path: Path, settings: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, float]:
    """By task its score right after it was learned, in a run whose method learns every task by itself (per-task).

    Args:
        path: the run folder.
        settings: of the run that is to be compared; model, prompt and scoring must be the same.
        tasks: with the same rows.

    Raises:
        FolderError: no such run, of other settings, or without one of the tasks.
    """
    facts, done = identified(path), stages(path)
    adapter = facts["composition"]
    if adapter["consolidator"] != "keep" or adapter["name"] != "per-task":
        raise FolderError(f"{path} learned with {adapter['name']!r}; --single needs a run with per-task")
    there = facts["settings"]
    for key in SAME:
        if there.get(key) != settings.get(key):
            raise FolderError(f"{path} has {key} {there.get(key)!r}, this run {settings.get(key)!r}")
    for key in ("scoring", "split"):
        if there["evaluation"].get(key) != settings["evaluation"][key]:
            raise FolderError(f"{path} has {key} {there['evaluation'].get(key)!r}, this run another")
    names = json.loads((path / "matrix.json").read_text(encoding="utf-8"))["tasks"] if done else []
    found: dict[str, float] = {}
    for task in tasks:
        stage = next((stage for stage in done if stage.facts["data"].get(task.name) == task.digest()), None)
        if stage is None:
            raise FolderError(f"{path} did not learn task {task.name!r}, or from other rows")
        found[task.name] = stage.facts["row"][names.index(task.name)]
    return found
