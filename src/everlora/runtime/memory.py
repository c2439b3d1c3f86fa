"""Measures how much memory there is and this process has taken, and gives back what it no longer needs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
"""Names the control groups of this process, from the root of each hierarchy."""


def physical_memory() -> int | None:
    """Return how many bytes of memory there are for this process; None where the system does not say.

    They are the machine's, or those of its container or batch job where these are fewer: the system ends a process
    that takes more.

    >>> (physical_memory() or 1) > 0
    True
    """
    found = group_limits()
    with suppress(AttributeError, ValueError, OSError):  # not a POSIX system
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def group_limits(groups: Path | None = None, own: Path | None = None) -> list[int]:
    """Return the limits, in bytes, of the control groups that this process is in; none on systems without them.

    A group is limited by those above it, too. Inside a container its own group is most often the root that is seen.
    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html there.

    Args:
        groups: where they are mounted; None for `CONTROL_GROUPS`.
        own: names those of the process; None for `OWN_GROUPS`.
    """
    groups, own = groups or CONTROL_GROUPS, own or OWN_GROUPS
    lines, found = ["0::/", "0:memory:/"], []
    with suppress(OSError):
        lines += own.read_text(encoding="utf-8", errors="replace").splitlines()
    files = dict[Path, None]()
    for line in lines:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        top, name = (groups / "memory", "memory.limit_in_bytes") if kinds else (groups, "memory.max")
        if kinds and "memory" not in kinds.split(","):
            continue
        below = [part for part in path.split("/") if part]
        files |= {top.joinpath(*below[:depth], name): None for depth in range(len(below) + 1)}
    for file in files:
        with suppress(OSError, ValueError):  # it is not there, or says "max"
            found.append(int(file.read_text(encoding="ascii")))
    return found


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
