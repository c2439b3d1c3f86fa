"""Reads rows from Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

from everlora.core.errors import DataError
from everlora.data.header import check_header
from everlora.data.packed import check_size
from everlora.data.table import Table, check_columns

PARQUET_ROWS = 1000
"""Rows that are unpacked at once."""


def read_parquet(data: bytes, path: Path) -> Table:
    """Read the content of a Parquet file, a thousand rows at a time and never far beyond the bound of packed files.

    Raises:
        DataError: it is damaged, empty, or unpacks to far more than data do.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.ParquetFile(io.BytesIO(data))
        check_columns(len(table.schema_arrow.names), str(path))
        check_header(table.schema_arrow.names, str(path))
        rows, size = [], 0
        for batch in table.iter_batches(PARQUET_ROWS):  # a dictionary may hold once what a thousand rows repeat
            rows += batch.to_pylist()
            size += sum(len(v) for row in rows[-len(batch) :] for v in row.values() if isinstance(v, str | bytes))
            check_size(size, len(data), path)
    except DataError:
        raise
    except Exception as error:  # damaged bytes come out of Arrow as a dozen different exceptions
        raise DataError(f"{path} is not a sound Parquet file ({error})") from error
    if not rows:
        raise DataError(f"{path} is empty; give it at least one row")
    names = _names_of_metadata(table.schema_arrow.metadata or {})
    return Table(where=str(path), rows=rows, numbers=range(1, len(rows) + 1), class_names=names)


def _names_of_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return names of `datasets.ClassLabel` columns that a Parquet file tells of; others may be of any type."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
    except (ValueError, KeyError, TypeError, AttributeError):  # metadata that others write is no concern of ours
        return {}
    # A feature of lists is a list, and others may be anything.
    kinds = {column: kind for column, kind in features if isinstance(kind, Mapping)}
    named = {column: kind.get("names") for column, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    return {column: tuple(map(str, names)) for column, names in named.items() if isinstance(names, list)}
