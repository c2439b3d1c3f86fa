"""Measures how much memory the machine has and this process has taken, and gives back what it no longer needs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

import torch


def physical_memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not say.

    >>> (physical_memory() or 1) > 0
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def peak_memory() -> int | None:
    """Return the most bytes that this process has taken: of its GPU, if it has one, else of the machine.

    >>> (peak_memory() or 1) > 0
    True
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    What a task needs of a long past is a little larger with every task, and so fits into no gap that the task before
    has left: without this a process grows by several times what it holds.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
