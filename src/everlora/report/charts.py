"""Draws figures with Vega-Altair, as SVG that stands still and needs nothing.

Colours are those of a light page; a page's style turns each of them into its dark counterpart, so that one drawing
serves both, and is right where it is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from everlora.report.page import needs

if TYPE_CHECKING:
    import altair

INK, MUTED, GRID, PAPER = "#1d2328", "#57606a", "#e4e7ea", "#ffffff"
HUES = (
    "#2f6f9f", "#c2603a", "#3a8763", "#8a5da6", "#a67c12", "#2b8f96", "#b3446a", "#5d6873", "#5a74c4", "#7d8b2f",
    "#8a5a44", "#a04fa0",
)  # fmt: skip
"""Colours of series: far enough from each other in lightness or hue for most eyes; a line is also named or marked."""
LIGHT, DEEP = "#eef3f7", "#2f6f9f"
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
WIDTH = 640
Row = Mapping[str, str | float | int | bool | None]
FONT = "Arial, Helvetica, 'Liberation Sans', Arimo, sans-serif"
"""Letters as wide as those by which vl-convert measures (its sans-serif is Liberation Sans), nearly everywhere."""

CONFIG = {
    "aria": False,
    "background": None,
    "font": "sans-serif",
    "padding": {"left": 4, "right": 16, "top": 6, "bottom": 6},
    "view": {"stroke": None},
    "range": {"category": list(HUES), "symbol": list(SHAPES), "heatmap": [LIGHT, DEEP], "ramp": [LIGHT, DEEP]},
    "axis": {
        "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED, "labelColor": MUTED, "titleColor": INK,
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400, "titlePadding": 8, "labelLimit": 180,
        "ticks": False, "labelPadding": 6, "domainWidth": 0.7,
    },
    "axisX": {"grid": False},
    "legend": {
        "labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400,
        "labelLimit": 190, "symbolStrokeWidth": 2, "symbolSize": 70,
    },
    "header": {"labelColor": INK, "labelFontSize": 12, "titleColor": INK, "labelLimit": 200, "titleFontWeight": 400},
    "line": {"strokeWidth": 2},
    "title": {"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": MUTED},
}  # fmt: skip


def alt() -> ModuleType:
    """Return Vega-Altair.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import altair
    except ImportError:
        raise needs("altair") from None
    altair.data_transformers.disable_max_rows()  # rows are counted by who draws them
    return altair


def data(rows: Sequence[Row]) -> altair.Data:
    """Return rows as Altair takes them."""
    found: altair.Data = alt().Data(values=[dict(row) for row in rows])
    return found


def stages(count: int) -> list[int]:
    """Return the numbers of tasks at which an axis has its marks.

    >>> stages(4), stages(30)
    ([1, 2, 3, 4], [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30])
    """
    every = -(-count // 20)
    return list(range(every, count + 1, every))


def lines(
    rows: Sequence[Row],
    x: str,
    y: str,
    names: Sequence[str],
    x_title: str,
    y_title: str,
    *,
    width: int = WIDTH - 160,
    legend: bool = True,
    zero: bool = False,
) -> altair.LayerChart:
    """Draw a line for each method over the number of tasks, with a mark at each.

    Args:
        rows: with a ``method`` each.
        x: which of their values goes to the right.
        y: which goes up.
        names: of the methods, in order.
        x_title: of the axis to the right.
        y_title: of the one that goes up.
        width: of the panel.
        legend: whether the methods are named beside it, where there are several.
        zero: whether the upward axis begins at zero.
    """
    a = alt()
    shown = list(names)
    scale = a.Scale(domain=shown, range=[HUES[k % len(HUES)] for k in range(len(shown))])
    own = a.Legend() if legend and len(shown) > 1 else None
    count = max((int(str(row[x])) for row in rows), default=1)
    base = a.Chart(data(rows)).encode(
        x=a.X(f"{x}:Q", title=x_title, axis=a.Axis(format="d", values=stages(count)),
              scale=a.Scale(zero=False, nice=False, padding=10)),
        y=a.Y(f"{y}:Q", title=y_title, scale=a.Scale(zero=zero)),
        color=a.Color("method:N", sort=shown, title=None, scale=scale, legend=own),
    )  # fmt: skip
    shape = a.Shape("method:N", sort=shown, title=None, scale=a.Scale(domain=shown), legend=own)
    made: altair.LayerChart = base.mark_line() + base.mark_point(filled=True, size=45, opacity=1).encode(shape=shape)
    return made.properties(width=width, height=280)


def svg(chart: altair.TopLevelMixin, label: str) -> str:
    """Return a chart as SVG, for a reader who sees it and, by ``label``, for one who does not.

    Raises:
        ConfigError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise needs("vl-convert-python") from None
    drawn: str = vl_convert.vegalite_to_svg(chart.to_dict(), config=CONFIG)
    return _slim(drawn, label)


ATTRIBUTES = re.compile(
    r' (?:(?:class|role|aria-[a-z]+|pointer-events|xmlns:xlink|version|stroke-miterlimit)="[^"]*"|opacity="1")'
)
EMPTY = re.compile(r'<path(?: fill="none")? d="(?:M0,0h0v0h0Z)?"(?: display="none")?/>|<g>\s*</g>|<g></g>')
NOTHING_DRAWN = re.compile(r'<path d="M[-\d.,]+h[-\d.]+v[-\d.]+h[-\d.]+Z"(?: fill="transparent")?/>')
DIGITS = re.compile(r"-?\d+\.\d{2,}")
TAG = re.compile(r"<[^>]+>")
TEXT_FONT = ' font-family="sans-serif"'


def _slim(drawn: str, label: str) -> str:
    """Take out of an SVG what nobody sees: two thirds of what Vega writes; name it for a screen reader."""
    # Only in tags: labels are texts of users, who may write anything between them.
    drawn = TAG.sub(lambda tag: DIGITS.sub(_rounded, ATTRIBUTES.sub("", tag[0].replace(TEXT_FONT, ""))), drawn)
    while (less := EMPTY.sub("", NOTHING_DRAWN.sub("", drawn))) != drawn:
        drawn = less
    named = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return drawn.replace("<svg", f'<svg role="img" aria-label="{named}" font-family="{FONT}"', 1)


def _rounded(found: re.Match[str]) -> str:
    number = float(found[0])
    value = f"{number:.{1 if abs(number) >= 1 else 2}f}".rstrip("0").rstrip(".")
    return "0" if value == "-0" else value
