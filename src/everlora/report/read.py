"""Reads runs for figures: in groups of one method over its seeds and orders, with what differs between the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everlora.analysis.answers import ScoredRun, find, read
from everlora.analysis.comparison import Comparison, Row
from everlora.analysis.tables import compare
from everlora.core.errors import ConfigError

if TYPE_CHECKING:
    from everlora.analysis.runs import Run

Grouped = Mapping[str, Sequence[ScoredRun]]


def compared(paths: Sequence[Path]) -> tuple[Comparison, Grouped]:
    """Return the table of runs, and the runs of each row, the best first.

    Raises:
        EverloraError: no run, damaged, unfinished, or of different protocols.
    """
    found = [read(path) for path in find(paths)]
    table = compare(found)
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
