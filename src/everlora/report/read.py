"""Reads runs for figures: in groups of one method over its seeds and orders, with what differs between the groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.analysis.answers import ScoredRun, find, read
from everlora.analysis.comparison import Comparison, Row
from everlora.analysis.tables import compare
from everlora.core.errors import ConfigError

if TYPE_CHECKING:
    from everlora.analysis.runs import Run

Grouped = Mapping[str, Sequence[ScoredRun]]
Compared = tuple[Comparison, Grouped]
_SHARED: dict[tuple[Path, ...], Compared] = {}
"""What the figures of one page share, so that runs are not read and resampled for each of them."""


@contextmanager
def sharing(paths: Sequence[Path], known: Compared) -> Iterator[None]:
    """Let figures of these runs take a table that is there, inside the block."""
    key = tuple(paths)
    _SHARED[key] = known
    try:
        yield
    finally:
        del _SHARED[key]


def compared(paths: Sequence[Path]) -> Compared:
    """Return the table of runs, and the runs of each row, the best first.

    Raises:
        EverloraError: no run, damaged, unfinished, or of different protocols.
    """
    if (known := _SHARED.get(tuple(paths))) is not None:
        return known
    found = [read(path) for path in find(paths)]
    return grouped(compare(found), found)


def grouped(table: Comparison, found: Sequence[ScoredRun]) -> Compared:
    """Return a table with the runs of each of its rows, the best first."""
    by_path = {str(run.path): run for run in found}
    rows = sorted(rows_of(table), key=lambda row: -oa(row))
    return table, {row.method: [by_path[folder] for folder in row.folders] for row in rows}


def rows_of(table: Comparison) -> list[Row]:
    """Return the rows of all sections."""
    return [row for section in table.sections for row in section.rows]


def oa(row: Row) -> float:
    """Return the overall accuracy of a row; below all others where it is unknown."""
    found = row.metrics["oa"]
    return found.mean if found else -1.0


def weights(paths: Sequence[Path]) -> dict[str, Run]:
    """Read the weights of runs, of the first of each method alone, by method.

    Raises:
        ConfigError: a method trains no low-rank updates.
    """
    # Here, since the list of figures, and those that need no weights, need not wait for torch.
    from everlora.analysis.runs import Run

    found: dict[str, Run] = {}
    for path in find(paths):
        run = Run.read(path)
        if not run.method.adapter.loads_with_peft:
            raise ConfigError(f"{path} trains one {run.method.adapter.noun}, and the figure is of low-rank updates")
        found.setdefault(run.settings.method, run)
    return found
