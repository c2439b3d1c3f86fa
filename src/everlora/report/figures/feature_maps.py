"""Draws what a model makes of the rows of every task, on a plane: before the first task, and after the last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from everlora.core.errors import ConfigError
from everlora.report import charts
from everlora.report.figures import figure
from everlora.report.numbers import figure as number
from everlora.report.page import Cell, Figure, Table, text

if TYPE_CHECKING:
    import altair
    from torch import Tensor

MOST_ROWS = 60
"""Test rows of each task that are read."""
Plane = Literal["PCA", "t-SNE"]
NEEDS = "runs with LoRA adapters, of a benchmark; their model is loaded"


@figure(
    "feature-map",
    paper="PS-LoRA",
    where="Figure 5: feature visualization across tasks",
    title="Features of all tasks",
    needs=NEEDS,
    reads="model",
)
def feature_map(paths: Sequence[Path]) -> Figure:
    """Draw the mean last hidden states of test rows on their two principal components."""
    return _features("feature-map", paths, "PCA", "along which all of a panel's rows differ most")


@figure(
    "feature-map-tsne",
    paper="PS-LoRA",
    where="Figure 5: feature visualization across tasks, by t-SNE",
    title="Features of all tasks, neighbours together",
    needs=NEEDS,
    reads="model",
)
def feature_map_tsne(paths: Sequence[Path]) -> Figure:
    """Draw the mean last hidden states of test rows so that neighbours stand together; distances mean little."""
    return _features("feature-map-tsne", paths, "t-SNE", "in which near rows stay near, and far distances mean little")


def _features(name: str, paths: Sequence[Path], plane: Plane, how: str) -> Figure:
    from everlora.analysis.answers import find

    rows: list[charts.Row] = []
    for path in find(paths):
        rows += _measured(path, plane, base=not rows)
    numbers = [
        [
            text(str(r["when"])),
            text(str(r["task"])),
            Cell(number(float(str(r["x"])))),
            Cell(number(float(str(r["y"])))),
        ]
        for r in rows
    ]
    return Figure(
        name,
        f"Features of all tasks, {plane}",
        charts.svg(_drawn(rows, plane), f"{plane} of the hidden states of test rows of all tasks"),
        f"A point is a test row: the mean over its tokens of the last hidden states, on a plane ({plane}) {how}. "
        f"Up to {MOST_ROWS} rows of each task.",
        Table(["when", "task", "x", "y"], numbers),
    )


def _measured(path: Path, plane: Plane, *, base: bool) -> list[charts.Row]:
    """Return points of a run after its last task, and of its base model, if that is wanted."""
    from everlora.analysis.hidden import hidden_means
    from everlora.core.history import UpdateHistory
    from everlora.learner.reopened import reopen

    run = reopen(path)
    chosen = [(row, stage.task) for stage in run.stages for row in stage.task.take(evaluate=MOST_ROWS).test]
    if len(chosen) < 3:
        raise ConfigError(f"{path} has fewer than three test rows, which make no map")
    panels = {"before the first task": UpdateHistory()} if base else {}
    panels[f"after the last task, {run.method}"] = run.stages[-1].after
    rows: list[charts.Row] = []
    for when, history in panels.items():
        places = on_plane(hidden_means(run.model_with(history), run.learner.base.family, chosen), plane)
        rows += [
            {"when": when, "task": task.name, "x": x, "y": y} for (_, task), (x, y) in zip(chosen, places, strict=True)
        ]
    return rows


def on_plane(vectors: Tensor, plane: Plane) -> list[list[float]]:
    """Return vectors (n, d) as points (n, 2), in units of their largest coordinate.

    >>> import torch
    >>> on_plane(torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), "PCA")[2][0]
    0.0
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if plane == "PCA":
        found = PCA(n_components=2, random_state=0).fit_transform(vectors.numpy())
    else:
        found = TSNE(n_components=2, random_state=0, perplexity=min(30, (len(vectors) - 1) / 3)).fit_transform(
            vectors.numpy()
        )
    most = float(abs(found).max()) or 1.0
    return [[round(float(value) / most, 4) + 0.0 for value in point] for point in found]


def _drawn(rows: Sequence[charts.Row], plane: Plane) -> altair.FacetChart:
    alt = charts.alt()
    tasks, panels = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("task", "when"))
    scale = alt.Scale(domain=tasks)
    bare = alt.Axis(labels=False, grid=False)
    marks = alt.Chart().mark_point(filled=True, size=26, opacity=0.75).encode(
        x=alt.X("x:Q", title=f"{plane} 1", axis=bare),
        y=alt.Y("y:Q", title=f"{plane} 2", axis=bare),
        color=alt.Color("task:N", sort=tasks, title=None, scale=scale),
        shape=alt.Shape("task:N", sort=tasks, title=None, scale=scale),
    ).properties(width=260, height=220, data=charts.data(rows))  # fmt: skip
    facet = alt.Facet("when:N", title=None, sort=panels, header=alt.Header(labelLimit=260))
    made: altair.FacetChart = marks.facet(facet, columns=2)
    return made
