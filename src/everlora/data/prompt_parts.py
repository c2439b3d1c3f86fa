"""Finds columns that look like a part of the prompt: each is learned, or refused by name; none is lost in silence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from everlora.core.errors import DataError
from everlora.data.table import Row, Table
from everlora.data.task import Example

TEXTS = ("instruction", "input", "text", "prompt", "query", "question", "context", "passage", "premise", "hypothesis")
SENTENCES = ("sentence", "sentence1", "sentence2")
MEDIA = ("image", "images", "video", "videos", "audio", "audios", "document", "documents")
AROUND = ("system", "system_prompt", "system_message", "sys", "history", "choices", "options", "tools", "functions")
PARTS = frozenset({*TEXTS, *SENTENCES, *MEDIA, *AROUND, "chat_template_kwargs"})
"""Names, in any case, of columns that belong to a prompt in some way of writing rows."""
WEIGHTS = frozenset({"weight", "sample_weight", "loss_weight", "example_weight"})
"""Names of columns by which tools count a row more or less than once."""
NUMBERS = frozenset({"id", "_id", "idx", "index", "row_id", "uuid", "guid", "unnamed: 0", "__index_level_0__"})
"""Names of columns that number the rows: nobody expects a model to read them."""


def plain_column(column: object) -> str:
    """Return a column's name as it is compared: without case and the spaces around it."""
    return str(column).strip().casefold()


def spare(row: Row, read: Collection[str]) -> Row:
    """Return what a row that is written in another way must keep: the parts of a prompt that were not read from it.

    >>> spare({"question": "Why?", "source": "web", "answer": "So."}, read=("answer",))
    {'question': 'Why?'}
    """
    looked_at = PARTS | WEIGHTS
    return {column: row[column] for column in row if column not in read and plain_column(column) in looked_at}


def unknown_columns(rows: Sequence[Row], read: Collection[str]) -> tuple[str, ...]:
    """Return the columns that nothing is made of, and whose names say nothing to us: `check_unread` has the others.

    >>> unknown_columns([{"text": "a", "label": "b", "title": "c", "id": 1, "note": None}], ("text", "label"))
    ('title',)
    """
    known = PARTS | NUMBERS | WEIGHTS
    filled = {
        str(column): None for row in rows for column, value in row.items() if column not in read and _filled(value)
    }
    return tuple(column for column in filled if plain_column(column) not in known)


def check_unread(row: Row, read: Collection[str], example: Example, at: str) -> None:
    """Refuse a row with a filled column that looks like a part of the prompt and whose text is not in the prompt.

    Args:
        row: with all its columns.
        read: the columns that ``example`` was made of.
        example: what is learned of the row.
        at: where the row stands, for messages.

    Raises:
        DataError: there is such a column, or the row has a weight other than 1.
    """
    for column, value in spare(row, read).items():
        if not _filled(value):
            continue
        if plain_column(column) in WEIGHTS:
            if not _is_one(value):
                raise DataError(
                    f"{at}: the row has the {column} {value!r}, and every row counts as 1; leave rows out that are "
                    f"not to be learned, or name the column under ignore_columns"
                )
        elif not _learned(value, example):
            raise DataError(
                f"{at}: column {column!r} would change the prompt and is not read; write it into the text, or name "
                f"it under ignore_columns"
            )


def check_one_system(first: Sequence[object], messages: object, column: str, at: str) -> None:
    """Refuse a system prompt from a column where the chat begins with one of its own.

    Raises:
        DataError: both are there.
    """
    roles = [one.get("role") for one in messages if isinstance(one, Mapping)] if isinstance(messages, list) else []
    if first and "system" in roles:
        raise DataError(f"{at}: a system prompt stands in column {column!r} and in the chat; keep one of them")


def check_instruction(name: str, instruction: str, form: str) -> None:
    """Refuse an instruction for rows that have no place for it.

    Raises:
        DataError: the prompts are given as a whole, or are pictures.
    """
    if instruction and form != "labelled":
        kind = {"prompted": "prompts that are given as a whole", "chat": "chats"}.get(form, "pictures")
        raise DataError(
            f"task {name!r}: its rows are {kind}, to which no instruction is added; write it into the rows, or leave "
            f"instruction out"
        )


def without_columns(table: Table, ignored: Sequence[str]) -> Table:
    """Return a table without the columns that a user does not want to be read.

    Raises:
        DataError: no row has one of them.
    """
    if not ignored:
        return table
    found = {str(column): None for row in table.rows for column in row}
    for column in ignored:
        if column not in found:
            listed = ", ".join(found)
            raise DataError(f"{table.where}: ignore_columns names {column!r}, and no row has it (found: {listed})")
    return table.with_rows([{c: value for c, value in row.items() if c not in ignored} for row in table.rows])


def _filled(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, float) and math.isnan(value):  # an empty cell of pandas
        return False
    if isinstance(value, Mapping | list | tuple):
        return len(value) > 0
    return value is not None


def _is_one(value: Any) -> bool:
    try:
        return float(value) == 1
    except (TypeError, ValueError):
        return False


def _learned(value: Any, example: Example) -> bool:
    """Return whether a column says nothing new: it is in the prompt, or is prompt and answer written out together."""
    if isinstance(value, list | tuple):
        return all(isinstance(one, str) and _learned(one, example) for one in value)
    if not isinstance(value, str):
        return False
    if isinstance(example.input, str):
        prompt = example.input
    elif isinstance(example.input, list | tuple):
        prompt = "\n".join(str(message.get("content")) for message in example.input)
    else:
        return False
    pieces = [*filter(None, map(str.strip, prompt.split("\n"))), example.target.strip()]
    return value.strip() in prompt or all(piece in value for piece in pieces)
