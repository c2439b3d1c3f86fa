"""Holds the rows of one split in memory, each of which knows where it stood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from everlora.core.errors import DataError

Row = Mapping[str, object]
"""A row by column: whatever a user's file holds, until it is read as text, label, chat or image."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Holds rows of one split.

    Attributes:
        where: the file, hub data set or object that the rows come from, for messages.
        rows: one mapping a row.
        numbers: the number of each row in ``where``.
        class_names: names behind the whole numbers of a column (`datasets.ClassLabel`).
        folder: the folder against which paths inside rows are read; None when there is none.
        called: what the file calls a column that we call otherwise, for messages.
        unread: columns of the file that are no longer in ``rows``, and that nothing was made of.
    """

    where: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None
    called: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def at(self, index: int) -> str:
        """Say where row ``index`` stands."""
        return f"{self.where}, row {self.numbers[index]}"

    def pick(self, indices: Iterable[int]) -> Table:
        """Return the rows at ``indices``, which keep their numbers."""
        chosen = list(indices)
        return replace(self, rows=[self.rows[i] for i in chosen], numbers=[self.numbers[i] for i in chosen])

    def with_rows(self, rows: Sequence[Row]) -> Table:
        """Return the table with each row in another form."""
        return replace(self, rows=rows)


def class_names(features: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return the names of every `datasets.ClassLabel` column."""
    from datasets import ClassLabel

    return {column: tuple(kind.names) for column, kind in features.items() if isinstance(kind, ClassLabel)}


MOST_COLUMNS = 10_000


def check_columns(count: int, at: str) -> None:
    """Refuse a row or a header of more columns than any data have.

    Raises:
        DataError: there are more; the message starts with ``at``.
    """
    if count > MOST_COLUMNS:
        raise DataError(f"{at}: {count:,} columns; a row of data has at most {MOST_COLUMNS:,}")
