"""Reads rows as LlamaFactory and EasyCL write them, alpaca and sharegpt, and their ``dataset_info.json``.

alpaca rows have ``instruction`` and ``output``, perhaps ``input``, ``system`` and ``history``; sharegpt rows have
``conversations`` of ``from`` and ``value``. Both become prompt and completion, or messages where there is more than
one turn. Other columns are refused when they would change the prompt (images, tools), and ignored otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from everlora.core.errors import DataError, nearest
from everlora.core.plain import JsonObject
from everlora.data.prompt_parts import spare, unknown_columns
from everlora.data.rows import Row, Table, decode, parse_json, read_bytes, read_table

INFO = "dataset_info.json"
ORDERS = "benchmark_info.json"
OPTIONS = "dataset_options.json"
ROLES = {"human": "user", "gpt": "assistant"}
QUERIES = ("input", "context", "question", "query", "text")
"""What stands behind an instruction in rows of alpaca, Dolly and their like: the first of them that is there."""
ENDINGS = {"train": ("_train", ""), "dev": ("_dev", "_eval", "_validation"), "test": ("_test",)}


class Columns(BaseModel):
    """Holds names of columns, as ``columns`` of an entry gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: StrictStr = "instruction"
    query: StrictStr = "input"
    response: StrictStr = "output"
    system: StrictStr = "system"
    history: StrictStr = "history"
    messages: StrictStr = "conversations"


class Tags(BaseModel):
    """Holds names inside a sharegpt conversation, as ``tags`` of an entry gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role_tag: StrictStr = "from"
    content_tag: StrictStr = "value"
    user_tag: StrictStr = "human"
    assistant_tag: StrictStr = "gpt"
    system_tag: StrictStr = "system"
    observation_tag: StrictStr = "observation"
    function_tag: StrictStr = "function_call"


class Entry(BaseModel):
    """Holds one data set of ``dataset_info.json`` that lies in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: StrictStr
    formatting: Literal["alpaca", "sharegpt"] = "alpaca"
    split: StrictStr | None = None
    columns: Columns = Columns()
    tags: Tags = Tags()
    file_sha1: StrictStr | None = None
    num_samples: Annotated[int, Field(ge=1)] | None = None
    ranking: Literal[False] = False


def familiar(table: Table) -> Table:
    """Return rows of either dialect as rows of ours; all other rows as they are."""
    found = set(table.rows[0]) if table.rows else set()
    if "instruction" in found and not ({"prompt", "messages"} & found or {"text", "label"} <= found):
        # Dolly's rows have a response, and a context where alpaca's have an input.
        response = next((column for column in ("output", "response", "answer") if column in found), None)
        if response is not None:
            query = next((column for column in QUERIES if column in found), QUERIES[0])
            return alpaca(table, Columns(response=response, query=query))
    if "conversations" in found:
        return sharegpt(table, Columns(), Tags())
    return table


def alpaca(table: Table, columns: Columns) -> Table:
    """Return alpaca rows as prompts, or as chats if one of them has a system prompt or a history.

    Raises:
        DataError: a column is missing or of the wrong kind.
    """
    for index, row in enumerate(table.rows):
        _refuse_media(row, table.at(index))
        for column in (columns.prompt, columns.response):
            if column not in row:
                raise DataError(f"{table.at(index)}: no column {column!r} (found: {', '.join(row)})")
    chat = any(row.get(columns.system) or row.get(columns.history) for row in table.rows)
    read = (columns.prompt, columns.query, columns.response, *((columns.system, columns.history) if chat else ()))
    rows = [{**spare(row, read), **_alpaca(row, columns, table.at(i), chat)} for i, row in enumerate(table.rows)]
    called = {"prompt": columns.prompt, "completion": columns.response}
    return replace(table, rows=rows, called=called, unread=unknown_columns(table.rows, read))


