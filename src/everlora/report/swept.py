"""Draws what methods come to over a setting, or side by side, with their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from everlora.analysis.comparison import Comparison, Row
from everlora.report import charts
from everlora.report.columns import order_heads
from everlora.report.numbers import interval, points
from everlora.report.page import Cell, Figure, Table, text
from everlora.report.read import rows_of

if TYPE_CHECKING:
    import altair

HOW = "Mean over orders and seeds with the 95 % interval of a bootstrap over runs and test rows."


def swept(name: str, title: str, setting: str, table: Comparison, at: Mapping[str, tuple[str, float]]) -> Figure:
    """Draw overall accuracy over a setting.

    Args:
        name: of the figure.
        title: what is seen in it.
        setting: what is varied.
        table: of the runs.
        at: by row of the table, its series and its value of the setting.
    """
    rows: list[charts.Row] = sorted(
        (
            {"series": at[row.method][0], "at": at[row.method][1], "mean": one.mean, "low": one.low, "high": one.high}
            for row in rows_of(table)
            if row.method in at and (one := row.metrics["oa"]) is not None
        ),
        key=lambda row: (str(row["series"]), float(str(row["at"]))),
    )
    orders = order_heads(table)
    orders = orders if len(orders) > 1 else {}
    by_order = {at[row.method]: row.by_order for row in rows_of(table) if row.method in at}
    numbers = [
        [text(str(row["series"])), Cell(f"{row['at']:g}"), Cell(points(float(str(row["mean"])))),
         Cell(f"{points(float(str(row['low'])))} to {points(float(str(row['high'])))}"),
         *(Cell(points(by_order[str(row["series"]), float(str(row["at"]))].get(order))) for order in orders)]
        for row in rows
    ]  # fmt: skip
    drawn = charts.svg(_over(rows, setting), f"Overall accuracy over {setting}")
    heads = ["method", setting, "OA", "95 % interval", *orders.values()]
    return Figure(name, title, drawn, f"{HOW}{_deviation(rows, setting)}", Table(heads, numbers))


def _deviation(rows: Sequence[charts.Row], setting: str) -> str:
    """Say how far the means of each series lie apart over the setting."""
    series: dict[str, list[float]] = {}
    for row in rows:
        series.setdefault(str(row["series"]), []).append(float(str(row["mean"])))
    found = [f"{name} {statistics.pstdev(values):.2f}" for name, values in series.items() if len(values) > 1]
    return f" Standard deviation of the means over {setting}, points: {', '.join(found)}." if found else ""


def _over(rows: Sequence[charts.Row], setting: str) -> altair.LayerChart:
    alt = charts.alt()
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    values = sorted({float(str(row["at"])) for row in rows})
    scale = alt.Scale(type="log", base=2) if values[0] > 0 and values[-1] / values[0] >= 4 else alt.Scale(zero=False)
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X("at:Q", title=setting, scale=scale, axis=alt.Axis(values=values, format="g")),
        color=alt.Color("series:N", sort=names, title=None, legend=None if len(names) < 2 else alt.Legend()),
    )
    y = alt.Y("mean:Q", title="overall accuracy, percent", scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="overall accuracy, percent"), y2="high:Q")
    made: altair.LayerChart = (
        bars + base.mark_line().encode(y=y) + base.mark_point(filled=True, size=55, opacity=1).encode(y=y)
    )
    return made.properties(width=charts.WIDTH - 160, height=260)


def side_by_side(name: str, title: str, rows: Mapping[str, Row], caption: str = HOW) -> Figure:
    """Draw overall accuracy and backward transfer of methods side by side, by what tells them apart."""
    alt = charts.alt()
    metrics = {"oa": "overall accuracy, percent", "bwt": "backward transfer, points"}
    drawn: list[charts.Row] = [
        {"name": label, "metric": title_, "mean": one.mean, "low": one.low, "high": one.high}
        for label, row in rows.items()
        for metric, title_ in metrics.items()
        if (one := row.metrics[metric]) is not None
    ]
    panels: list[altair.LayerChart] = []
    for title_ in metrics.values():
        own = [row for row in drawn if row["metric"] == title_]
        if own:
            where = alt.Y(
                "name:N", sort=list(rows), title=None, axis=alt.Axis(labels=not panels, grid=True, labelLimit=280)
            )
            base = alt.Chart(charts.data(own)).encode(y=where)
            scale = alt.Scale(zero=False)
            bars = base.mark_rule(strokeWidth=2.5, color=charts.HUES[0]).encode(
                x=alt.X("low:Q", title=title_, scale=scale), x2="high:Q"
            )
            marks = base.mark_point(filled=True, size=60, opacity=1, color=charts.HUES[0]).encode(
                x=alt.X("mean:Q", scale=scale)
            )
            panels.append((bars + marks).properties(width=260, height=max(50, 26 * len(rows))))
    numbers = [
        [
            text(label),
            *(
                Cell(points(one.mean if one else None), under=interval(one))
                for one in (row.metrics[m] for m in metrics)
            ),
        ]
        for label, row in rows.items()
    ]
    return Figure(
        name,
        title,
        charts.svg(alt.hconcat(*panels, spacing=24), title),
        caption,
        Table(["method", "OA", "BWT"], numbers),
    )
