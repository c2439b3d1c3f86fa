"""Says, with counts and an example, what is read otherwise than it stands in a user's files."""

from __future__ import annotations

from collections.abc import Mapping

from everlora.data.columns import Convention
from everlora.data.spelling import shown, visible
from everlora.data.table import Table


def reading_notes(tables: Mapping[str, Table], convention: Convention) -> tuple[str, ...]:
    """Say what is read otherwise than it stands in the files."""
    found = _rewritten(tables, convention.target)
    if convention.form == "image":
        from everlora.data.images import is_transparent

        count = sum(
            is_transparent(row[convention.input], table.at(index), table.folder)
            for table in tables.values()
            for index, row in enumerate(table.rows)
        )
        found += (f"{count} pictures have transparent parts, which are read as white",) if count else ()
    return found


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
