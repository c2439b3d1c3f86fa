"""Measures how much memory the machine has, and how much of it was held."""

from __future__ import annotations

import os
import sys


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
    """Return the most bytes of memory that this process has held; None where the system does not say.

    >>> (peak_memory() or 1) > 0
    True
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)
