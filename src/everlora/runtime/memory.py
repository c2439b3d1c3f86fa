"""Measures how much memory the machine has, and gives back what a process no longer needs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress


def physical_memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not say.

    >>> (physical_memory() or 1) > 0
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    What a task needs of a long past is a little larger with every task, and so fits into no gap that the task before
    has left: without this a process grows by several times what it holds.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
