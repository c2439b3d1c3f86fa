"""Draws the directions of adapters: the angle between each task's update and the first."""

from __future__ import annotations

import math
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

    from everlora.analysis.runs import Run

MERGED = "merged"
"""In place of a task's name, where a method merges what tasks have learned."""


@figure(
    "directions",
    paper="PS-LoRA",
    where="Figure 3: distributions of different LoRAs",
    title="Directions of the tasks' updates",
    needs="runs of methods with LoRA adapters, one of each method",
    reads="weights",
    single_run=True,
)
def directions(paths: Sequence[Path]) -> Figure:
    """Draw each update as an arrow: its angle is that to the first task's update, its length its norm."""
    from everlora.report.read import weights

    rows = [row for method, run in weights(paths).items() for row in _arrows(method, run)]
    if not rows:
        raise ConfigError("no run has a second task, whose direction could be set against the first")
    numbers = [
        [text(str(r["method"])), text(str(r["task"])), Cell(f"{r['angle']:.1f}°"), Cell(number(float(str(r["norm"]))))]
        for r in rows
        if r["end"]
    ]
    return Figure(
        "directions",
        "Directions of the tasks' updates",
        charts.svg(_drawn(rows), "Angle of every update to that of the first task"),
        "An arrow's angle to the horizontal is that between the task's update and the first task's, over all modules "
        "as one vector; its length is the update's norm over the longest of the run. Beyond 90° an update undoes the "
        "first. Dotted: what a method merges all of them into.",
        Table(["method", "task", "angle", "norm"], numbers),
    )


def _arrows(method: str, run: Run) -> list[charts.Row]:
    """Return both ends of the arrow of each of a run's updates, and of their merge; nothing of a run of one task."""
    updates = [(task, {name: one.dense() for name, one in added.items()}) for task, added, _, _ in run.updates()]
    if len(updates) < 2:
        return []
    first = updates[0][1]
    if (merge := run.method.merge) is not None:
        updates.append((MERGED, {name: merge.merge(added[name] for _, added in updates) for name in first}))
    norms = [math.sqrt(sum(float(one.square().sum()) for one in added.values())) for _, added in updates]
    rows: list[charts.Row] = []
    for (task, added), norm in zip(updates, norms, strict=True):
        inner = sum(float((one * first[name]).sum()) for name, one in added.items())
        cosine = max(-1.0, min(1.0, inner / (norm * norms[0]))) if norm and norms[0] else 0.0
        length = norm / (max(norms) or 1.0)
        own: dict[str, str | float] = {
            "method": method,
            "task": task,
            "angle": math.degrees(math.acos(cosine)),
            "norm": norm,
        }
        tip = {"x": length * cosine, "y": length * math.sqrt(1 - cosine**2)}
        rows += [{**own, "x": 0.0, "y": 0.0, "end": False}, {**own, **tip, "end": True}]
    return rows


def _drawn(rows: Sequence[charts.Row]) -> altair.FacetChart:
    alt = charts.alt()
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    where = {
        "x": alt.X("x:Q", title="along the first", scale=alt.Scale(domain=[-1, 1])),
        "y": alt.Y("y:Q", title="across", scale=alt.Scale(domain=[0, 1])),
        "color": alt.Color("task:N", sort=tasks, title=None),
    }
    dotted = alt.condition(f"datum.task === '{MERGED}'", alt.value([2, 3]), alt.value([1, 0]))
    lines = alt.Chart().mark_line(strokeWidth=2).encode(**where, detail="task:N", strokeDash=dotted)
    ends = alt.Chart().mark_point(filled=True, size=45, opacity=1).encode(**where).transform_filter("datum.end")
    panel = alt.layer(lines, ends, data=charts.data(rows)).properties(width=250, height=125)
    made: altair.FacetChart = panel.facet(alt.Facet("method:N", title=None), columns=2)
    return made
