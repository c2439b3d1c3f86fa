"""Reads test rows alone, of a task that was learned from rows which need not be here any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from everlora.core.errors import DataError
from everlora.data.files import TaskFile, split_table
from everlora.data.task import Example
from everlora.data.tasks import build_task


def load_test(entry: TaskFile, labels: Sequence[str]) -> Sequence[Example]:
    """Load the rows of one file, the ``test`` of an entry, as test rows of a task with these labels.

    Raises:
        DataError: the file or a row cannot be used.
    """
    table = split_table(str(entry.test), Path(str(entry.test)), "test", entry)
    task = build_task(
        entry.name, {"train": table, "test": table}, labels=labels or None, columns=entry.columns, overlap="allow"
    )
    return task.test


def entry_of(**fields: Any) -> TaskFile:
    """Make an entry of what a command line says of a task's files.

    Raises:
        DataError: it cannot be used.
    """
    try:
        return TaskFile(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise DataError(f"{where.replace('_', '-')}: {why} (got {first['input']!r})") from None
