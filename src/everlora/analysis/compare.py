"""Compares methods: means over seeds, bootstrap intervals, and what cannot be told apart. Pure functions.

What was answered on one run is a matrix of rows: ``answers[i, j]`` holds, for every test row of task j, what it adds
to the task's score after stage i: 1 or 0 where answers are right or wrong, a share of 1 where the task's metric is
another (ROUGE-L, SARI …). Every metric of `everlora.metrics.scores` is a function of the means of its cells.

    resample b:  runs s_1 … s_S drawn with replacement from the S that there are (seeds x orders),
                 rows of each task drawn with replacement, n_j of n_j
    θ_b        = (1/S) Σ_k metric(answers of run s_k, means over the drawn rows)
    interval   = the middle 95 % of θ_b, widened to θ where it misses it

All runs answer the same test rows, so the rows are drawn once per resample for all of them; and the same draw serves
every metric and every method, so that the difference between two methods is paired row by row, and run by run over the
orders and seeds that both have. The maximum in the forgetting measure is biased upwards by noise, which is why an
interval may miss its point. With few runs the interval is too short rather than too long: S runs drawn from S show
(S−1)/S of their variance.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everlora.core.errors import ConfigError

Marks = NDArray[np.floating]
"""Of one cell: what each row adds to the score, whose mean is the score as a share of 1; (n,)."""
Draws = NDArray[np.float64]
Unit = tuple[str, int]
"""Order and seed."""
METRICS = ("oa", "bwt", "forgetting", "learning_accuracy")
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RunAnswers:
    """Holds what one run answered.

    Attributes:
        seed: the run's seed.
        tasks: names, in the order of learning.
        cells: marks of the rows, by stage and task, both counted from 0.
        order: the order of the tasks, where runs differ in it.
    """

    seed: int
    tasks: tuple[str, ...]
    cells: Mapping[tuple[int, int], Marks]
    order: str = ""

    @property
    def unit(self) -> Unit:
        """Return what pairs it with a run of another method."""
        return self.order, self.seed

    def sizes(self) -> dict[str, int]:
        """Return the number of rows that were answered, by task; it is the same at every stage."""
        return {self.tasks[j]: len(rows) for (_, j), rows in self.cells.items()}


@dataclass(frozen=True)
class Interval:
    """Holds a mean and the interval around it, in percent."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """Holds a method's metrics over its runs, with the resamples from which differences are made.

    Attributes:
        units: order and seed of each run, in increasing order.
        means: by metric; None where a cell that it needs was not measured.
        draws: the same of every resample, (B,).
        each, drawn: the same run by run, (S,) and (S, B).
        seed: of the resamples.
    """

    units: tuple[Unit, ...]
    means: Mapping[str, float | None]
    draws: Mapping[str, Draws]
    each: Mapping[str, Draws]
    drawn: Mapping[str, Draws]
    seed: int

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds among the runs, in increasing order."""
        return tuple(sorted({seed for _, seed in self.units}))

    def interval(self, metric: str, confidence: float = CONFIDENCE) -> Interval | None:
        """Return the interval of a metric; None where it is undefined."""
        mean = self.means[metric]
        return None if mean is None else _around(mean, self.draws[metric], confidence)


