"""Remembers what this process has read of a file for as long as nobody changes it.

A learner of many tasks looks at all of them several times a task, and so reads only what is new. Within one process
alone: on disk such a memory would hide what hashes are there to find, since a bit that a disk loses leaves size and
times as they are, and a process that loads a task has to notice it. ``everlora verify`` reads every file, whatever was
read before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

SETTLED = 2_000_000_000
"""Nanoseconds after which a file that changes again has another time of change, however coarse a disk's clock is."""
Facts = tuple[int, int, int, int]
T = TypeVar("T")


def facts_of(file: Path) -> Facts:
    """Return what changes with a file: its number on the disk, its length, and when its content and it changed."""
    found = os.stat(file)
    # The last is set by the system alone, so that a file whose time was set back is another one, too.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Unchanged(Generic[T]):
    """Returns what ``read`` returns of a file, and reads it again only where it was changed or was just written.

    Args:
        read: a function of nothing but the content of the file.
    """

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[str, tuple[Facts, T]] = {}

    def __call__(self, file: Path) -> T:
        """Return what is known of a file; where there is none, ``read`` says so."""
        name = os.path.abspath(file)
        try:
            facts = facts_of(file)
        except OSError:
            return self._read(file)
        before = self._known.get(name)
        if before is not None and before[0] == facts:
            return before[1]
        found = self._read(file)
        if time.time_ns() - max(facts[2:]) > SETTLED and facts_of(file) == facts:
            self._known[name] = facts, found
        else:
            self._known.pop(name, None)
        return found
