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
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from everlora.core.errors import DataError

Row = Mapping[str, Any]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one split.

    Attributes:
        where: the file, hub data set or object that the rows come from, for messages.
        rows: one mapping a row.
        numbers: the number of each row in ``where``.
        class_names: names behind the whole numbers of a column (`datasets.ClassLabel`).
        folder: the folder against which paths inside rows are read; None when there is none.
    """

    where: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None

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
    if kind in (".csv", ".tsv"):
        table = _csv(data, path, "\t" if kind == ".tsv" else ",")
    elif kind == ".json" and data.removeprefix(BOM).lstrip().startswith(b"["):
        table = _json_list(data, path)
    else:
        # Many data sets on the hub call their JSON Lines '.json'.
        table = _json_lines(data, path)
    if not table.rows:
        raise DataError(f"{path} holds no rows; give it at least one")
    return replace(table, folder=path.parent)


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path``, unpacked when its name ends in ``.gz``.

    Raises:
        DataError: the file is missing, unreadable or a damaged gzip file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise DataError(f"{path} is a truncated gzip file; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a sound gzip file ({error}); copy or download it again") from None


def decode(data: bytes, path: Path) -> str:
    """Decode UTF-8 with or without a byte order mark.

    Raises:
        DataError: the bytes are not UTF-8; the message names the row.
    """
    data = data.removeprefix(BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, row {row}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def parse_json(text: str, at: str) -> Any:
    """Parse one JSON value.

    Raises:
        DataError: it is not JSON; the message starts with ``at``.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a plain ValueError for a number of thousands of digits
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{at}: not JSON ({reason})") from None


def _object(value: Any, at: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f'{at}: not a JSON object but {type(value).__name__}; write {{"text": ..., "label": ...}}')
    return value


def _json_lines(data: bytes, path: Path) -> Table:
    # Split at line feeds only: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    lines = decode(data, path).rstrip().split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        at = f"{path}, row {number}"
        if not line.strip():
            raise DataError(f"{at}: an empty line between rows; remove it")
        rows.append(_object(parse_json(line, at), at))
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1))


def _json_list(data: bytes, path: Path) -> Table:
    values = parse_json(decode(data, path), str(path))
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
    twice = sorted({name for name in header if header.count(name) > 1})
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
        table = pq.read_table(io.BytesIO(data))
        names = class_names(Features.from_arrow_schema(table.schema))
        rows = table.to_pylist()
    except Exception as error:  # damaged bytes come out of Arrow and `datasets` as a dozen different exceptions
        raise DataError(f"{path} is not a sound Parquet file ({error})") from error
    if not rows:
        raise DataError(f"{path} is empty; give it at least one row")
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1), class_names=names)


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of every `datasets.ClassLabel` column."""
    from datasets import ClassLabel

    return {column: tuple(kind.names) for column, kind in features.items() if isinstance(kind, ClassLabel)}
