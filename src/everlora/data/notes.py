"""Says, with counts and an example, what is read otherwise than it stands in a user's files."""

from __future__ import annotations

from collections.abc import Mapping

from everlora.data.columns import Convention
from everlora.data.prompt_parts import unknown_columns
from everlora.data.spelling import shown
from everlora.data.table import Table
from everlora.metrics.texts import visible

LISTED = 8


def reading_notes(tables: Mapping[str, Table], convention: Convention, *, closed: bool) -> tuple[str, ...]:
    """Say what is read otherwise than it stands in the files, or is not read; ``closed`` answers are labels."""
    found = (*_unread(tables, convention), *(_rewritten(tables, convention.target) if closed else ()))
    if convention.form == "image":
        from everlora.data.images import is_transparent

        count = sum(
            is_transparent(row[convention.input], table.at(index), table.folder)
            for table in tables.values()
            for index, row in enumerate(table.rows)
        )
        found += (f"{count} pictures have transparent parts, which are read as white",) if count else ()
    return found


def _unread(tables: Mapping[str, Table], convention: Convention) -> tuple[str, ...]:
    """Say which columns nothing is made of."""
    rows = [row for table in tables.values() for row in table.rows]
    unread = [*(column for table in tables.values() for column in table.unread)]
    names = list(dict.fromkeys([*unread, *unknown_columns(rows, convention.columns)]))
    if not names:
        return ()
    what = "the columns {} are" if len(names) > 1 else "the column {} is"
    listed = ", ".join(map(shown, names[:LISTED])) + (", ..." if len(names) > LISTED else "")
    return (f"{what.format(listed)} not read; ignore_columns says that this is meant",)


def _rewritten(tables: Mapping[str, Table], column: str) -> tuple[str, ...]:
    """Say how many labels are read in another spelling than that of the file, with an example."""
    cells = [row.get(column) for table in tables.values() for row in table.rows]
    found = [cell for cell in cells if isinstance(cell, str) and visible(cell) != cell]
    if not found:
        return ()
    return (
        f"{len(found)} labels hold invisible or decomposed characters and are read without: "
        f"{shown(found[0])} as {shown(visible(found[0]))}",
    )
