"""Writes small tables that a notebook shows in place of an object: HTML with its style inside, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HEAT = "47, 111, 159"
"""Colour of a cell's ground; how opaque it is says how large the value is, on light pages and on dark ones."""
CELL = "padding: .25em .7em; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .3)"


@dataclass(frozen=True)
class Heat:
    """Holds a number of a table, and from 0 to 1 how strongly its ground is coloured."""

    text: str
    share: float


def html_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str | Heat]], note: str = "") -> str:
    """Write a table whose first column is names; texts are escaped.

    >>> html_table("t", ["a"], [["<b>"]]).count("&lt;b&gt;")
    1
    """
    head = "".join(f'<th style="{CELL}; text-align: {_side(k)}">{escape(one)}</th>' for k, one in enumerate(heads))
    body = "".join(f"<tr>{''.join(_cell(one, k) for k, one in enumerate(row))}</tr>" for row in rows)
    end = f'<p style="margin: .2em 0; opacity: .75">{escape(note)}</p>' if note else ""
    return (
        f'<p style="margin: .2em 0"><b>{escape(title)}</b></p>'
        f'<table style="border-collapse: collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{end}'
    )


def _side(column: int) -> str:
    return "right" if column else "left"


def _cell(value: str | Heat, column: int) -> str:
    ground = f"; background: rgba({HEAT}, {0.55 * value.share:.2f})" if isinstance(value, Heat) else ""
    text = value.text if isinstance(value, Heat) else value
    return f'<td style="{CELL}; text-align: {_side(column)}{ground}">{escape(text)}</td>'
