"""Reads rows from JSON Lines, JSON, CSV, TSV, Parquet and Excel, remembering where each row stood.

Reading is strict: a row that cannot be read stops with its file and number, and nothing is skipped. Row numbers are
what an editor or a spreadsheet shows: lines for JSON Lines, the header counting as row 1 for CSV, positions from 1
elsewhere.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from everlora.core.errors import DataError
from everlora.core.plain import Json, JsonObject
from everlora.data.header import check_header, refuse_header
from everlora.data.packed import PACKED, plain_name, unpacked
from everlora.data.parquet import read_parquet
from everlora.data.sheet import read_sheet
from everlora.data.table import Row as Row
from everlora.data.table import Table as Table
from everlora.data.table import check_columns
from everlora.data.table import class_names as class_names
from everlora.metrics.texts import visible

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
BOM = b"\xef\xbb\xbf"


def is_data_file(name: str) -> bool:
    """Return whether ``name`` ends like a file that `read_table` reads."""
    return plain_name(name).endswith(SUFFIXES)


def is_folder(name: str | Path) -> bool:
    """Return whether a benchmark's name is a path to a folder: it has a separator or is no plain word, and exists."""
    path = Path(name)
    return path.is_dir() and (isinstance(name, Path) or path.name != str(name))


def read_table(path: Path) -> Table:
    """Read a data file, or a folder that `datasets.Dataset.save_to_disk` has written.

    Raises:
        DataError: the file is missing, empty, damaged or of an unknown kind, or a row cannot be read.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, silent about names that no file system takes
        return _saved_to_disk(path)
    if not is_data_file(path.name) and not path.name.lower().endswith(PACKED):
        raise _unknown_kind(path)
    name, data = unpacked(_bytes(path), path)
    kind = Path(name).suffix
    if kind not in SUFFIXES:
        raise _unknown_kind(path)
    if kind in (".parquet", ".xlsx"):
        return replace((read_parquet if kind == ".parquet" else read_sheet)(data, path), folder=path.parent)
    if not data.removeprefix(BOM).strip():
        raise DataError(f"{path} is empty; give it at least one row")
    # The content and not the name says list or lines: many data sets on the hub call their JSON Lines '.json'.
    if kind in (".csv", ".tsv"):
        table = _csv(data, path, "\t" if kind == ".tsv" else ",")
    elif data.removeprefix(BOM).lstrip().startswith(b"["):
        table = _json_list(data, path)
    else:
        table = _json_lines(data, path)
    if not table.rows:
        raise DataError(f"{path} holds no rows; give it at least one")
    return replace(table, folder=path.parent)


def _unknown_kind(path: Path) -> DataError:
    kinds = f"{', '.join(SUFFIXES)} (or one of these packed: {', '.join(PACKED)})"
    return DataError(f"{path}: cannot tell the kind of file; use one of {kinds}")


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``, unpacked when its name or its first bytes say that it is packed.

    Raises:
        DataError: the file is missing, unreadable or damaged.
    """
    return unpacked(_bytes(path), path)[1]


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path} is no regular file but a device or a pipe; name a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def is_saved_to_disk(path: Path) -> bool:
    """Return whether `datasets` has written the folder ``path`` by ``save_to_disk``, as one split or several."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _saved_to_disk(path: Path) -> Table:
    if (path / "dataset_dict.json").is_file():
        raise DataError(f"{path} holds several splits of a data set; name one of them: {path / 'train'}")
    if not is_saved_to_disk(path):
        raise DataError(f"{path} is a folder; name a file in it, or its task folder under source: {{path: ...}}")
    from datasets import load_from_disk

    try:
        data: Any = load_from_disk(str(path))
        rows, names = list(data), class_names(data.features)
    except Exception as error:  # damaged files come out of Arrow and `datasets` as a dozen different exceptions
        raise DataError(f"{path} is no sound folder of save_to_disk ({error}); save it again") from error
    if not rows:
        raise DataError(f"{path} is empty; give it at least one row")
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1), class_names=names, folder=path)


def decode(data: bytes, path: Path) -> str:
    """Decode UTF-8 with or without a byte order mark.

    Raises:
        DataError: the bytes are not UTF-8; the message names the row of a JSON file, the line of another.
    """
    data = data.removeprefix(BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8")
        where = f"row {good.count(chr(10)) + 1}" if ".json" in path.name.lower() else f"line {good.count(chr(10)) + 1}"
        if good.lstrip().startswith("["):
            where = f"row {_rows_in(good) + 1}"
        raise DataError(
            f"{path}, {where}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from None


def parse_json(text: str, at: str) -> Any:
    """Parse one JSON value; one key twice in an object is refused, where `json` would keep the last.

    Raises:
        DataError: it is not JSON; the message starts with ``at``.
    """
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as error:  # a plain ValueError for a number of thousands of digits
        raise DataError(f"{at}: not sound JSON ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    line = f"line {error.lineno}, " if error.lineno > 1 else ""
    return f"{error.msg.removesuffix(' at')} at {line}column {error.colno}"


def _once(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {next(key for key in counted if counted[key] > 1)!r} stands twice")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_once)
_BETWEEN = re.compile(r"[\s,]*")


def _rows_in(text: str) -> int:
    """Return how many whole values a JSON list holds before it ends or breaks."""
    place, count = text.index("[") + 1, 0
    while True:
        try:
            _, place = _JSON.raw_decode(text, _BETWEEN.match(text, place).end())  # type: ignore[union-attr]
        except (ValueError, RecursionError):
            return count
        count += 1


def _object(value: Any, at: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f'{at}: not a JSON object but {type(value).__name__}; write {{"text": ..., "label": ...}}')
    check_columns(len(value), at)
    return value


def _json_lines(data: bytes, path: Path) -> Table:
    # Split at line feeds only: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    lines = decode(data, path).rstrip().split("\n")
    if lines[0].strip() == "{" and plain_name(path.name).endswith(".json"):
        raise DataError(f"{path}: one JSON object over several lines; wanted a list of objects, or one object a line")
    rows = []
    for number, line in enumerate(lines, start=1):
        at = f"{path}, row {number}"
        if not line.strip():
            raise DataError(f"{at}: an empty line between rows; remove it")
        rows.append(_object(parse_json(line, at), at))
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1))


def _json_list(data: bytes, path: Path) -> Table:
    text = decode(data, path)
    try:
        values = _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, row {_rows_in(text) + 1}: not sound JSON ({_reason(error)})") from None
    rows = [_object(value, f"{path}, row {number}") for number, value in enumerate(values, start=1)]
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1))


def _csv(data: bytes, path: Path, delimiter: str) -> Table:
    text = decode(data, path).rstrip("\r\n")
    limit = csv.field_size_limit(sys.maxsize)  # the default refuses texts beyond 131,072 characters
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [(number, record) for number, record in enumerate(reader, start=1)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not sound CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)
    header = [visible(name).strip() for name in records[0][1]]
    if not any(header):
        raise DataError(f"{path}, row 1: empty, where the names of the columns must stand; remove it")
    if header[0].startswith("#") and any(len(record) != len(header) for _, record in records[1:2]):
        raise DataError(f"{path}, row 1: a comment, where the names of the columns must stand; remove it")
    if len(header) == 1 and (other := next((mark for mark in ";\t|," if mark in header[0]), "")):
        raise DataError(f"{path}, row 1: one column, {header[0]!r}; separate by {delimiter!r} and not by {other!r}")
    check_columns(len(header), f"{path}, row 1")
    check_header(header, str(path))
    rows = []
    for number, record in records[1:]:
        refuse_header(record, header, f"{path}, row {number}")
        if len(record) != len(header):
            raise DataError(f"{path}, row {number}: {len(record)} fields where the header has {len(header)}")
        rows.append(dict(zip(header, record, strict=True)))
    return Table(where=str(path), rows=rows, numbers=range(2, len(rows) + 2))
