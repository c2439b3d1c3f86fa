"""Finds which columns of a row hold what: by their names as many tools write them, or as a user says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from everlora.core.errors import DataError
from everlora.data.prompt_parts import check_one_system, spare, unknown_columns
from everlora.data.rows import Table
from everlora.data.table import Row
from everlora.data.task import Form
from everlora.metrics.texts import visible


@dataclass(frozen=True)
class Convention:
    """Holds names of columns of one way of writing rows; ``target`` is empty for chats, which hold the answer.

    ``free`` answers are no labels unless a set of labels is given.
    """

    form: Form
    input: str
    target: str = ""
    free: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that a row must have."""
        return (self.input, self.target) if self.target else (self.input,)


@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Holds names of columns that a user gives; None where the usual one holds."""

    text_column: str | None = None
    label_column: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    messages_column: str | None = None
    system_column: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))


NAMED = "text_column and label_column, prompt_column and completion_column, messages_column, system_column"
CONVENTIONS = (
    Convention("chat", "messages"),
    Convention("prompted", "prompt", "completion"),
    Convention("prompted", "prompt", "answer"),  # as TRACE writes them
    Convention("labelled", "input", "output"),  # as Super-NaturalInstructions writes them
    Convention("image", "image", "label", free=False),
    Convention("labelled", "text", "label", free=False),
)
QUESTIONS = (
    Convention("labelled", "question", "answer"),
    Convention("labelled", "question", "response"),
    Convention("labelled", "query", "reply"),
    Convention("labelled", "query", "response"),
    Convention("labelled", "query", "answer"),
    Convention("labelled", "input", "response"),
    Convention("prompted", "prompt", "response"),
    Convention("prompted", "prompt", "reply"),
)
"""Looked for where none of the others fits; `instruction` with an answer is a dialect, see `dialects`."""


def find_convention(table: Table, names: ColumnNames | None = None) -> Convention:
    """Decide by the columns of the first row how rows are to be read.

    Raises:
        DataError: no convention fits, or several do; the message names the columns found.
    """
    if not table.rows:
        raise DataError(f"{table.where} is empty; give it at least one row")
    found = list(table.rows[0])
    if names:
        return _as_named(names, found, table.where)
    fitting = [c for c in CONVENTIONS if set(c.columns) <= set(found)]
    fitting = fitting or [c for c in QUESTIONS if set(c.columns) <= set(found)]
    if len(fitting) == 1:
        return fitting[0]
    known = "; ".join(" + ".join(c.columns) for c in fitting or (*CONVENTIONS, QUESTIONS[0]))
    spelling = {visible(column).lower().strip() for column in map(str, found)}
    meant = next((" and ".join(c.columns) for c in (*CONVENTIONS, *QUESTIONS) if set(c.columns) <= spelling), "")
    if meant and not fitting:
        listed = ", ".join(column if column.isprintable() else ascii(column) for column in map(str, found))
        raise DataError(f"{table.where}: its columns are {listed}; spell them {meant}")
    if fitting:
        raise DataError(
            f"{table.where}: the columns can be read in several ways ({known}); keep one of them, or give {NAMED}"
        )
    raise DataError(
        f"{table.where}: no usable columns (found: {', '.join(map(str, found))}); wanted one of: {known}; "
        f"other names go into {NAMED}"
    )


def _as_named(names: ColumnNames, found: list[Any], where: str) -> Convention:
    """Return the convention of columns that a user has named.

    Raises:
        DataError: names of several conventions are mixed.
    """
    closed = bool(names.text_column or names.label_column)
    prompted = bool(names.prompt_column or names.completion_column)
    if closed + prompted + bool(names.messages_column) > 1 or (closed and names.system_column):
        raise DataError(f"{where}: name columns of one way of writing rows, not of several ({NAMED})")
    if names.messages_column:
        return Convention("chat", names.messages_column)
    if closed:
        if not names.text_column and "image" in found and "text" not in found:
            return Convention("image", "image", names.label_column or "label", free=False)
        pair = (names.text_column or "text", names.label_column or "label")
        # A question with its answer is free text under whichever key its columns are named.
        free = next((c for c in (*CONVENTIONS, *QUESTIONS) if c.columns == pair and c.free), None)
        return free or Convention("labelled", *pair, free=False)
    if prompted:
        answer = names.completion_column or next((c for c in ("completion", "answer") if c in found), "completion")
        return Convention("prompted", names.prompt_column or "prompt", answer)
    return find_convention(Table(where=where, rows=[dict.fromkeys(found)], numbers=[1]))


def with_system(table: Table, names: ColumnNames | None) -> tuple[Table, ColumnNames | None]:
    """Make chats of rows whose system prompt stands in a column of its own; other rows stay as they are.

    Raises:
        DataError: a row lacks the column, or is of a kind that has no system prompt.
    """
    if not names or not names.system_column:
        return table, names
    convention = find_convention(table, names)
    if convention.form == "image":
        raise DataError(f"{table.where}: pictures have no system prompt; leave system_column out")
    if not convention.free:
        raise DataError(
            f"{table.where}: rows of {' and '.join(convention.columns)} have an instruction and a label set, and no "
            f"system prompt; give instruction: instead of system_column, or name prompt_column and completion_column"
        )
    rows, read = [], (names.system_column, *convention.columns)
    for index, row in enumerate(table.rows):
        for column in (names.system_column, *convention.columns):
            if column not in row:
                raise DataError(f"{table.at(index)}: no column {column!r} (found: {', '.join(map(str, row))})")
        chat = _chat(row, convention, names.system_column, table.at(index))
        rows.append({**spare(row, read), "messages": chat})
    unread = unknown_columns(table.rows, read)
    table = replace(table, rows=rows, called={"messages": convention.input}, unread=unread)
    return table, ColumnNames(messages_column="messages")


def _chat(row: Row, convention: Convention, system: str, at: str) -> Any:
    first = [{"role": "system", "content": row[system]}] if row[system] else []
    value = row[convention.input]
    if convention.form == "chat":
        check_one_system(first, value, system, at)
        return [*first, *value] if isinstance(value, list | tuple) else value
    return [*first, {"role": "user", "content": value}, {"role": "assistant", "content": row[convention.target]}]
