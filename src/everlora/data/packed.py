"""Unpacks what data files come in (gzip, bzip2, zip archives of one file), within a bound against bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

from everlora.core.errors import DataError

PACKED = (".gz", ".bz2", ".zip")
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"PK\x03\x04": ".zip"}
ALWAYS, RATIO = 1 << 28, 200
"""So many bytes are always unpacked, and more only up to so many times the packed size, as no rows shrink."""


def plain_name(name: str) -> str:
    """Return a file's name in lower case, without the ending that says how it is packed.

    >>> plain_name("Train.JSONL.gz")
    'train.jsonl'
    """
    name = name.lower()
    return next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)


def unpacked(data: bytes, path: Path) -> tuple[str, bytes]:
    """Return the name and the content of what a file holds; by its first bytes or its ending it is packed, or plain.

    Raises:
        DataError: it is damaged, holds several files, or grows beyond all measure.
    """
    name = path.name.lower()
    kind = next((end for start, end in MAGIC.items() if data.startswith(start)), None)
    kind = kind or next((end for end in PACKED if name.endswith(end)), None)
    if kind is None or (kind == ".zip" and name.endswith(".xlsx")):
        return name, data
    what = {".gz": "gzip", ".bz2": "bzip2", ".zip": "zip"}[kind]
    try:
        if kind == ".gz":
            return plain_name(name), _read(gzip.GzipFile(fileobj=io.BytesIO(data)), len(data), path)
        if kind == ".bz2":
            return plain_name(name), _read(bz2.BZ2File(io.BytesIO(data)), len(data), path)
        return _only_member(data, path)
    except EOFError:
        raise DataError(f"{path} is a truncated {what} file; copy or download it again") from None
    except (OSError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        # The last two: a password, and a compression that Python does not know.
        raise DataError(f"{path} is not a sound {what} file ({error}); copy or download it again") from None


def _only_member(data: bytes, path: Path) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [one for one in archive.namelist() if not one.endswith("/") and not one.startswith("__MACOSX/")]
        if len(members) != 1:
            listed = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
            raise DataError(f"{path} holds {len(members)} files ({listed}); unpack it, and name the one to read")
        with archive.open(members[0]) as reader:
            return Path(members[0]).name.lower(), _read(reader, len(data), path)


def check_size(size: int, packed: int, path: Path) -> None:
    """Refuse content of ``size`` bytes or letters that came out of ``packed`` bytes, if no rows shrink like that."""
    if size > (most := max(ALWAYS, RATIO * packed)):
        raise DataError(f"{path} unpacks to more than {most:,} bytes, {RATIO} times its size; unpack it yourself")


def _read(reader: IO[bytes] | gzip.GzipFile | bz2.BZ2File, packed: int, path: Path) -> bytes:
    # Piece by piece, so that a bomb is noticed before it is in memory.
    parts, size = [], 0
    while part := reader.read(1 << 20):
        size += len(part)
        check_size(size, packed, path)
        parts.append(part)
    return b"".join(parts)
