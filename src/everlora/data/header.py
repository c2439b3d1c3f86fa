"""Checks the names of the columns of a table, as its first row or its schema gives them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

from everlora.core.errors import DataError
from everlora.metrics.texts import visible

ALIKE = 0.85
"""A cell that is so like a column's name is that name in another spelling."""


def check_header(names: Sequence[str], where: str) -> None:
    """Refuse columns of one name, of which a row would keep the last.

    Raises:
        DataError: it is so.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        called = f"are called {twice[0]!r}; rename one" if twice[0] else "have no name; name them"
        raise DataError(f"{where}: two columns {called}")


def refuse_header(record: Sequence[str], header: Sequence[str], at: str) -> None:
    """Refuse a row that is a header once more, as in files that were joined; names may differ a little from before.

    Raises:
        DataError: it is one; the message starts with ``at``.
    """
    if _is_header(record, header):
        raise DataError(f"{at}: the header stands here again, as in files that were joined; remove it")


def _is_header(record: Sequence[str], header: Sequence[str]) -> bool:
    """Return whether most cells are different names of columns, or all of them are nearly so and one is a name."""
    names = {name.casefold() for name in header if name}
    longest = 2 * max(map(len, names), default=0)
    cells = [visible(cell).strip().casefold() for cell in record if len(cell) <= longest]  # long texts are no names
    equal = names.intersection(cells)
    if not equal:
        return False
    if 2 * len(equal) > max(len(names), len(record)):
        return True
    near = [cell for cell in cells if cell in names or difflib.get_close_matches(cell, names, n=1, cutoff=ALIKE)]
    return len(near) == len(record) == len(set(cells)) > 1
