"""Holds the numbers that papers print, as data: each with its source, never mixed with ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from everlora.runtime.safe_yaml import read_yaml


@dataclass(frozen=True, kw_only=True)
class Published:
    """Holds one number as it was printed.

    Attributes:
        paper, source, where: whose, in which document, in which table of it.
        method: our name of the method, with its setting in brackets where the table varies one.
        model: the model of the paper.
        column: ``order N``; or what is averaged: ``standard`` (orders 1-3), ``long`` (4-6); or a task, a picture
            set, or what is measured (``storage``).
        metric: ``oa``, ``last`` (a task's score after the last task), ``cost``, or what the table says of scores.
        value: in ``unit``.
        unit: percent correct (``%``) but for costs and differences.
        note: what is known to be odd about the row.
        protocol: our name of the protocol that it was made by, as far as that is known.
    """

    paper: str
    source: str
    where: str
    method: str
    model: str
    column: str
    metric: str
    value: float
    unit: str = "%"
    note: str = ""
    protocol: str = ""


@cache
def published() -> tuple[Published, ...]:
    """Return all printed numbers, paper by paper in the order of the tables."""
    found = []
    for path in sorted(files("everlora.literature").joinpath("papers").iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".yaml"):
            continue
        page = read_yaml(path.read_text(encoding="utf-8"))
        for table in page["tables"]:
            units = table.get("units", [table.get("unit", "%")] * len(table["columns"]))
            for method, values in table["rows"].items():
                for column, unit, value in zip(table["columns"], units, values, strict=True):
                    if value is not None:
                        found.append(
                            Published(
                                paper=page["paper"],
                                source=page["source"],
                                where=table["where"],
                                method=method,
                                model=table["model"],
                                column=column,
                                metric=table["metric"],
                                value=float(value),
                                unit=unit,
                                protocol=page.get("protocol", ""),
                                note=table.get("notes", {}).get(method, ""),
                            )
                        )
    return tuple(found)
