"""Measures how much memory the machine has."""

from __future__ import annotations

import os


def physical_memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not say.

    >>> (physical_memory() or 1) > 0
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
