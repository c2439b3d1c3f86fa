"""Reads what finished runs cost: time of training and answering, and what they keep for the next task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from everlora.archive.commits import StageFacts
from everlora.archive.committed import Committed, read_stages
from everlora.archive.folder import read_matrix, read_run
from everlora.archive.records import Seconds


@dataclass(frozen=True)
class Cost:
    """Holds what runs cost, as means over them.

    Attributes:
        train, evaluate: seconds per task.
        memory_bytes: at the end, what the next task needs of all earlier ones.
        stored_rows: rows of data among it.
        trained: numbers that are trained for one task.
        epoch: seconds of one pass over a task's rows; None where nobody knows how many there were.
        peak_bytes: most memory that training took, of the device or else of the process; None of older runs.
        step: seconds of a training step, with all that a task does around its steps.
    """

    train: float
    evaluate: float
    memory_bytes: float
    stored_rows: float
    trained: float
    epoch: float | None = None
    peak_bytes: float | None = None
    step: float | None = None


def mean_cost(folders: Sequence[Path]) -> Cost:
    """Read what the runs in ``folders`` cost on average.

    Raises:
        FolderError: one of them is damaged.
    """
    return mean_of([_cost(folder) for folder in folders])


def mean_of(costs: Sequence[Cost]) -> Cost:
    """Return the mean of several costs; what one of them does not know stays unknown.

    >>> one, other = Cost(1, 1, 0, 0, 8, 0.5), Cost(3, 1, 0, 0, 8)
    >>> mean_of([one, other]).train, mean_of([one, other]).epoch
    (2.0, None)
    """
    return Cost(
        train=fmean(cost.train for cost in costs),
        evaluate=fmean(cost.evaluate for cost in costs),
        memory_bytes=fmean(cost.memory_bytes for cost in costs),
        stored_rows=fmean(cost.stored_rows for cost in costs),
        trained=fmean(cost.trained for cost in costs),
        epoch=_known_mean([cost.epoch for cost in costs]),
        peak_bytes=_known_mean([cost.peak_bytes for cost in costs]),
        step=_known_mean([cost.step for cost in costs]),
    )


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _cost(folder: Path) -> Cost:
    results, committed = read_matrix(folder), read_stages(folder, hashes=False)
    stages, steps = [stage.facts for stage in committed], sum(map(trained_steps, committed))
    seconds = [stage.seconds for stage in stages]
    train = sum(one.train for one in seconds if isinstance(one, Seconds))
    evaluate = sum(one.evaluate if isinstance(one, Seconds) else one for one in seconds)
    tasks = max(1, len(results.tasks))
    epochs = [_epochs(stage, read_run(folder).settings.train) for stage in stages]
    peaks = [stage.peak_bytes for stage in stages if stage.peak_bytes is not None]
    return Cost(
        train=train / tasks,
        evaluate=evaluate / tasks,
        memory_bytes=results.memory_bytes,
        stored_rows=results.stored_rows,
        trained=results.adapter_elements,
        epoch=None if None in epochs or not sum(filter(None, epochs)) else train / sum(filter(None, epochs)),
        peak_bytes=max(peaks) if len(peaks) == len(stages) and peaks else None,
        step=train / steps if steps else None,
    )


def trained_steps(stage: Committed) -> int:
    """Return how many steps a stage was trained for, as far as they were logged."""
    log = stage.path / "training.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return int(json.loads(lines[-1]).get("step", 0)) if lines else 0


def _epochs(facts: StageFacts, train: Mapping[str, object]) -> float | None:
    """Return how often a stage has seen its rows; None where steps were counted instead."""
    given = train.get("num_train_epochs")
    if facts.epochs is not None:
        return float(facts.epochs)
    steps = train.get("max_steps")
    return float(given) if isinstance(given, int | float) and not (isinstance(steps, int) and steps > 0) else None
