"""Draws what several methods came to: their scores with intervals, stability against plasticity, orders and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from everlora.analysis.answers import ScoredRun
from everlora.analysis.comparison import Comparison, Row
from everlora.report import charts
from everlora.report.numbers import interval, points
from everlora.report.page import Cell, Figure, Table, text

Labelled = Mapping[str, Sequence[ScoredRun]]
"""Runs by the label of their method in the table."""
MANY_METHODS = len(charts.HUES)


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
    alt, groups = charts.alt(), group_of(comparison)
    names = [row.method for row in rows_of(comparison)]
    panels, numbers = [], []
    for metric, title in (("oa", "overall accuracy, percent"), ("bwt", "backward transfer, points")):
        rows: list[charts.Row] = [
            {"method": row.method, "group": groups[row.method], "mean": one.mean, "low": one.low, "high": one.high}
            for row in rows_of(comparison)
            if (one := row.metrics[metric]) is not None
        ]
        if not rows:
            continue
        where = alt.Y("method:N", sort=names, title=None, scale=alt.Scale(domain=names),
                      axis=alt.Axis(labels=not panels, domain=not panels, grid=True))  # fmt: skip
        colour = alt.Color("group:N", title=None, sort=["replay-free", "replay", "task id"],
                           scale=alt.Scale(domain=["replay-free", "replay", "task id"], range=list(charts.HUES[:3])),
                           legend=alt.Legend(orient="top"))  # fmt: skip
        base = alt.Chart(charts.data(rows)).encode(y=where, color=colour)
        scale = alt.Scale(zero=False, nice=True)
        bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
        marks = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("mean:Q", scale=scale))
        panels.append((bars + marks).properties(width=270, height=max(60, 24 * len(names))))
        numbers += [[text(row.method), text(metric.upper()), Cell(points(row.metrics[metric].mean)),  # type: ignore[union-attr]
                     Cell(interval(row.metrics[metric]))] for row in rows_of(comparison) if row.metrics[metric]]  # fmt: skip
    drawn = alt.hconcat(*panels, spacing=24)
    return Figure(
        "methods", "Methods with their 95 % intervals", charts.svg(drawn, "Overall accuracy and backward transfer"),
        "Intervals overlap for two reasons, runs and test rows, which methods share; the paired differences of the table "
        "are sharper than what the eye makes of overlap.",
        Table(["method", "metric", "mean", "95 % interval"], numbers),
    )  # fmt: skip


def trade(comparison: Comparison, tasks: int) -> Figure | None:
    """Draw what methods learn against what they lose, with lines of equal overall accuracy."""
    alt, groups = charts.alt(), group_of(comparison)
    rows: list[charts.Row] = [
        {"method": row.method, "group": groups[row.method], "learned": a.mean, "lost": b.mean}
        for row in rows_of(comparison)
        if (a := row.metrics["learning_accuracy"]) is not None and (b := row.metrics["bwt"]) is not None
    ]
    if len(rows) < 2:
        return None
    xs, ys = ([float(str(row[key])) for row in rows] for key in ("learned", "lost"))
    pad = [0.08 * (max(values) - min(values)) + 0.5 for values in (xs, ys)]
    (left, right), (low, high) = ((min(v) - p, max(v) + p) for v, p in zip((xs, ys), pad, strict=True))
    share = (tasks - 1) / tasks  # OA = LA + (T − 1) / T · BWT
    lines = _levels((left, right), (low, high), share)
    x = alt.X(
        "learned:Q", title="learning accuracy, percent (plasticity)", scale=alt.Scale(domain=[left, right], nice=False)
    )
    y = alt.Y("lost:Q", title="backward transfer, points (stability)", scale=alt.Scale(domain=[low, high], nice=False))
    rules = (
        alt.Chart(charts.data(lines))
        .mark_line(color=charts.GRID, strokeWidth=1.2, clip=True)
        .encode(x=x, y=y, detail="level:Q")
    )
    ends = alt.Chart(charts.data([one for one in lines if one["end"]])).mark_text(
        align="left", dx=4, fontSize=11, color=charts.MUTED
    ).encode(x=x, y=y, text="named:N")  # fmt: skip
    marks = alt.Chart(charts.data(rows)).mark_point(filled=True, size=80, opacity=1).encode(
        x=x, y=y, color=alt.Color("group:N", title=None, legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=["replay-free", "replay", "task id"], range=list(charts.HUES[:3]))),
    )  # fmt: skip
    names = alt.Chart(charts.data(_placed(rows, (right - left) / 520, (high - low) / 340))).mark_text(
        align="left", baseline="middle", dx=8, limit=140
    ).encode(x=x, y=alt.Y("at:Q", scale=alt.Scale(domain=[low, high], nice=False)), text="method:N")  # fmt: skip
    chart = (rules + ends + marks + names).properties(width=520, height=340)
    numbers = [
        [text(str(r["method"])), Cell(points(float(str(r["learned"])))), Cell(points(float(str(r["lost"]))))]
        for r in rows
    ]
    return Figure(
        "stability-plasticity", "Stability against plasticity", charts.svg(chart, "Backward transfer against learning"),
        "Further right learns more of each task, further up loses less of the earlier ones; along a grey line overall "
        "accuracy is the same.", Table(["method", "learning accuracy", "BWT"], numbers),
    )  # fmt: skip


def _levels(x: tuple[float, float], y: tuple[float, float], share: float) -> list[charts.Row]:
    """Return lines of equal overall accuracy across the panel; each ends where its level is written."""
    least, most = x[0] + share * y[0], x[1] + share * y[1]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if (most - least) / s <= 8 or s == 50)
    found: list[charts.Row] = []
    level = step * (least // step + 1)
    while level < most and share:
        for learned, end in ((x[0], False), (x[1], False)):
            found.append(
                {"learned": learned, "lost": (level - learned) / share, "level": level, "end": end, "named": ""}
            )
        top = level - share * y[1]  # where it leaves the panel: at its top, or on its left
        place = (top, y[1]) if x[0] <= top <= x[1] else None
        if place:
            found.append(
                {"learned": place[0], "lost": place[1], "level": level, "end": True, "named": f"OA {level:g}"}
            )
        level += step
    return found


def _placed(rows: Sequence[charts.Row], dx: float, dy: float) -> list[charts.Row]:
    """Return labels that do not lie on one another: each is moved down until it has its line free."""
    taken: list[tuple[float, float, int]] = []
    placed: list[charts.Row] = []
    for row in sorted(rows, key=lambda one: -float(str(one["lost"]))):
        x, y, wide = float(str(row["learned"])), float(str(row["lost"])), 7 * len(str(row["method"])) + 14
        while any(abs(y - b) < 14 * dy and x < a + w * dx and a < x + wide * dx for a, b, w in taken):
            y -= 2 * dy
        taken.append((x, y, wide))
        placed.append({**row, "at": y})
    return placed


def multiples(labelled: Labelled, names: Sequence[str]) -> Figure | None:
    """Draw every run as a point, a panel for each order of the tasks."""
    alt = charts.alt()
    rows: list[charts.Row] = []
    orders = sorted({run.answers.order for runs in labelled.values() for run in runs})
    called = {order: f"order {k}: {_short(order)}" for k, order in enumerate(orders, start=1)}
    for method, runs in labelled.items():
        for run in runs:
            last = len(run.answers.tasks) - 1
            cells = [run.answers.cells.get((last, j)) for j in range(last + 1)]
            if all(cell is not None for cell in cells):
                mean = 100 * sum(float(cell.mean()) for cell in cells if cell is not None) / len(cells)
                rows.append(
                    {"method": method, "order": called[run.answers.order], "seed": run.answers.seed, "oa": mean}
                )
    if len(rows) < 2 or len(rows) == len(labelled):
        return None
    sort = [name for name in names if name in labelled]
    base = alt.Chart().encode(y=alt.Y("method:N", sort=sort, title=None, axis=alt.Axis(grid=True)))
    scale = alt.Scale(zero=False)
    dots = base.mark_point(filled=True, size=36, opacity=0.75, color=charts.HUES[0]).encode(
        x=alt.X("oa:Q", title="overall accuracy", scale=scale)
    )
    means = base.mark_tick(thickness=2, size=14, color=charts.INK).encode(x="mean(oa):Q")
    wide = max(150, min(300, 560 // max(1, len(orders))))
    chart = alt.layer(dots, means, data=charts.data(rows)).properties(width=wide, height=max(60, 20 * len(sort))).facet(
        column=alt.Column("order:N", title=None, header=alt.Header(labelLimit=wide))
    )  # fmt: skip
    numbers = [
        [text(str(r["method"])), text(str(r["order"])), Cell(str(r["seed"])), Cell(points(float(str(r["oa"]))))]
        for r in rows
    ]
    return Figure(
        "runs", "Orders and seeds", charts.svg(chart, "Overall accuracy of every run by order"),
        "A point is a run, a bar the mean over seeds.", Table(["method", "order", "seed", "OA"], numbers),
    )  # fmt: skip


def _short(order: str) -> str:
    names = order.split()
    return " → ".join(names) if len(names) <= 4 else f"{names[0]} → … → {names[-1]}"


def learning_curves(labelled: Labelled, names: Sequence[str]) -> Figure | None:
    """Draw the mean over the tasks seen so far, stage by stage; None where tasks were not scored after each stage."""
    alt = charts.alt()
    rows: list[charts.Row] = []
    for method, runs in labelled.items():
        curves = [_curve(run) for run in runs]
        whole = [curve for curve in curves if curve is not None]
        if len(whole) == len(runs):
            rows += [
                {"method": method, "stage": i + 1, "mean": sum(curve[i] for curve in whole) / len(whole)}
                for i in range(len(whole[0]))
            ]
    kept = [name for name in names if any(row["method"] == name for row in rows)][:MANY_METHODS]
    rows = [row for row in rows if row["method"] in kept]
    if not rows or max(float(str(row["stage"])) for row in rows) < 2:
        return None
    scale = alt.Scale(domain=kept, range=list(charts.HUES[: len(kept)]))
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("stage:Q", title="tasks learned", axis=alt.Axis(format="d", tickMinStep=1),
                scale=alt.Scale(nice=False, padding=10)),
        y=alt.Y("mean:Q", title="mean percent right", scale=alt.Scale(zero=False)),
        color=alt.Color("method:N", sort=kept, title=None, scale=scale),
    )  # fmt: skip
    shapes = alt.Shape("method:N", sort=kept, title=None, scale=alt.Scale(domain=kept))
    chart = base.mark_line() + base.mark_point(filled=True, size=45, opacity=1).encode(shape=shapes)
    numbers = [[text(str(r["method"])), Cell(str(r["stage"])), Cell(points(float(str(r["mean"]))))] for r in rows]
    return Figure(
        "curves", "Mean over the tasks seen so far",
        charts.svg(chart.properties(width=charts.WIDTH - 160, height=280), "Mean accuracy over stages by method"),
        "Mean over runs; harder tasks lower every line.", Table(["method", "tasks learned", "mean"], numbers),
    )  # fmt: skip


def _curve(run: ScoredRun) -> list[float] | None:
    found = []
    for i in range(len(run.answers.tasks)):
        cells = [run.answers.cells.get((i, j)) for j in range(i + 1)]
        if any(cell is None for cell in cells):
            return None
        found.append(100 * sum(float(cell.mean()) for cell in cells if cell is not None) / len(cells))
    return found
