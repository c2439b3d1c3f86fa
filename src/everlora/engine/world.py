"""The one file that speaks distributed. Alone, everything here is the identity."""

from __future__ import annotations

from accelerate import PartialState


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return bool(PartialState().is_main_process)


def size() -> int:
    """Number of processes."""
    return int(PartialState().num_processes)


def wait() -> None:
    """Wait for all processes."""
    PartialState().wait_for_everyone()
