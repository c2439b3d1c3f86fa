"""Loads the tasks of a benchmark from a folder with one folder a task or, where it is there, from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everlora.core.benchmark import Request, TaskInfo
from everlora.core.errors import DataError
from everlora.data.ends import evened
from everlora.data.folders import Kind, read_folder, task_folder
from everlora.data.task import Task
from everlora.data.tasks import build_task


def load(request: Request) -> list[Task]:
    """Load the tasks of a request.

    The benchmark's ``options`` may say ``families: true``, where folders of tasks lie in folders of families, and
    ``any_rows: true``, where rows may be written in other ways than ``rows`` says.

    Raises:
        DataError: the folder or a file is missing, a row is unusable, or the hub is unreachable.
    """
    benchmark = request.benchmark
    if request.data_dir is None:
        if not any(task.hub for task in benchmark.defined.values()):
            raise DataError(
                f"{benchmark.name} is on no hub; give --data-dir its folder, with <task>/train.json and test.json"
            )
        from everlora.benchmarks.standard_hub import hub_task

        return [hub_task(task) for task in request.tasks]
    families = bool(benchmark.options.get("families"))
    # All folders are found before any is read, so that a missing one is reported at once.
    folders = [task_folder(request.data_dir, task.name, families=families) for task in request.tasks]
    kind: Any = None if benchmark.options.get("any_rows") else benchmark.rows
    return [_from_folder(task, folder, kind) for task, folder in zip(request.tasks, folders, strict=True)]


def _from_folder(task: TaskInfo, folder: Path, kind: Kind | None) -> Task:
    found = read_folder(folder, kind)
    built = build_task(
        task.name,
        found.tables,
        labels=found.labels or task.labels,
        instruction=task.instruction or found.definition,
        overlap="error" if found.kind is None else "drop",  # published folders have rows that leak
        metric=task.metric,
        source=str(folder),
        left_out=found.left_out,
    )
    return evened(built) if kind is not None else built
