"""Writes files and folders in one step: under another name first, synced, then renamed."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from everlora.core.errors import FolderError

_NAMES = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EPERM", "EFBIG", "ENOTDIR", "EISDIR", "ESTALE")
_OF_THE_DISK = frozenset(number for number, name in errno.errorcode.items() if name in _NAMES)
"""What a disk that is full, broken or not to be written gives; an `OSError` of the network is none of these."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Make one line of whatever a library raises where the disk of ``path`` is full, broken or not to be written.

    Raises:
        FolderError: it is.
    """
    try:
        yield
    except FolderError:
        raise
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        place = error.filename or path
        raise FolderError(f"cannot write {place}: {error.strerror}; what was committed is intact") from error
    except Exception as error:
        # Libraries that are written in Rust have errors of their own, which hold that of the system as text.
        if "(os error " not in str(error) and "I/O error" not in str(error):
            raise
        raise FolderError(f"cannot write {path}: {error}; what was committed is intact") from error


def follow_umask(file: Path) -> None:
    """Give a file the permissions that a new one would have here: safetensors are written for their owner alone."""
    mask = os.umask(0o077)  # there is no other way to read it
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    # Of folders as well: a new name in one is a change of the folder, which has to reach the disk by itself.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step.

    Raises:
        FolderError: the disk is full or the place cannot be written; the old file is intact.
    """
    # In the same folder, since a renaming is one step only within a file system.
    temporary = path.with_name(f".{path.name}.part")
    try:
        # Synced before it is renamed: the new name may reach the disk before the text does, and a power failure would
        # leave an empty file under it.
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FolderError(f"cannot write {path}: {error.strerror}; what was there before is intact") from error


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON; numbers that are not finite are refused."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """Return ``value`` as the text of a JSON file; numbers that are not finite are refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def copy_checked(source: Path, target: Path) -> None:
    """Copy a file, and read both to see that they are the same.

    Raises:
        FolderError: they are not.
    """
    # Read again, for a copy that fails silently would be hashed, and from then on taken for what was learned.
    shutil.copyfile(source, target)  # not its permissions: a temporary file is for its owner alone
    if not filecmp.cmp(source, target, shallow=False):
        raise FolderError(f"{target} was not written as it was to be; look at the disk")


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name on the same disk, for good once this returns; a file there is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    sync(target.parent)
    sync(source.parent)


def link_tree(source: Path, target: Path) -> None:
    """Copy a file or folder without copying content where the disk can: files here are replaced, never edited."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for inside in source.iterdir():
            link_tree(inside, target / inside.name)
        return
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links
        copy_checked(source, target)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``target``, when the block ends without an error.

    Raises:
        FolderError: the disk is full or the place cannot be written; nothing of the new folder remains.
    """
    temporary, aside = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            if path.is_file():
                follow_umask(path)
            sync(path)
        # A folder cannot be renamed onto a full one: the old one is put aside, and `recover` brings it back if the
        # process ends between the two renamings.
        if target.exists():
            os.replace(target, aside)
        os.replace(temporary, target)
        sync(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        _give_up(temporary, target, aside)
        raise FolderError(f"cannot write {target}: {error.strerror or error}; earlier tasks are intact") from error
    # Ctrl-C too: what was half written must not be found by the next run.
    except BaseException:
        _give_up(temporary, target, aside)
        raise


@contextmanager
def staged_files(folder: Path, name: str) -> Iterator[Path]:
    """Give a temporary folder whose files replace those of the same names in ``folder``, each in one step."""
    temporary = folder / f".{name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.iterdir()):
            follow_umask(file)
            sync(file)
            os.replace(file, folder / file.name)
        sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _give_up(temporary: Path, target: Path, aside: Path) -> None:
    """Take away a new folder that could not be put in its place, and put the old one back."""
    shutil.rmtree(temporary, ignore_errors=True)
    if aside.exists() and not target.exists():
        with suppress(OSError):  # then `recover` brings it back
            os.replace(aside, target)


def recover(path: Path) -> None:
    """Bring back folders below ``path`` that were put aside for new ones which never came; sweep what is left over."""
    for aside in path.glob(".*.old"):
        target = aside.with_name(aside.name[1:].removesuffix(".old"))
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, target)
    for place in (path, path / "tasks", *(path / "tasks").glob("[0-9]*")):
        for part in place.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
