"""Unpacks files, up to a bound: a few kilobytes can stand for gigabytes."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from everlora.core.errors import DataError

UNPACKED = 64 << 20
"""Bytes that any packed file may unpack to; a larger one to `RATIO` times its size."""
RATIO = 100


def check_unpacked(size: int, packed: int, path: Path) -> None:
    """Refuse a file that unpacks to far more than data do.

    Raises:
        DataError: ``size`` is beyond what ``packed`` bytes of rows may hold.
    """
    if size > max(UNPACKED, RATIO * packed):
        raise DataError(
            f"{path} holds {packed:,} bytes and unpacks to more than {max(UNPACKED, RATIO * packed):,}, which no data "
            f"do; unpack it yourself if you trust it"
        )


def unpacked(data: bytes, path: Path) -> bytes:
    """Unpack a gzip file of one or several parts, never far beyond the bound; see `check_unpacked`."""
    found = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        while some := stream.read(1 << 20):
            found += some
            check_unpacked(len(found), len(data), path)
    return bytes(found)
