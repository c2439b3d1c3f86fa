"""Reads what finished runs cost: time of training and answering, and what they keep for the next task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.archive.committed import read_stages
from everlora.archive.folder import read_matrix
from everlora.archive.records import Seconds


@dataclass(frozen=True)
class Cost:
    """Holds what runs cost, as means over them.

    Attributes:
        train, evaluate: seconds per task.
        memory_bytes: at the end, what the next task needs of all earlier ones.
        stored_rows: rows of data among it.
        trained: numbers that are trained for one task.
    """

    train: float
    evaluate: float
    memory_bytes: float
    stored_rows: float
    trained: float


def mean_cost(folders: Sequence[Path]) -> Cost:
    """Read what the runs in ``folders`` cost on average.

    Raises:
        FolderError: one of them is damaged.
    """
    found = [_cost(folder) for folder in folders]
    return Cost(*(sum(values) / len(found) for values in zip(*found, strict=True)))


def _cost(folder: Path) -> tuple[float, float, float, float, float]:
    results = read_matrix(folder)
    seconds = [stage.facts.seconds for stage in read_stages(folder, hashes=False)]
    train = sum(one.train for one in seconds if isinstance(one, Seconds))
    evaluate = sum(one.evaluate if isinstance(one, Seconds) else one for one in seconds)
    tasks = max(1, len(results.tasks))
    kept = (float(results.memory_bytes), float(results.stored_rows), float(results.adapter_elements))
    return train / tasks, evaluate / tasks, *kept