def estimate(runs: Sequence[RunAnswers], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the metrics of one method from its runs over seeds and orders, whose sequence changes nothing.

    Raises:
        ConfigError: no run, one seed twice in an order, or other tasks or numbers of rows.
    """
    # Sorted, since resamples go by place: the same runs named in another order must give the same interval.
    runs = sorted(runs, key=lambda run: run.unit)
    units = tuple(run.unit for run in runs)
    if not runs or len(set(units)) < len(units):
        named = ", ".join(" ".join(map(str, filter(None, (order, str(seed))))) for order, seed in units)
        raise ConfigError(f"one run per seed is needed in each order (got seeds {named or 'of no run'})")
    firsts = {run.order: run for run in reversed(runs)}
    for run in runs:
        first = firsts[run.order]
        same = run.tasks == first.tasks and run.cells.keys() == first.cells.keys()
        if not same or run.sizes() != runs[0].sizes() or set(run.tasks) != set(runs[0].tasks):
            raise ConfigError("runs over seeds must answer the same rows of the same tasks at the same stages")
    # One draw of rows for all runs: they answer the same test rows, whose difficulty is common to them.
    weights = {task: _drawn_rows(task, rows, resamples, seed) for task, rows in runs[0].sizes().items()}
    means: dict[str, float | None] = {}
    draws: dict[str, Draws] = {}
    each: dict[str, Draws] = {}
    drawn: dict[str, Draws] = {}
    points = [{cell: np.array([100.0 * marks.mean(dtype=float)]) for cell, marks in run.cells.items()} for run in runs]
    resampled = [
        {cell: _resampled(marks, weights[run.tasks[cell[1]]]) for cell, marks in run.cells.items()} for run in runs
    ]
    for metric in METRICS:
        values = [_metric(metric, one, len(run.tasks)) for one, run in zip(points, runs, strict=True)]
        known = [value for value in values if value is not None]
        if len(known) < len(runs):
            means[metric] = None
            draws[metric] = each[metric] = drawn[metric] = np.empty(0)
            continue
        all_draws = [_metric(metric, one, len(run.tasks)) for one, run in zip(resampled, runs, strict=True)]
        each[metric] = np.concatenate(known)
        drawn[metric] = np.stack([one for one in all_draws if one is not None])
        means[metric] = float(each[metric].mean())
        draws[metric] = (_drawn_runs(units, resamples, seed) * drawn[metric]).sum(0) / len(units)
    return Estimate(units, means, draws, each, drawn, seed)


@dataclass(frozen=True)
class Difference:
    """Holds the paired difference of a metric between two methods.

    Attributes:
        interval: mean and interval over the runs that both have.
        units: order and seed of each of these runs.
        each: run by run, (S,).
        rows: the mean over runs under resampled test rows alone, (B,).
    """

    interval: Interval
    units: tuple[Unit, ...]
    each: Draws
    rows: Draws


def gap(one: Estimate, other: Estimate, metric: str = "oa", confidence: float = CONFIDENCE) -> Difference | None:
    """Return the paired difference over common seeds and orders; None where it is undefined or none is common."""
    units = sorted(set(one.units) & set(other.units))
    if not units or one.means[metric] is None or other.means[metric] is None:
        return None
    one_index, other_index = ([found.units.index(unit) for unit in units] for found in (one, other))
    each = one.each[metric][one_index] - other.each[metric][other_index]
    drawn = one.drawn[metric][one_index] - other.drawn[metric][other_index]
    draws = (_drawn_runs(units, drawn.shape[1], one.seed) * drawn).sum(0) / len(units)
    return Difference(_around(float(each.mean()), draws, confidence), tuple(units), each, drawn.mean(0))


def _resampled(marks: Marks, weights: Marks) -> Draws:
    """Return the percentage in every resample, (B,); whole numbers below 2^24 in fp32 (exact), others in fp64."""
    kind = np.float32 if np.array_equal(marks, marks.round()) else np.float64
    values: Draws = 100.0 * (marks.astype(kind) @ weights.astype(kind, copy=False)).astype(float) / len(marks)
    return values


def _around(mean: float, draws: Draws, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = (float(value) for value in np.quantile(draws, [tail, 1 - tail]))
    # With few runs the quantiles may miss the mean itself.
    return Interval(mean, min(low, mean), max(high, mean))


def _drawn_runs(units: Sequence[Unit], resamples: int, seed: int) -> Draws:
    """Return how often each run is drawn, (S, B); one draw for all methods of the same seeds and orders."""
    named = [zlib.crc32(order.encode()) if order else 0 for order, _ in units]
    random = np.random.default_rng([seed, *named, *(abs(s) for _, s in units)])
    picks = random.integers(len(units), size=(resamples, len(units)))
    return np.stack([(picks == k).sum(1) for k in range(len(units))]).astype(float)


def _drawn_rows(task: str, rows: int, resamples: int, seed: int) -> Marks:
    """Return how often each row is drawn, (n, B); one draw for all methods that answer the task."""
    # From the task's name and size alone, so that every method is resampled on the same rows and differences are
    # paired. A checksum and not `hash`, which differs from process to process.
    random = np.random.default_rng([seed, zlib.crc32(task.encode()), rows])
    picks = random.integers(rows, size=(resamples, rows)) + rows * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * rows).reshape(resamples, rows).T.astype(np.float32)


def _metric(name: str, cells: Mapping[tuple[int, int], Draws], tasks: int) -> Draws | None:
    """Return one metric per seed, (S,), or per seed and resample, (S, B); as in `everlora.metrics.scores`."""
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
