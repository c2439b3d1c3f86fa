"""Keeps one more file for a learner, by which any one committed file that was lost or damaged is restored.

The file is the bytewise exclusive or of all committed files below ``tasks``, each padded with zeros to the longest:
with all of them but one, it gives that one. A first line, sealed by a hash, says which files they are, how long, and
what their hashes are.

    Patterson, Gibson & Katz, "A Case for Redundant Arrays of Inexpensive Disks (RAID)", SIGMOD 1988, level 4.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from everlora.archive.atomic import explained, sync
from everlora.archive.commits import Commit, Evaluation
from everlora.archive.committed import EVALUATION
from everlora.archive.manifest import COMMIT
from everlora.archive.root import sha256
from everlora.archive.schema import Record, read_json
from everlora.core.errors import FolderError

PARITY = "PARITY"
_BLOCK = 1 << 20


class CoveredFile(Record):
    """Holds a file that a parity covers: its name below the folder, its length in bytes, and its hash."""

    name: str
    length: int
    sha256: str


class Parity(Record):
    """Holds whose files a parity covers, and the hash of their exclusive or.

    Attributes:
        run: whose it is.
        files: that it covers.
        length: bytes of the exclusive or, and of the longest file.
        sha256: of the exclusive or.
    """

    run: str
    files: list[CoveredFile]
    length: int
    sha256: str


def write_parity(path: Path, run: str, files: Mapping[str, str]) -> Parity:
    """Write the parity of files; it takes the place of an older one in one step.

    Args:
        path: the learner's folder.
        run: whose it is.
        files: hashes of the files, by name below the folder.

    Raises:
        FolderError: a file is not what its hash says, or the disk is full.
    """
    covered = []
    for name, digest in sorted(files.items()):
        if sha256(path / name) != digest:
            raise FolderError(f"{path / name} is damaged; repair it first (everlora verify {path} --repair)")
        covered.append(CoveredFile(name=name, length=(path / name).stat().st_size, sha256=digest))
    length = max((file.length for file in covered), default=0)
    body = path / f".{PARITY}.body.part"
    whole = path / f".{PARITY}.part"
    with explained(path):
        try:
            digest = _xor_to(body, [path / file.name for file in covered], length)
            record = Parity(run=run, files=covered, length=length, sha256=digest)
            with whole.open("wb") as target, body.open("rb") as source:
                target.write(_sealed(record))
                for block in iter(lambda: source.read(_BLOCK), b""):
                    target.write(block)
            sync(whole)
            os.replace(whole, path / PARITY)
            sync(path)
        finally:
            body.unlink(missing_ok=True)
            whole.unlink(missing_ok=True)
    return record


def read_parity(place: Path, run: str, *, body: bool = True) -> Parity:
    """Read which files a parity covers.

    Args:
        place: the file.
        run: whose it must be.
        body: look whether the exclusive or is what was written, too.

    Raises:
        FolderError: it is damaged, or another run's.
    """
    try:
        with place.open("rb") as file:
            record = _unsealed(file.readline())
            if body:
                found, length = hashlib.sha256(), 0
                for block in iter(lambda: file.read(_BLOCK), b""):
                    found.update(block)
                    length += len(block)
                if (found.hexdigest(), length) != (record.sha256, record.length):
                    raise ValueError("other bytes than were written")
    except (OSError, ValueError, KeyError) as error:
        raise FolderError(f"{place} is damaged; make it anew (everlora verify --parity)") from error
    if record.run != run:
        raise FolderError(f"{place} is of another run; make it anew (everlora verify --parity)")
    return record


def restore(path: Path, run: str, damaged: Collection[str]) -> str | None:
    """Restore the one file that a parity covers and that is lost or damaged; return its name, None if none is.

    Args:
        path: the learner's folder.
        run: whose it is.
        damaged: files that may be written, by name below the folder: others are newer than the parity, and sound.

    Raises:
        FolderError: more than one is, or the parity itself.
    """
    record = read_parity(path / PARITY, run)
    lost = [f for f in record.files if not (path / f.name).is_file() or sha256(path / f.name) != f.sha256]
    if not lost:
        return None
    if len(lost) > 1 or lost[0].name not in damaged:
        names = ", ".join(file.name for file in lost[:3])
        raise FolderError(f"{path / PARITY} restores one file, and {len(lost)} are lost or damaged: {names}")
    target = path / lost[0].name
    with explained(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        others = [path / file.name for file in record.files if file is not lost[0]]
        part = target.with_name(f".{target.name}.part")
        try:
            _xor_to(part, others, record.length, start=path / PARITY)
            os.truncate(part, lost[0].length)
            if sha256(part) != lost[0].sha256:
                raise FolderError(f"{path / PARITY} does not give {target} back; restore it from a copy")
            sync(part)
            if target.is_dir():
                target.rmdir()
            os.replace(part, target)
            sync(target.parent)
        finally:
            part.unlink(missing_ok=True)
    return lost[0].name


def _xor_to(target: Path, files: Iterable[Path], length: int, start: Path | None = None) -> str:
    """Write the exclusive or of files, and of the body of a parity, block by block; return its hash."""
    sources = [file.open("rb") for file in files]
    digest = hashlib.sha256()
    try:
        if start is not None:
            sources.append(start.open("rb"))
            sources[-1].readline()
        with target.open("wb") as out:
            for begin in range(0, length, _BLOCK):
                size = min(_BLOCK, length - begin)
                found = 0
                for source in sources:
                    found ^= int.from_bytes(source.read(size).ljust(size, b"\0"), "little")
                block = found.to_bytes(size, "little")
                out.write(block)
                digest.update(block)
    finally:
        for source in sources:
            source.close()
    return digest.hexdigest()


def _sealed(record: Parity) -> bytes:
    text = json.dumps(record.plain(), sort_keys=True)
    return json.dumps({"digest": hashlib.sha256(text.encode()).hexdigest(), "parity": text}).encode() + b"\n"


def _unsealed(line: bytes) -> Parity:
    content = json.loads(line)
    if hashlib.sha256(content["parity"].encode()).hexdigest() != content["digest"]:
        raise ValueError("another text than was written")
    return Parity.model_validate_json(content["parity"])


def expected_files(path: Path, commits: Mapping[str, Commit]) -> dict[str, str]:
    """Return the hashes of all committed files of tasks, by name below the folder."""
    return dict(_expected(path, commits))


def _expected(path: Path, commits: Mapping[str, Commit]) -> Iterator[tuple[str, str]]:
    for name, facts in commits.items():
        place = path / "tasks" / name
        sealed = [place, *(evaluation.parent for evaluation in place.glob(f"{EVALUATION}*/{COMMIT}"))]
        for folder in sealed:
            try:
                files = facts.files if folder == place else read_json(Evaluation, folder / COMMIT).files
            except FolderError:
                continue
            below = folder.relative_to(path).as_posix()
            yield f"{below}/{COMMIT}", sha256(folder / COMMIT)
            yield from ((f"{below}/{file}", digest) for file, digest in files.items())
