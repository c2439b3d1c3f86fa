"""Draws how the losses of test rows of earlier tasks change with each new task, method by method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text

if TYPE_CHECKING:
    import altair

MOST_ROWS = 48
"""Test rows of each task whose loss is taken."""
INNER = 0.98
"""Share of all changes that the drawing spans; the few beyond it stand at its ends."""


@figure(
    "loss-histogram",
    paper="ELLA",
    where="Histogram of prediction loss changes after training on a new task",
    title="Loss changes on old tasks",
    needs="runs of a benchmark with the constraint (ella) and without (inclora), without a trained head; their model "
    "is loaded",
    reads="model",
)
def loss_histogram(paths: Sequence[Path]) -> Figure:
    """Draw a histogram of the change of every earlier row's loss with each task, for every method."""
    from everlora.analysis.answers import find

    rows = [row for path in find(paths) for row in _changes(path)]
    if not rows:
        raise ConfigError("no run has a second task, which could change the loss of the first")
    names = list(dict.fromkeys(str(row["method"]) for row in rows))
    numbers = [
        [text(name), Cell(f"{len(own):,}"), Cell(number(sum(own) / len(own))),
         Cell(number((sum(v * v for v in own) / len(own)) ** 0.5)), Cell(f"{sum(v > 0 for v in own) / len(own):.0%}")]
        for name in names
        if (own := [float(str(row["change"])) for row in rows if row["method"] == name])
    ]  # fmt: skip
    return Figure(
        "loss-histogram",
        "Loss changes on old tasks",
        charts.svg(_drawn(rows, names), "Histogram of loss changes of test rows of earlier tasks, by method"),
        "Every test row of an earlier task counts once for each later task: its loss after that task, less its loss "
        f"before. Narrower is steadier. Up to {MOST_ROWS} rows of each task; what lies beyond an end stands at it.",
        Table(["method", "changes", "mean, nats", "root mean square", "worse"], numbers),
    )


def _changes(path: Path) -> list[charts.Row]:
    """Measure one run, stage by stage."""
    from everlora.learner.reopened import reopen
    from everlora.training.calibration import mean_loss

    run = reopen(path, answers=True)
    family, before = run.learner.base.family, dict[str, list[float]]()
    rows: list[charts.Row] = []
    for k, stage in enumerate(run.stages):
        model = run.model_with(stage.after)
        now = {
            one.task.name: [
                mean_loss(model, family, [(row, one.task)]) for row in one.task.take(evaluate=MOST_ROWS).test
            ]
            for one in run.stages[: k + 1]
        }
        rows += [
            {"method": run.method, "change": new - old}
            for name, losses in before.items()
            for new, old in zip(now[name], losses, strict=True)
        ]
        before = now
    return rows


def _drawn(rows: Sequence[charts.Row], names: Sequence[str]) -> altair.Chart:
    alt = charts.alt()
    ranked = sorted(abs(float(str(row["change"]))) for row in rows)
    end = ranked[int(INNER * (len(ranked) - 1))] or 1.0
    held = [{**row, "change": max(-end, min(end, float(str(row["change"]))))} for row in rows]
    on_top = alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top", labelLimit=440)
    drawn: altair.Chart = alt.Chart(charts.data(held)).mark_bar(opacity=0.9, color=charts.HUES[0]).encode(
        x=alt.X("change:Q", bin=alt.Bin(maxbins=50), title="change of a row's loss, nats"),
        y=alt.Y("count():Q", title="rows"),
        row=alt.Row("method:N", sort=list(names), title=None, header=on_top),
    )  # fmt: skip
    return drawn.properties(width=480, height=110)
