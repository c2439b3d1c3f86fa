"""Runs a model once on a few rows before anything is learned, so that one that fails on them is refused in a line."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from everlora.core.errors import EverloraError, ModelError
from everlora.data.task import Example, Task
from everlora.models.families.heads import evaluating
from everlora.models.loading import Loaded
from everlora.runtime.seeds import seeded

OURS = Path(__file__).parents[1]


def check_runs(base: Loaded, model: nn.Module, tasks: Sequence[Task]) -> None:
    """Refuse a model that fails on the shortest or the longest row of a task, in this precision and on this device.

    Args:
        base: how rows are read.
        model: as it is loaded, or with an adapter.
        tasks: whose rows are read.

    Raises:
        ModelError: it fails inside the code of a library; the message has its reason and what to try.
    """
    family = base.family
    for task in tasks:
        rows = sorted((*task.train, *task.test), key=_size)
        for batch in ([rows[0]], [rows[0], rows[-1]]):
            try:
                with evaluating(model), torch.no_grad(), seeded(0):
                    family.try_out(model, task, batch)
            except EverloraError:
                raise
            except Exception as error:
                if not _is_a_librarys(error):
                    raise
                raise ModelError(_refusal(base, task, error)) from error
    family.truncated = 0


def _size(row: Example) -> int:
    return 0 if not isinstance(row.input, str | list) else len(str(row.input))


def _is_a_librarys(error: Exception) -> bool:
    """Return whether an error was raised by code that is not ours, and is no lack of memory."""
    frames = traceback.extract_tb(error.__traceback__)
    full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
    return not full and not Path(frames[-1].filename).is_relative_to(OURS)


def _refusal(base: Loaded, task: Task, error: Exception) -> str:
    weights = base.precision.describe()["weights"]
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    cure = "choose another model" if weights == "float32" else "pass --dtype float32, or choose another model"
    return (
        f"the model {base.name!r} fails on rows of task {task.name!r} with {weights} weights, inside its own code: "
        f"{reason}; {cure}"
    )
