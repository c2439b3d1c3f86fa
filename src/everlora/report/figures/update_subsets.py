"""Draws what the small entries of an update do: those along the past, and those against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import points
from everlora.report.page import Cell, Figure, Table, text

if TYPE_CHECKING:
    import altair
    from torch import nn

    from everlora.data.task import Task
    from everlora.learner.reopened import Reopened

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST_ROWS = 64
"""Test rows of each task that are answered for each part of the update."""


@figure(
    "update-subsets",
    paper="PS-LoRA",
    where="Figure 2: subsets of the bottom-k % of ΔW_t, of the same sign and of the opposite one",
    title="What small entries of an update do",
    needs="a run with LoRA adapters, of a benchmark, without a trained head; its model is loaded",
    reads="model",
)
def update_subsets(paths: Sequence[Path]) -> Figure:
    """Draw accuracy with parts of the last task's update: its k % smallest entries, by their sign to the past's."""
    from everlora.analysis.answers import find

    rows = [row for path in find(paths) for row in _measured(path)]
    numbers = [
        [text(str(r["method"])), text(str(r["sign"])), Cell(f"{r['share']:.0%}".replace("%", " %")),
         text(str(r["of"])), Cell(points(float(str(r["score"]))))]
        for r in rows
    ]  # fmt: skip
    return Figure(
        "update-subsets",
        "What small entries of an update do",
        charts.svg(_drawn(rows), "Accuracy with the smallest entries of the last update, by their sign"),
        "Of the last task's update only its k % smallest entries act, and of these only such as have the sign of the "
        f"sum of the earlier updates, or the opposite one; the earlier updates are there in full. {MOST_ROWS} test "
        "rows of each task.",
        Table(["method", "sign", "smallest", "of", "percent right"], numbers),
    )


def _measured(path: Path) -> list[charts.Row]:
    from everlora.analysis.update_subsets import subset
    from everlora.learner.reopened import reopen

    run = reopen(path, answers=True)
    last = run.stages[-1]
    if not len(last.before) or run.learner.method.merge is not None:
        raise ConfigError(f"{path} has no second task, or merges its updates; the figure is of a sum of two or more")
    rows: list[charts.Row] = []
    for sign in ("same", "opposite"):
        for share in SHARES:
            model = run.model_with(last.before.append(subset(last.added, last.before, share, sign)))
            scores = _scores(run, model, [stage.task for stage in run.stages])
            parts = {"earlier tasks": scores[:-1], "the task itself": scores[-1:]}
            rows += [
                {"method": run.method, "sign": f"{sign} sign", "share": share, "of": of, "score": sum(v) / len(v)}
                for of, v in parts.items()
            ]
    return rows


def _scores(run: Reopened, model: nn.Module, tasks: Sequence[Task]) -> list[float]:
    from everlora.evaluation.scoring import score_task

    spec = run.learner.spec.evaluation
    return [
        score_task(model, run.learner.base.family, task.take(evaluate=MOST_ROWS), scoring=spec.scoring,
                   batch_size=spec.batch_size, split=spec.split, progress=lambda _: None).score
        for task in tasks
    ]  # fmt: skip


def _drawn(rows: Sequence[charts.Row]) -> altair.FacetChart:
    alt = charts.alt()
    signs = ["same sign", "opposite sign"]
    colour = alt.Color("sign:N", sort=signs, title=None, scale=alt.Scale(domain=signs))
    base = alt.Chart().encode(
        x=alt.X("share:Q", title="smallest entries that act", axis=alt.Axis(format="%")),
        y=alt.Y("score:Q", title="percent right", scale=alt.Scale(zero=False)),
        color=colour,
    )
    shape = alt.Shape("sign:N", sort=signs, title=None, scale=alt.Scale(domain=signs))
    marks = base.mark_point(filled=True, size=50, opacity=1).encode(shape=shape)
    panel = alt.layer(base.mark_line(), marks, data=charts.data(rows)).properties(width=230, height=190)
    made: altair.FacetChart = panel.facet(
        column=alt.Column("of:N", title=None), row=alt.Row("method:N", title=None)
    ).resolve_scale(y="independent")
    return made
