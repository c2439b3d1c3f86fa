"""Prints tables on stdout, by rich alone, so that commands which only list things start at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from everlora.core.errors import printable

if TYPE_CHECKING:
    from everlora.archive.results import MatrixRecord

out_console = Console()
NAMES_FIT = 40
"""Letters that the names of all tasks may take in the head of a table."""


def plain(text: str) -> Text:
    """Return a text as it stands: brackets are no markup, and nothing in it commands the terminal."""
    return Text(printable(text))


def table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]], *, unbroken: Iterable[str] = ()) -> Table:
    """Return a table of plain texts; the columns ``unbroken`` are never broken into lines."""
    made = Table(title=plain(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        made.add_column(plain(head), no_wrap=head in unbroken)
    for row in rows:
        made.add_row(*map(plain, row))
    return made


def number(value: float | None) -> str:
    """Return a cell of a table; undefined stays undefined."""
    return "–" if value is None else f"{value:.1f}"


def show(*tables: Table) -> None:
    """Print tables on stdout with all their columns: a narrow terminal wraps lines, but nothing is left out."""
    console = Console(width=10_000)
    for table in tables:
        console.print(table)


def _grid(title: str, first: str, tasks: list[str]) -> Table:
    """Return an empty table with a column per task: by name where that fits on a screen, by number where not."""
    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column(plain(first))
    for number_, task in enumerate(tasks, start=1):
        table.add_column(plain(task if len("  ".join(tasks)) < NAMES_FIT else str(number_)), justify="right")
    return table


def summary(results: Sequence[MatrixRecord]) -> Table:
    """Return a table of methods against tasks, with OA, BWT and forgetting."""
    table = _grid("after the last task, percent correct", "method", results[0].tasks)
    for name in ("OA", "BWT", "forgetting"):
        table.add_column(name, justify="right", style="bold")
    ids = ["oa", "bwt", "forgetting"]
    if any(result.metrics.get("general_delta") is not None for result in results):
        table.add_column("general", justify="right", style="bold")
        ids.append("general_delta")
    for result in results:
        last = [number(cell) for cell in result.matrix[-1]]
        table.add_row(plain(result.method), *last, *(number(result.metrics[k]) for k in ids))
    return table


def made(result: MatrixRecord) -> str:
    """Say by which protocol, and how, the figures of one run were made."""
    prints = result.fingerprints.of
    unsteady = any(one.batch_invariant is False for one in prints.values())
    warned = "; an answer changed with the rows that were answered beside it" if unsteady else ""
    protocol = result.protocol.describe() if result.protocol else "unknown"
    return f"protocol {protocol}; fingerprint {', '.join(prints)}{warned}"


def matrix(result: MatrixRecord) -> Table:
    """Return the accuracy matrix of one run."""
    tasks, general = result.tasks, result.general
    table = _grid(f"{result.method}: accuracy on each task after learning each task", "after learning", tasks)
    rows = [general.before, *general.after] if general else [None]
    measures = list(next(filter(None, rows), {}))
    for measure in measures:
        table.add_column(plain(measure), justify="right", style="dim")

    def line(name: str, cells: Iterable[float | None], measured: Mapping[str, float] | None) -> None:
        table.add_row(plain(name), *map(number, cells), *(number((measured or {}).get(m)) for m in measures))

    if measures or result.base is not None:
        line("0 nothing yet", result.base or [None] * len(tasks), rows[0])
    # Where all tasks are learned at once, there is one row, the last.
    late = [None] * (len(tasks) - len(rows) + 1) + rows[1:]
    for k, (name, row) in enumerate(zip(tasks, result.matrix, strict=True), start=1):
        line(f"{k} {name}", row, late[k - 1])
    return table
