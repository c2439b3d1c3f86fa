"""Reads rows from Excel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from everlora.core.errors import DataError
from everlora.data.header import check_header, refuse_header
from everlora.data.table import Table, check_columns
from everlora.metrics.texts import visible


def read_sheet(data: bytes, path: Path) -> Table:
    """Read the first sheet of an Excel file, whose first row names the columns.

    Raises:
        DataError: openpyxl is not installed, or the file is damaged or has no header with rows below it.
    """
    try:
        from openpyxl import load_workbook  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise DataError(
            f"{path}: reading Excel files needs openpyxl; install everlora[excel], or save as CSV"
        ) from None
    try:
        sheet = load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
        records = [list(record) for record in sheet.iter_rows(values_only=True)]
    except Exception as error:  # damaged archives and XML come as many kinds of exceptions
        raise DataError(f"{path} is not a sound Excel file ({error}); save it again, or as CSV") from error
    return sheet_table(records, path)


def sheet_table(records: list[list[Any]], path: Path) -> Table:
    """Make a table of the cells of a sheet; every cell belongs to the column above it, whether that has a name or not.

    A first column without a name is read under an empty one, as in CSV: pandas writes its index so.

    Raises:
        DataError: there are no rows, a column with cells has no name or that of another, or the header stands twice.
    """
    while records and not any(cell is not None for cell in records[-1]):
        records.pop()
    if len(records) < 2:
        raise DataError(f"{path} holds no rows; give it a header and at least one")
    width = max(map(len, records))
    check_columns(width, str(path))
    cells = [[*record, *[None] * (width - len(record))] for record in records]
    names = ["" if name is None else visible(str(name)).strip() for name in cells[0]]
    used = [place for place, name in enumerate(names) if name or _filled(cells, place)]
    for place in used:
        if place and not names[place]:
            first = next(number for number, record in enumerate(cells, start=1) if record[place] is not None)
            raise DataError(f"{path}, row {first}: a cell in column {place + 1}, which has no name in row 1; name it")
    header = [names[place] for place in used]
    check_header(header, str(path))
    rows = []
    for number, record in enumerate(cells[1:], start=2):
        row = [record[place] for place in used]
        refuse_header(["" if cell is None else str(cell) for cell in row], header, f"{path}, row {number}")
        rows.append(dict(zip(header, row, strict=True)))
    return Table(where=str(path), rows=rows, numbers=range(2, len(rows) + 2))


def _filled(cells: Sequence[Sequence[Any]], place: int) -> bool:
    return any(record[place] is not None for record in cells)
