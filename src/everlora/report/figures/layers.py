"""Draws LB-CL's study of layers: what copying the first task's layers does to both tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.analysis.answers import ScoredRun
from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import points
from everlora.report.page import Cell, Figure, Table, text
from everlora.report.read import compared


@figure(
    "layer-replacement",
    paper="LB-CL",
    where="Simple Layer Replacement Helps: none, top 4, top 9, all layers",
    title="Starting layers of the second task as copies",
    needs="the folder of everlora study-layers",
)
def layer_replacement(paths: Sequence[Path]) -> Figure:
    """Draw the scores of both tasks after the second, by how many upper blocks were copied."""
    _, grouped = compared(paths)
    copied = {label: copies(runs[0]) for label, runs in grouped.items()}
    if len(set(copied.values())) < 2 or any(len(runs[0].answers.tasks) != 2 for runs in grouped.values()):
        raise ConfigError("give runs of two tasks that differ in copied layers: everlora study-layers makes them")
    order = sorted(copied, key=lambda label: (copied[label] == "all", copied[label] != "none", copied[label].zfill(4)))
    rows: list[charts.Row] = []
    for label in order:
        runs = grouped[label]
        for j, task in enumerate(runs[0].answers.tasks):
            scores = [100 * float(run.answers.cells[1, j].mean()) for run in runs]
            rows.append({"copied": copied[label], "task": f"{j + 1} · {task}", "score": sum(scores) / len(scores)})
    alt = charts.alt()
    names = list(dict.fromkeys(copied[label] for label in order))
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("copied:N", sort=names, title="upper blocks copied", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("score:Q", title="percent right after the second task", scale=alt.Scale(zero=False)),
        color=alt.Color("task:N", title=None),
    )
    drawn = (base.mark_line() + base.mark_point(filled=True, size=60, opacity=1)).properties(width=460, height=240)
    numbers = [[text(str(r["copied"])), text(str(r["task"])), Cell(points(float(str(r["score"]))))] for r in rows]
    return Figure(
        "layer-replacement",
        "Starting layers of the second task as copies",
        charts.svg(drawn, "Scores of both tasks by the number of copied blocks"),
        "Mean over runs, after the second task.",
        Table(["copied", "task", "percent right"], numbers),
    )


def copies(run: ScoredRun) -> str:
    """Return how many upper blocks a run copies: none, a number, or all."""
    start = run.composition.plain().get("initialiser")
    if not isinstance(start, dict):
        return "none"
    blocks = start.get("top_layers")
    return "all" if blocks is None else str(blocks)
