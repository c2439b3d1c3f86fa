"""Starts the command line; it imports next to nothing itself, so that Ctrl-C is understood from the first moment."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
    """Run ``everlora`` and ``python -m everlora``.

    Args:
        argv: words of the command line; None for those of this process, which then ends at once on Ctrl-C, until a
            command begins work that must be put away properly.
    """
    before, collecting = signal.getsignal(signal.SIGINT), gc.isenabled()
    gc.disable()  # imports make many objects and hardly any garbage: a fifth of their time goes to looking for it
    ends = argv is None  # the process ends with the command
    heeded = ends and before is not signal.SIG_IGN
    if heeded:
        signal.signal(signal.SIGINT, _leave)
    try:
        from everlora.cli.app import run_command

        sys.exit(run_command(argv))
    finally:
        if heeded:
            signal.signal(signal.SIGINT, before)
        if ends:
            gc.freeze()  # nor does the end of a process need to look through what it has imported
        if collecting:
            gc.enable()


def _leave(*_: Any) -> None:
    """End the process with one line.

    An exception would not do: raised inside an import it may be swallowed, or printed and forgotten, by code that
    cannot be stopped. Nothing has been begun by then that would have to be put away.
    """
    os.write(2, b"everlora: interrupted\n")
    os._exit(INTERRUPTED)