def alike(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the splits of a task all as chats, where one of them has become chats and the prompts of others are ours.

    An alpaca row is a chat as soon as one row of its task has a history or a system prompt, in whichever split.
    """
    if not any("messages" in table.rows[0] for table in tables.values() if table.rows):
        return dict(tables)
    return {split: _as_chats(table) if "prompt" in table.called else table for split, table in tables.items()}


def _as_chats(table: Table) -> Table:
    """Return prompts that were made of alpaca rows as chats of one turn."""
    rows = []
    for row in table.rows:
        if "messages" in row:
            return table
        turns = {"user": row["prompt"], "assistant": row["completion"]}
        messages = [{"role": role, "content": content} for role, content in turns.items()]
        rows.append({**{c: value for c, value in row.items() if c not in _OURS}, "messages": messages})
    return replace(table, rows=rows)


_OURS = ("prompt", "completion")


def _alpaca(row: Row, columns: Columns, at: str, chat: bool) -> Row:
    parts = [row[columns.prompt] or "", row.get(columns.query) or ""]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise DataError(f"{at}: columns {columns.prompt!r} and {columns.query!r} must hold text")
    prompt = "\n".join(text for text in texts if text.strip())
    if not chat:
        return {"prompt": prompt, "completion": row[columns.response]}
    system = row.get(columns.system)
    messages = [{"role": "system", "content": system}] if system else []
    history = row.get(columns.history) or ()
    for turn in history if isinstance(history, list | tuple) else (history,):
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise DataError(f"{at}: {columns.history!r} must be a list of pairs of question and answer")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": row[columns.response]}]
    return {"messages": messages}


def sharegpt(table: Table, columns: Columns, tags: Tags) -> Table:
    """Return sharegpt rows as chats.

    Raises:
        DataError: a conversation is none, or has a role that we do not know.
    """
    roles = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system", **ROLES}
    rows = []
    for index, row in enumerate(table.rows):
        at = table.at(index)
        _refuse_media(row, at)
        turns = row.get(columns.messages)
        if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
            raise DataError(f"{at}: {columns.messages!r} must be a list of objects (found: {', '.join(row)})")
        messages: list[dict[str, object]] = []
        if row.get(columns.system):
            messages.append({"role": "system", "content": row[columns.system]})
        for number, turn in enumerate(turns, start=1):
            role = turn.get(tags.role_tag)
            if not isinstance(role, str) or role not in roles:  # JSON may hold a list, which no dict can look up
                raise DataError(f"{at}: turn {number} has the role {role!r}{nearest(str(role), roles)}")
            # Weights and calls of tools that stand in a turn belong to its message, where they are looked at.
            more = {key: part for key, part in turn.items() if key not in (tags.role_tag, tags.content_tag)}
            messages.append(more | {"role": roles[role], "content": turn.get(tags.content_tag)})
        if sum(message["role"] == "system" for message in messages) > 1:
            raise DataError(f"{at}: more than one system prompt, in column {columns.system!r} or in turns; keep one")
        rows.append({**spare(row, (columns.messages, columns.system)), "messages": messages})
    return replace(table, rows=rows, unread=unknown_columns(table.rows, (columns.messages, columns.system)))


def _refuse_media(row: Row, at: str) -> None:
    for column in ("images", "videos", "audios", "tools"):
        if row.get(column):
            raise DataError(f"{at}: column {column!r} cannot be used here; give rows of text alone")


def described(info: Path, name: str) -> tuple[dict[str, Table], dict[str, int]]:
    """Return tables of the splits of a data set: ``name_train`` (or ``name``), ``name_dev`` and ``name_test``.

    Returns:
        The tables by split, and how many rows are not in them, by split and reason.

    Raises:
        DataError: the description has no training entry of that name, or a file cannot be used.
    """
    content = read_description(info)
    tables, left_out = {}, {}
    for split, endings in ENDINGS.items():
        entries = [name + ending for ending in endings if name + ending in content]
        if len(entries) > 1:
            raise DataError(f"{info} has {entries[0]!r} and {entries[1]!r} for one split; rename one")
        if entries:
            tables[split], left = _described(info, entries[0], content[entries[0]])
            if left:
                left_out[f"{split}: num_samples takes the first ones only"] = left
    if "train" not in tables:
        raise DataError(f"{info} has no entry {name!r} or {name + '_train'!r}{nearest(name, content)}")
    return tables, left_out


def _described(info: Path, name: str, content: Any) -> tuple[Table, int]:
    if not isinstance(content, dict):
        raise DataError(f'{info}, entry {name!r}: must be an object such as {{"file_name": ...}}, found {content!r}')
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"]))
        what = "is not understood here" if first["type"] == "extra_forbidden" else first["msg"].lower()
        raise DataError(
            f"{info}, entry {name!r}: {key!r} {what}; wanted file_name, formatting, columns, tags"
        ) from None
    file = info.parent / entry.file_name
    table = read_table(file)
    if entry.file_sha1 not in (None, hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()):
        raise DataError(f"{info}, entry {name!r}: {file} has another SHA-1 than file_sha1; copy the file again")
    rows = len(table.rows)
    if entry.num_samples is not None:
        table = table.pick(range(min(entry.num_samples, rows)))
    left = rows - len(table.rows)
    if entry.formatting == "alpaca":
        return alpaca(table, entry.columns), left
    return sharegpt(table, entry.columns, entry.tags), left


def read_description(path: Path) -> JsonObject:
    """Read a JSON object.

    Raises:
        DataError: the file holds something else.
    """
    content = parse_json(decode(read_bytes(path), path), str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold an object of data sets by name")
    return content


def order_of(path: Path, order: str | None) -> tuple[str, ...]:
    """Return the tasks in an order of EasyCL's ``benchmark_info.json``; the first order by default.

    Raises:
        DataError: there is no such order.
    """
    orders: dict[str, Any] = {}
    for entry in read_description(path).values():
        declared = entry.get("orders") if isinstance(entry, dict) else None
        if not isinstance(declared, dict):
            raise DataError(f'{path} must hold {{"name": {{"orders": {{"order1": [...]}}}}}}')
        if twice := sorted(set(orders) & set(declared)):
            raise DataError(f"{path} has two orders {twice[0]!r}; rename one")
        orders |= declared
    wanted = order or next(iter(orders), "")
    names = orders.get(wanted)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} has no order {wanted!r} that is a list of tasks{nearest(wanted, orders)}")
    return tuple(names)


def options_of(path: Path, name: str) -> tuple[str, ...]:
    """Return the label set of a data set in EasyCL's ``dataset_options.json``; empty where there is none.

    Raises:
        DataError: the file is there and holds something else.
    """
    entry = read_description(path).get(name, {"options": []}) if path.is_file() else {"options": []}
    options = entry.get("options") if isinstance(entry, dict) else None
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError(f'{path} must hold {{"{name}": {{"options": [...]}}}}, a list of labels')
    return tuple(map(str, options))
