"""Draws what several methods came to: their scores with intervals, stability against plasticity, orders and seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from everlora.analysis.answers import ScoredRun
from everlora.analysis.compare import Interval
from everlora.analysis.comparison import Comparison, Row
from everlora.report import charts
from everlora.report.columns import HEADS
from everlora.report.forms import GROUPS
from everlora.report.numbers import interval, points
from everlora.report.page import Cell, Figure, Table, text
from everlora.settings.spec import RunSpec

if TYPE_CHECKING:
    import altair

Labelled = Mapping[str, Sequence[ScoredRun]]
"""Runs by the label of their method in the table."""
MANY_METHODS = len(charts.HUES)
PANEL = (520, 340)
"""Width and height of the drawing of stability against plasticity."""
LONGEST = 36
"""Letters of a name that stands in a drawing."""
LETTER = 6.2
"""Mean width of a letter, in the same units."""
CORNERS = ((0.9, 11), (-0.9, 11), (0.9, -11), (-0.9, -11))
"""Where a name may stand from its point: how far across, in its half width, and how far up."""
Box = tuple[float, float, float, float]


def rows_of(comparison: Comparison) -> list[Row]:
    """Return the rows of all sections, by their overall accuracy."""
    rows = [row for section in comparison.sections for row in section.rows]
    return sorted(rows, key=lambda row: -_mean(row, "oa"))


def _mean(row: Row, metric: str) -> float:
    found = row.metrics[metric]
    return found.mean if found else -1e9


def group_of(comparison: Comparison) -> dict[str, str]:
    """Return the section of every method."""
    return {row.method: section.group for section in comparison.sections for row in section.rows}


def intervals(comparison: Comparison) -> Figure:
    """Draw overall accuracy and backward transfer of every method, with their intervals."""
    alt, rows = charts.alt(), rows_of(comparison)
    names = [row.method for row in rows]
    panels: list[altair.LayerChart] = []
    numbers = []
    for metric, title in (("oa", "overall accuracy, percent"), ("bwt", "backward transfer, points")):
        found = [(row.method, one) for row in rows if (one := row.metrics[metric]) is not None]
        if found:
            panels.append(_panel(found, names, group_of(comparison), title, labels=not panels))
        numbers += [
            [text(method), text(HEADS[metric]), Cell(points(one.mean)), Cell(interval(one))] for method, one in found
        ]
    return Figure(
        "methods",
        "Methods with their 95 % intervals",
        charts.svg(alt.hconcat(*panels, spacing=24), "Overall accuracy and backward transfer of every method"),
        "Intervals overlap for two reasons, runs and test rows, which methods share; the paired differences of the "
        "table are sharper than what the eye makes of overlap.",
        Table(["method", "metric", "mean", "95 % interval"], numbers),
    )


def _panel(
    found: Sequence[tuple[str, Interval]],
    names: Sequence[str],
    groups: Mapping[str, str],
    title: str,
    *,
    labels: bool,
) -> altair.LayerChart:
    alt = charts.alt()
    rows: list[charts.Row] = [
        {"method": method, "group": groups[method], "mean": one.mean, "low": one.low, "high": one.high}
        for method, one in found
    ]
    axis = alt.Axis(labels=labels, domain=labels, grid=True)
    where = alt.Y("method:N", sort=list(names), title=None, scale=alt.Scale(domain=list(names)), axis=axis)
    base = alt.Chart(charts.data(rows)).encode(y=where, color=_of_group(set(groups.values())))
    scale = alt.Scale(zero=False, nice=True)
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("mean:Q", scale=scale))
    made: altair.LayerChart = (bars + marks).properties(width=270, height=max(60, 24 * len(names)))
    return made


def _of_group(there: Collection[str]) -> altair.Color:
    """Return the colour of a method by its section, which is the same whatever other sections there are."""
    alt = charts.alt()
    known = {group: hue for group, hue in zip(GROUPS, charts.HUES, strict=False) if group in there}
    legend = alt.Legend(orient="top") if len(known) > 1 else None
    scale = alt.Scale(domain=list(known), range=list(known.values()))
    found: altair.Color = alt.Color("group:N", title=None, scale=scale, legend=legend)
    return found


def trade(comparison: Comparison, tasks: int) -> Figure | None:
    """Draw what methods learn against what they lose, with lines of equal overall accuracy."""
    groups = group_of(comparison)
    rows: list[charts.Row] = [
        {"method": row.method, "group": groups[row.method], "learned": a.mean, "lost": b.mean}
        for row in rows_of(comparison)
        if (a := row.metrics["learning_accuracy"]) is not None and (b := row.metrics["bwt"]) is not None
    ]
    if len(rows) < 2 or comparison.protocol is None:  # points of other tasks have no place among each other
        return None
    xs, ys = ([_value(row, key) for row in rows] for key in ("learned", "lost"))
    x, y = _span(xs), _span(ys)
    drawn = _scatter(rows, _levels(x, y, (tasks - 1) / tasks), x, y)  # OA = LA + (T − 1) / T · BWT
    numbers = [
        [text(str(r["method"])), Cell(points(_value(r, "learned"))), Cell(points(_value(r, "lost")))] for r in rows
    ]
    return Figure(
        "stability-plasticity",
        "Stability against plasticity",
        charts.svg(drawn, "Backward transfer against learning accuracy of every method"),
        "Further right learns more of each task, further up loses less of the earlier ones; along a grey line overall "
        "accuracy is the same.",
        Table(["method", "learning accuracy", "BWT"], numbers),
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    pad = 0.08 * (max(values) - min(values)) + 0.5
    return min(values) - pad, max(values) + pad


def _scatter(
    rows: Sequence[charts.Row], levels: Sequence[charts.Row], x: tuple[float, float], y: tuple[float, float]
) -> altair.LayerChart:
    alt = charts.alt()
    scales = [alt.Scale(domain=list(span), nice=False) for span in (x, y)]
    titles = ("learning accuracy, percent (plasticity)", "backward transfer, points (stability)")
    where = {
        "x": alt.X("learned:Q", title=titles[0], scale=scales[0]),
        "y": alt.Y("lost:Q", title=titles[1], scale=scales[1]),
    }
    lines = alt.Chart(charts.data(levels)).mark_line(color=charts.GRID, strokeWidth=1.2, clip=True)
    ends = alt.Chart(charts.data([one for one in levels if one["named"]]))
    ends = ends.mark_text(align="left", dx=4, dy=-6, fontSize=11, color=charts.MUTED)
    marks = alt.Chart(charts.data(rows)).mark_point(filled=True, size=80, opacity=1)
    names = alt.Chart(charts.data(_placed(rows, x, y))).mark_text(align="center", baseline="middle")
    at = {"x": alt.X("at_x:Q", scale=scales[0]), "y": alt.Y("at_y:Q", scale=scales[1])}
    made: altair.LayerChart = alt.layer(
        lines.encode(**where, detail="level:Q"),
        ends.encode(**where, text="named:N"),
        marks.encode(**where, color=_of_group({str(row["group"]) for row in rows})),
        names.encode(**at, text="method:N"),
    ).properties(width=PANEL[0], height=PANEL[1])
    return made


def _levels(x: tuple[float, float], y: tuple[float, float], share: float) -> list[charts.Row]:
    """Return lines of equal overall accuracy across the panel, each named where it enters the panel, above or left."""
    least, most = x[0] + share * y[0], x[1] + share * y[1]
    step = next((s for s in (0.5, 1, 2, 5, 10, 20) if (most - least) / s <= 8), 50)
    found: list[charts.Row] = []
    level = step * (least // step + 1)
    while level < most and share:
        for learned in x:
            found.append({"learned": learned, "lost": (level - learned) / share, "level": level, "named": ""})
        named: dict[str, str | float] = {"level": level, "named": f"OA {level:g}"}
        if x[0] <= (top := level - share * y[1]) <= x[1]:
            found.append({"learned": top, "lost": y[1], **named})
        elif y[0] <= (side := (level - x[0]) / share) <= y[1]:
            found.append({"learned": x[0], "lost": side, **named})
        level += step
    return found


def _placed(rows: Sequence[charts.Row], x: tuple[float, float], y: tuple[float, float]) -> list[charts.Row]:
    """Return where the name of each point is written: beside, above or below it, where no other name or point is."""
    per = ((x[1] - x[0]) / PANEL[0], (y[1] - y[0]) / PANEL[1])
    spots = [((_value(r, "learned") - x[0]) / per[0], (_value(r, "lost") - y[0]) / per[1]) for r in rows]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in spots]
    placed: list[charts.Row] = []
    for row, (px, py) in zip(rows, spots, strict=True):
        name = shorten(str(row["method"]), LONGEST, placeholder="…")
        half = LETTER * len(name) / 2
        tried = [
            (px + across * (half + 9), py + up)
            for across, up in ((1, 0), (-1, 0), (0, 14), (0, -14), *CORNERS, (0, 27), (0, -27))
        ]
        boxes = [(cx - half, cy - 6, cx + half, cy + 6) for cx, cy in tried]
        free = next((k for k, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)), 0)
        taken.append(boxes[free])
        at = tried[free]
        placed.append({**row, "method": name, "at_x": x[0] + at[0] * per[0], "at_y": y[0] + at[1] * per[1]})
    return placed


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _value(row: charts.Row, key: str) -> float:
    return float(str(row[key]))


def multiples(labelled: Labelled, names: Sequence[str]) -> Figure | None:
    """Draw every run as a point, a panel for each order of the tasks; None where a method has one run."""
    called = _orders(labelled)
    rows: list[charts.Row] = [
        {"method": method, "order": called[run.answers.order], "seed": run.answers.seed, "oa": mean}
        for method in names
        for run in labelled[method]
        if (mean := _stage_mean(run, len(run.answers.tasks) - 1)) is not None
    ]
    if len(rows) <= len({row["method"] for row in rows}):
        return None
    numbers = [
        [text(str(r["method"])), text(str(r["order"])), Cell(str(r["seed"])), Cell(points(_value(r, "oa")))]
        for r in rows
    ]
    which = "; ".join(f"{name}: {order}" for order, name in sorted(called.items(), key=lambda one: one[1]))
    return Figure(
        "runs",
        "Orders and seeds",
        charts.svg(_strips(rows, names), "Overall accuracy of every run, by order"),
        f"A point is a run, a bar the mean over seeds. {which[0].upper()}{which[1:]}.",
        Table(["method", "order", "seed", "OA"], numbers),
    )


def _strips(rows: Sequence[charts.Row], names: Sequence[str]) -> altair.FacetChart:
    alt = charts.alt()
    orders = sorted({str(row["order"]) for row in rows})
    base = alt.Chart().encode(y=alt.Y("method:N", sort=list(names), title=None, axis=alt.Axis(grid=True)))
    score = alt.X("oa:Q", title="overall accuracy", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    dots = base.mark_point(filled=True, size=36, opacity=0.75, color=charts.HUES[0]).encode(x=score)
    means = base.mark_tick(thickness=2, size=14, color=charts.INK).encode(x="mean(oa):Q")
    wide = max(110, min(300, 560 // len(orders)))
    layers = alt.layer(dots, means, data=charts.data(rows)).properties(width=wide, height=max(60, 20 * len(names)))
    if len(orders) == 1:
        return layers.properties(width=charts.WIDTH - 160)
    made: altair.FacetChart = layers.facet(alt.Facet("order:N", title=None, sort=orders), columns=4)
    return made


def _orders(labelled: Labelled) -> dict[str, str]:
    """Return short names of the orders: their numbers in the benchmark, or in which they stand here."""
    found: dict[str, str] = {}
    for run in (run for runs in labelled.values() for run in runs):
        settings = run.settings
        number = settings.order if isinstance(settings, RunSpec) else None
        found.setdefault(run.answers.order, f"order {number or len(found) + 1}")
    return found


def learning_curves(labelled: Labelled, names: Sequence[str]) -> Figure | None:
    """Draw the mean over the tasks seen so far, stage by stage; None where tasks were not scored after each stage."""
    rows: list[charts.Row] = []
    for method in names:
        runs = labelled[method]
        for i in range(len(runs[0].answers.tasks)):
            means = [_stage_mean(run, i) for run in runs]
            known = [one for one in means if one is not None]
            if len(known) == len(means):
                rows.append({"method": method, "stage": i + 1, "mean": sum(known) / len(known)})
    whole = [m for m in names if len(labelled[m][0].answers.tasks) == sum(row["method"] == m for row in rows) > 1]
    if len(whole) < 2:
        return None
    rows = [row for row in rows if row["method"] in whole[:MANY_METHODS]]
    numbers = [[text(str(r["method"])), Cell(str(r["stage"])), Cell(points(_value(r, "mean")))] for r in rows]
    drawn = charts.lines(rows, "stage", "mean", whole[:MANY_METHODS], "tasks learned", "mean percent right")
    return Figure(
        "curves",
        "Mean over the tasks seen so far",
        charts.svg(drawn, "Mean accuracy over stages, by method"),
        "Mean over runs; harder tasks lower every line.",
        Table(["method", "tasks learned", "mean"], numbers),
    )


def _stage_mean(run: ScoredRun, i: int) -> float | None:
    """Return the mean score of the tasks seen up to a stage; None where one of them was not scored then."""
    cells = [run.answers.cells.get((i, j)) for j in range(i + 1)]
    known = [100 * float(cell.mean()) for cell in cells if cell is not None]
    return sum(known) / len(known) if len(known) == len(cells) else None
