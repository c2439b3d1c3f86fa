"""Methods side by side: means over seeds, bootstrap intervals, and what cannot be told apart. Pure functions.

What was answered on one run is a matrix of rows: ``answers[i, j]`` holds, for every test row of task j, whether it
was answered correctly after stage i. Every metric of `everlora.core.scores` is a function of the means of its cells.

    resample b:  seeds s_1 … s_S drawn with replacement from the S that were run,
                 rows of each task drawn with replacement, n_j of n_j
    θ_b        = (1/S) Σ_k metric(answers of seed s_k, means over the drawn rows)
    interval   = the middle 95 % of θ_b, widened to θ where it misses it

All seeds of a method answer the same test rows, so the rows are drawn once per resample for all of them; and the same
draw serves every metric and every method, so that the difference between two methods is paired row by row, and seed by
seed where they ran the same seeds. The maximum in the forgetting measure is biased upwards by noise, which is why an
interval may miss its point. With few seeds the interval is too short rather than too long: S seeds drawn from S show
(S−1)/S of their variance.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everlora.core.errors import ConfigError

Hits = NDArray[np.float32]
"""Of one cell: 1 for every row that was answered correctly, else 0; (n,)."""
Draws = NDArray[np.float64]
METRICS = ("oa", "bwt", "forgetting", "learning_accuracy")
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answers:
    """What one run answered.

    Attributes:
        seed: the run's seed.
        tasks: names, in the order of learning.
        cells: rows answered correctly, by stage and task, both counted from 0.
    """

    seed: int
    tasks: tuple[str, ...]
    cells: Mapping[tuple[int, int], Hits]


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it, in percent."""

    mean: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A method's metrics over its seeds, with the resamples from which differences are made.

    Attributes:
        seeds: in increasing order.
        means: by metric; None where a cell that it needs was not measured.
        draws: the same of every resample, (B,).
    """

    seeds: tuple[int, ...]
    means: Mapping[str, float | None]
    draws: Mapping[str, Draws]

    def interval(self, metric: str, confidence: float = CONFIDENCE) -> Interval | None:
        """The interval of a metric; None where it is undefined."""
        mean = self.means[metric]
        return None if mean is None else _around(mean, self.draws[metric], confidence)


def estimate(runs: Sequence[Answers], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Metrics of one method from its runs over seeds, whose order changes nothing.

    Raises:
        ConfigError: no run, one seed twice, or other tasks or numbers of rows.
    """
    runs = sorted(runs, key=lambda run: run.seed)
    seeds = tuple(run.seed for run in runs)
    if not runs or len(set(seeds)) < len(seeds):
        raise ConfigError(f"one run per seed is needed (got seeds {', '.join(map(str, seeds)) or 'of no run'})")
    first = runs[0]
    for run in runs[1:]:
        if run.tasks != first.tasks or {k: len(v) for k, v in run.cells.items()} != {
            k: len(v) for k, v in first.cells.items()
        }:
            raise ConfigError("runs over seeds must answer the same rows of the same tasks at the same stages")
    counts = _drawn_seeds(seeds, resamples, seed)
    points = {cell: np.array([100.0 * run.cells[cell].mean(dtype=float) for run in runs]) for cell in first.cells}
    drawn: dict[tuple[int, int], Draws] = {}
    for j, task in enumerate(first.tasks):
        column = [cell for cell in first.cells if cell[1] == j]
        if column:
            rows = len(first.cells[column[0]])
            weights = _drawn_rows(task, rows, resamples, seed)
            for cell in column:
                # Counts and their sums are whole numbers below 2^24: exact in fp32, whatever the order of summation.
                hits = np.stack([run.cells[cell] for run in runs])
                drawn[cell] = 100.0 * (hits @ weights).astype(float) / rows
    means, draws = {}, {}
    for metric in METRICS:
        value, values = _metric(metric, points, len(first.tasks)), _metric(metric, drawn, len(first.tasks))
        means[metric] = None if value is None else float(value.mean())
        draws[metric] = np.empty(0) if values is None else (counts * values).sum(0) / len(seeds)
    return Estimate(seeds, means, draws)


def difference(one: Estimate, other: Estimate, metric: str = "oa", confidence: float = CONFIDENCE) -> Interval | None:
    """The paired difference of a metric between two methods that answered the same rows; None where undefined."""
    a, b = one.means[metric], other.means[metric]
    if a is None or b is None:
        return None
    return _around(a - b, one.draws[metric] - other.draws[metric], confidence)


def _around(mean: float, draws: Draws, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = (float(value) for value in np.quantile(draws, [tail, 1 - tail]))
    return Interval(mean, min(low, mean), max(high, mean))


def _drawn_seeds(seeds: Sequence[int], resamples: int, seed: int) -> Draws:
    """How often each seed is drawn, (S, B); the same for every method that ran the same seeds."""
    random = np.random.default_rng([seed, *(abs(s) for s in seeds)])
    picks = random.integers(len(seeds), size=(resamples, len(seeds)))
    return np.stack([(picks == k).sum(1) for k in range(len(seeds))]).astype(float)


def _drawn_rows(task: str, rows: int, resamples: int, seed: int) -> Hits:
    """How often each row is drawn, (n, B); the same for every method that answers the task."""
    random = np.random.default_rng([seed, zlib.crc32(task.encode()), rows])
    picks = random.integers(rows, size=(resamples, rows)) + rows * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * rows).reshape(resamples, rows).T.astype(np.float32)


def _metric(name: str, cells: Mapping[tuple[int, int], Draws], tasks: int) -> Draws | None:
    """One metric per seed, (S,), or per seed and resample, (S, B); as in `everlora.core.scores`."""
    last = tasks - 1
    final = [cells.get((last, j)) for j in range(tasks)]
    diagonal = [cells.get((j, j)) for j in range(tasks)]
    if name == "oa":
        return _mean(final)
    if name == "learning_accuracy":
        return _mean(diagonal)
    if name == "bwt":
        return _mean([_minus(a, b) for a, b in zip(final[:last], diagonal[:last], strict=True)])
    drops = []
    for j in range(last):
        column = [cells.get((i, j)) for i in range(j, last)]
        known = [cell for cell in column if cell is not None]
        drops.append(_minus(np.maximum.reduce(known), final[j]) if len(known) == len(column) else None)
    return _mean(drops)


def _mean(values: Sequence[Draws | None]) -> Draws | None:
    known = [value for value in values if value is not None]
    return np.mean(known, axis=0) if known and len(known) == len(values) else None


def _minus(a: Draws | None, b: Draws | None) -> Draws | None:
    return None if a is None or b is None else a - b
