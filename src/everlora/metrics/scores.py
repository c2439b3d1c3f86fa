"""Holds the accuracy matrix and computes what is derived from it: pure arithmetic, percent in, percent out.

``a[i][j]`` is the test score of task j after training on task i (both counted from 0 here, from 1 in formulas), or
None where nothing was measured. A number that needs a missing cell is None: undefined stays undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.core.notebook import Heat, html_table

if TYPE_CHECKING:
    import altair
    import pandas

Cell = float | None
SHOWN = 6
"""Tasks that are named before the rest is left out."""


@dataclass(frozen=True, repr=False)
class ScoreMatrix:
    """Holds scores of T tasks after each of T stages.

    >>> matrix = ScoreMatrix.empty(["news", "reviews"], counts=[100, 300])
    >>> matrix = matrix.with_row(0, [90.0, None]).with_row(1, [80.0, 70.0])
    >>> matrix.diagonal, matrix.final
    ((90.0, 70.0), (80.0, 70.0))
    >>> overall_accuracy(matrix), backward_transfer(matrix)
    (75.0, -10.0)

    Attributes:
        tasks: names, in the order of learning.
        counts: number of test rows per task, for the sample-weighted average.
        cells: T rows of T cells.
    """

    tasks: tuple[str, ...]
    counts: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        size = len(self.tasks)
        if len(self.counts) != size or len(self.cells) != size or any(len(row) != size for row in self.cells):
            raise ValueError(f"a matrix of {size} tasks needs {size} counts and {size} x {size} cells")

    @classmethod
    def empty(cls, tasks: Sequence[str], counts: Sequence[int]) -> ScoreMatrix:
        """Make a matrix in which nothing has been measured."""
        return cls(tuple(tasks), tuple(counts), ((None,) * len(tasks),) * len(tasks))

    def with_row(self, stage: int, scores: Sequence[Cell]) -> ScoreMatrix:
        """Return the same matrix with row ``stage`` filled."""
        cells = list(self.cells)
        cells[stage] = tuple(scores)
        return ScoreMatrix(self.tasks, self.counts, tuple(cells))

    def __repr__(self) -> str:
        scores = {"OA": overall_accuracy(self), "BWT": backward_transfer(self)}
        known = ", ".join(f"{name} {score:.1f}" for name, score in scores.items() if score is not None)
        names = ", ".join(self.tasks[:SHOWN]) + (", …" if len(self.tasks) > SHOWN else "")
        return f"ScoreMatrix({len(self.tasks)} tasks: {names}{'; ' + known if known else ''})"

    def _repr_html_(self) -> str:
        rows: list[list[str | Heat]] = [
            [f"{k} {name}", *("" if cell is None else Heat(f"{cell:.1f}", cell / 100) for cell in row)]
            for k, (name, row) in enumerate(zip(self.tasks, self.cells, strict=True), start=1)
        ]
        return html_table("percent right after learning each task", ["after", *self.tasks], rows, repr(self))

    def to_pandas(self) -> pandas.DataFrame:
        """Return the scores as a table of pandas: a row for each stage, a column for each task.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            from pandas import DataFrame, Index
        except ImportError:
            raise ConfigError("to_pandas needs pandas; install it") from None
        stages = Index(self.tasks, name="after")
        return DataFrame(self.cells, index=stages, columns=list(self.tasks), dtype=float)

    def plot(self) -> altair.Chart:
        """Draw the scores as a heat map, for a notebook to show.

        Raises:
            ConfigError: Vega-Altair is not installed.
        """
        try:
            import altair
        except ImportError:
            raise ConfigError("plot needs everlora[report] (pip install 'everlora[report]')") from None
        cells = [
            {"after": after, "task": task, "score": score}
            for after, row in zip(self.tasks, self.cells, strict=True)
            for task, score in zip(self.tasks, row, strict=True)
            if score is not None
        ]
        base = altair.Chart(altair.Data(values=cells)).encode(
            x=altair.X("task:N", sort=list(self.tasks), title="score of"),
            y=altair.Y("after:N", sort=list(self.tasks), title="after learning"),
        )
        scale = altair.Scale(domain=[0, 100], range=["#eef3f7", "#2f6f9f"])
        grounds = base.mark_rect().encode(color=altair.Color("score:Q", scale=scale, legend=None))
        chart: altair.Chart = grounds + base.mark_text().encode(text=altair.Text("score:Q", format=".1f"))
        return chart.properties(width=altair.Step(56), height=altair.Step(28))

    @property
    def final(self) -> tuple[Cell, ...]:
        """Return the last row."""
        return self.cells[-1]

    @property
    def diagonal(self) -> tuple[Cell, ...]:
        """Return a[j][j]: each task right after it was learned."""
        return tuple(row[j] for j, row in enumerate(self.cells))


def mean(values: Sequence[Cell], weights: Sequence[float] | None = None) -> Cell:
    """Return the mean, weighted if weights are given; None of nothing, or where a value is None."""
    if not values or any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    weights = weights or [1.0] * len(known)
    return sum(w * v for w, v in zip(weights, known, strict=True)) / sum(weights)


def minus(a: Cell, b: Cell) -> Cell:
    """Return a − b; None where one of them is."""
    return None if a is None or b is None else a - b


def overall_accuracy(m: ScoreMatrix) -> Cell:
    """Return OA = AA = (1/T) Σ_j a[T][j], every task counting the same (ELLA, Evaluations; macro)."""
    return mean(m.final)


def weighted_accuracy(m: ScoreMatrix) -> Cell:
    """Return Σ_j n_j a[T][j] / Σ_j n_j, every test row counting the same, as O-LoRA's code prints."""
    return mean(m.final, m.counts)


def backward_transfer(m: ScoreMatrix) -> Cell:
    """Return BWT = (1/(T−1)) Σ_{j<T} (a[T][j] − a[j][j]) (Lopez-Paz and Ranzato 2017, eq. 3; ELLA)."""
    return mean([minus(m.final[j], m.cells[j][j]) for j in range(len(m.tasks) - 1)])


def forgetting(m: ScoreMatrix) -> Cell:
    """Return FM = (1/(T−1)) Σ_{j<T} (max_{j≤l<T} a[l][j] − a[T][j]) (Chaudhry et al. 2018, eq. 3)."""
    drops = []
    for j in range(len(m.tasks) - 1):
        column = [m.cells[stage][j] for stage in range(j, len(m.tasks) - 1)]
        best = None if any(c is None for c in column) else max(c for c in column if c is not None)
        drops.append(minus(best, m.final[j]))
    return mean(drops)


def learning_accuracy(m: ScoreMatrix) -> Cell:
    """Return LA = (1/T) Σ_j a[j][j]: how well each task was learned in its turn (Riemer et al. 2019)."""
    return mean(m.diagonal)


# What every run writes into its matrix.json; all that can be made of one is in `everlora.metrics.matrix`.
METRICS = {
    "oa": overall_accuracy,
    "oa_weighted": weighted_accuracy,
    "bwt": backward_transfer,
    "forgetting": forgetting,
    "learning_accuracy": learning_accuracy,
}


def metrics(m: ScoreMatrix) -> dict[str, Cell]:
    """Return all metrics of a matrix, by id."""
    return {name: formula(m) for name, formula in METRICS.items()}
