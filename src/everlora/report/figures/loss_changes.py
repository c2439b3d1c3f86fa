"""Draws how the losses of stored rows of earlier tasks change, with and without a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import find
from everlora.analysis.recorded import recorded
from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text


@figure(
    "loss-changes",
    paper="ELLA",
    where="Histogram of prediction loss changes, on stored rows",
    title="Loss changes of earlier tasks",
    needs='runs that look at stored rows: a budget with probes, as "kfac(lam=budget(nats=1e-3, probes=8))"',
    single_run=True,
)
def loss_changes(paths: Sequence[Path]) -> Figure:
    """Draw a histogram of how the loss of every stored row of earlier tasks changed with each later task."""
    rows: list[charts.Row] = []
    for path in find(paths):
        run = recorded(path)
        before: dict[str, list[float]] = {}
        for stage in run.stages:
            if stage.facts.probed is None:
                continue
            now = stage.facts.probed.losses
            for task, losses in now.items():
                changes = zip(losses, before.get(task, []), strict=False)
                rows += [{"method": run.method, "task": task, "change": a - b} for a, b in changes]
            before |= now
    if not rows:
        raise ConfigError(
            "no run has looked at stored rows of earlier tasks; make one whose budget has probes: "
            '"kfac(lam=budget(nats=1e-3, probes=8))"'
        )
    alt = charts.alt()
    on_top = alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top", labelLimit=440)
    names = list(dict.fromkeys(str(row["method"]) for row in rows))
    drawn = alt.Chart(charts.data(rows)).mark_bar(opacity=0.9, color=charts.HUES[0]).encode(
        x=alt.X("change:Q", bin=alt.Bin(maxbins=40), title="change of a row's loss, nats"),
        y=alt.Y("count():Q", title="rows"),
        row=alt.Row("method:N", sort=names, title=None, header=on_top),
    ).properties(width=460, height=140)  # fmt: skip
    numbers = [[text(str(r["method"])), text(str(r["task"])), Cell(number(float(str(r["change"]))))] for r in rows]
    return Figure(
        "loss-changes",
        "Loss changes of earlier tasks",
        charts.svg(drawn, "Histogram of loss changes of stored rows of earlier tasks"),
        "Every stored row of an earlier task counts once for each later task; left of zero it has become more likely.",
        Table(["method", "task", "change"], numbers),
    )
