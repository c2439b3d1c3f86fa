"""Measures how much memory the machine has, and how much this process has taken."""

from __future__ import annotations

import os
import sys

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
