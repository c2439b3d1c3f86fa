"""Lets the signals that end a process wait until work that can go on later has been put away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EndRequest:
    """Passes the wish that a process ends from a signal to work that looks for it between two steps.

    >>> end = EndRequest()
    >>> end.ask()  # nothing is under way that could put itself away
    False
    >>> with end.heeded():
    ...     (end.ask(), end.asked, end.ask())  # whoever asks twice does not want to wait
    (True, True, False)
    """

    def __init__(self) -> None:
        self._heeded = False
        self.asked = False

    def ask(self) -> bool:
        """Ask work to end at its next step; return False where none heeds it, or it was asked before."""
        if not self._heeded or self.asked:
            return False
        self.asked = True
        return True

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Promise that a block looks whether it was asked, and raises `KeyboardInterrupt` once it is put away."""
        self._heeded, self.asked = True, False
        try:
            yield
        finally:
            self._heeded = False


END = EndRequest()
"""That of this process."""
