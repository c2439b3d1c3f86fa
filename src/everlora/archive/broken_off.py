"""Tells what the checkpoint of a task that was broken off is worth: whether it is whole, and of which task it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from everlora.archive.root import hash_of
from everlora.archive.schema import Record, read_json
from everlora.core.errors import FolderError

FOLDER, STATE = ".training", "checkpoint.json"


class CheckpointSeal(Record):
    """Holds what a checkpoint says of itself.

    Attributes:
        key: hash of all that must be the same for it to count.
        after: hashes of the COMMITs of the tasks on top of which the task is learned.
        files: hashes of its other files.
    """

    key: str
    after: list[str]
    files: dict[str, str]


def seal_of(place: Path) -> CheckpointSeal | None:
    """Return what a checkpoint says of itself; None where it is damaged, or of an everlora that sealed none."""
    try:
        return read_json(CheckpointSeal, place / STATE)
    except FolderError:
        return None


def is_whole(place: Path, seal: CheckpointSeal, *, read: bool = True) -> bool:
    """Return whether the files of a checkpoint are those that were written, or with ``read`` false, are there."""
    if not read:
        return all((place / name).is_file() for name in seal.files)
    try:
        return all(hash_of(place / name) == digest for name, digest in seal.files.items())
    except OSError:
        return False


def remove(place: Path) -> None:
    """Remove a checkpoint in one step: half of one would be taken for one that is damaged."""
    aside = place.with_name(f".{place.name}.part")  # whose rest `everlora.archive.atomic.recover` sweeps
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        os.replace(place, aside)
        aside.unlink() if aside.is_file() else shutil.rmtree(aside, ignore_errors=True)


def sweep_checkpoint(path: Path, after: Sequence[str] | None) -> None:
    """Remove the checkpoint in a learner's folder that can never count again: its task was committed, or others were.

    Args:
        path: the learner's folder.
        after: hashes of the COMMITs of its tasks; None where they are not all known.
    """
    seal = seal_of(path / FOLDER)
    if seal is not None and after is not None and seal.after != list(after):
        remove(path / FOLDER)


def remove_damaged(place: Path) -> bool:
    """Remove a checkpoint if it is damaged, or of an older everlora; return whether it was."""
    seal = seal_of(place)
    if not os.path.lexists(place) or (seal is not None and is_whole(place, seal)):
        return False
    remove(place)
    return True


def word_on(path: Path, after: Sequence[str] | None, *, read: bool) -> str | None:
    """Say what going on does with the checkpoint in a learner's folder; None where there is none.

    Args:
        path: the learner's folder.
        after: hashes of the COMMITs of its tasks; None where they are not all known.
        read: read its files, to see whether they are what was written.
    """
    place = path / FOLDER
    if not os.path.lexists(place):
        return None
    seal = seal_of(place)
    if seal is not None and after is not None and seal.after != list(after):
        return "a checkpoint is left of a task that is committed, or of other tasks: going on sweeps it"
    if seal is None or not is_whole(place, seal, read=read):
        what = "its checkpoint is damaged or of an older everlora: teaching it again begins anew"
        return f"the training of a task was broken off, and {what}"
    return "the training of a task was broken off: teaching it again goes on from there"
