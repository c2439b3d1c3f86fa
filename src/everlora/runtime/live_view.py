"""Draws a run while it goes on: which task, how far, the matrix so far, and how long everything still takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from everlora.core.errors import printable
from everlora.runtime.time_left import Plan

SHOWN_ROWS, SHOWN_TASKS, LETTERS = 8, 12, 12
"""Rows and columns of the matrix up to which it is shown; a longer one is shown by its newest. Letters of a name."""


class LiveView(Bars):
    """Shows bars of the work in hand under a line about the whole, and the matrix so far.

    Attributes:
        head: the line about the whole.
        plan: of the tasks of the run.
        rows: scores of the stages that are done, percent by task.
    """

    def __init__(self, console: Console, *, disable: bool) -> None:
        self.head = ""
        self.plan = Plan(())
        self.rows: list[Mapping[str, float]] = []
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=disable,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn, from the top."""
        if self.rows and self.plan.tasks:
            yield matrix_so_far(self.plan, self.rows)
        if self.head:
            yield Text(self.head)
        yield self.make_tasks_table(self.tasks)


def matrix_so_far(plan: Plan, rows: Sequence[Mapping[str, float]]) -> Table:
    """Return the newest rows of an accuracy matrix, of the tasks that were scored, with the mean over those learned.

    Args:
        plan: of the tasks.
        rows: scores after each stage, percent by task.
    """
    tasks, learned = plan.tasks, plan.learned(rows)
    scored = [name for name in tasks if any(name in row for row in rows)][-SHOWN_TASKS:]
    table = Table(box=None, padding=(0, 1), show_edge=False)
    table.add_column("after")
    for name in scored:
        table.add_column(Text(printable(_short(name))), justify="right")
    table.add_column("mean", justify="right")
    first = max(0, len(rows) - SHOWN_ROWS)
    for number, row in enumerate(rows[first:], start=first):
        own = tasks[number] if number < len(tasks) else ""
        cells = [
            Text(f"{row[name]:.1f}", style="bold" if name == own else "") if name in row else "" for name in scored
        ]
        known = learned[number].values() if number < len(learned) else ()
        mean = f"{sum(known) / len(known):.1f}" if known else ""
        table.add_row(Text(printable(f"{number + 1} {_short(own)}")), *cells, mean)
    return table


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def in_words(seconds: float) -> str:
    """Write a time in whole minutes.

    >>> in_words(95), in_words(7500)
    ('2 min', '2 h 5 min')
    """
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
