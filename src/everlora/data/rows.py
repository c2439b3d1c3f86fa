"""Read rows from JSON Lines, JSON, CSV, TSV and Parquet, remembering where each row stood.

Reading is strict: a row that cannot be read stops with its file and number, and nothing is skipped. Row numbers are
what an editor or a spreadsheet shows: lines for JSON Lines, the header counting as row 1 for CSV, positions from 1
elsewhere.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from everlora.core.errors import DataError
from everlora.data.unpack import check_unpacked, unpacked

Row = Mapping[str, Any]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
MOST_COLUMNS = 10_000
PARQUET_ROWS = 1000
"""Rows of a Parquet file that are unpacked at once."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one split.

    Attributes:
        where: the file, hub data set or object that the rows come from, for messages.
        rows: one mapping a row.
        numbers: the number of each row in ``where``.
        class_names: names behind the whole numbers of a column (`datasets.ClassLabel`).
        folder: the folder against which paths inside rows are read; None when there is none.
        called: what the file calls a column that we call otherwise, for messages.
    """

    where: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None
    called: Mapping[str, str] = field(default_factory=dict)

    def at(self, index: int) -> str:
        """Say where row ``index`` stands."""
        return f"{self.where}, row {self.numbers[index]}"

    def pick(self, indices: Iterable[int]) -> Table:
        """Return the rows at ``indices``, which keep their numbers."""
        chosen = list(indices)
        return replace(self, rows=[self.rows[i] for i in chosen], numbers=[self.numbers[i] for i in chosen])


def is_data_file(name: str) -> bool:
    """Whether ``name`` ends like a file that `read_table` reads."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


def is_folder(name: str | Path) -> bool:
    """Whether a benchmark's name is a path to a folder: it has a separator or is no plain word, and is there."""
    path = Path(name)
    return path.is_dir() and (isinstance(name, Path) or path.name != str(name))


def read_table(path: Path) -> Table:
    """Read a data file.

    Raises:
        DataError: the file is missing, empty, damaged or of an unknown kind, or a row cannot be read.
    """
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind not in SUFFIXES:
        raise DataError(f"{path}: cannot tell the kind of file; use one of {', '.join(SUFFIXES)} (or .gz of these)")
    data = read_bytes(path)
    if kind == ".parquet":
        return replace(_parquet(data, path), folder=path.parent)
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


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``, unpacked when its name ends in ``.gz`` or it begins as gzip files do.

    Raises:
        DataError: the file is missing, unreadable or a damaged gzip file.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path} is no regular file but a device or a pipe; name a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if path.suffix.lower() != ".gz" and not data.startswith(GZIP):
        return data
    try:
        return unpacked(data, path)
    except EOFError:
        raise DataError(f"{path} is a truncated gzip file; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a sound gzip file ({error}); copy or download it again") from None


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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {next(key for key in counted if counted[key] > 1)!r} stands twice")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_once)
_BETWEEN = re.compile(r"[\s,]*")


def _rows_in(text: str) -> int:
    """How many whole values a JSON list holds before it ends or breaks."""
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
    _check_columns(len(value), at)
    return value


def _check_columns(count: int, at: str) -> None:
    if count > MOST_COLUMNS:
        raise DataError(f"{at}: {count:,} columns; a row of data has at most {MOST_COLUMNS:,}")


def _json_lines(data: bytes, path: Path) -> Table:
    # Split at line feeds only: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    lines = decode(data, path).rstrip().split("\n")
    if lines[0].strip() == "{" and path.name.lower().removesuffix(".gz").endswith(".json"):
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
    header = [name.strip() for name in records[0][1]]
    if len(header) == 1 and (other := next((mark for mark in ";\t|," if mark in header[0]), "")):
        raise DataError(f"{path}, row 1: one column, {header[0]!r}; separate by {delimiter!r} and not by {other!r}")
    _check_columns(len(header), f"{path}, row 1")
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; rename one")
    rows = []
    for number, record in records[1:]:
        if len(record) != len(header):
            raise DataError(f"{path}, row {number}: {len(record)} fields where the header has {len(header)}")
        rows.append(dict(zip(header, record, strict=True)))
    return Table(where=str(path), rows=rows, numbers=range(2, len(rows) + 2))


def _parquet(data: bytes, path: Path) -> Table:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]
    from datasets import Features

    try:
        table = pq.ParquetFile(io.BytesIO(data))
        _check_columns(len(table.schema_arrow.names), str(path))
        names = class_names(Features.from_arrow_schema(table.schema_arrow))
        rows, size = [], 0
        for batch in table.iter_batches(PARQUET_ROWS):  # a dictionary may hold once what a thousand rows repeat
            rows += batch.to_pylist()
            size += sum(len(v) for row in rows[-len(batch) :] for v in row.values() if isinstance(v, str | bytes))
            check_unpacked(size, len(data), path)
    except DataError:
        raise
    except Exception as error:  # damaged bytes come out of Arrow and `datasets` as a dozen different exceptions
        raise DataError(f"{path} is not a sound Parquet file ({error})") from error
    if not rows:
        raise DataError(f"{path} is empty; give it at least one row")
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1), class_names=names)


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of every `datasets.ClassLabel` column."""
    from datasets import ClassLabel

    return {column: tuple(kind.names) for column, kind in features.items() if isinstance(kind, ClassLabel)}
