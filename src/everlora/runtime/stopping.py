"""Lets the signals that end a process wait until work that can go on later has been put away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EndRequest:
    """Passes the wish that a process ends from a signal to work that looks for it between two steps.

    >>> end = EndRequest()
    >>> end.request()  # nothing is under way that could put itself away
    False
    >>> with end.heeded():
    ...     (end.request(), end.requested, end.request())  # whoever asks twice does not want to wait
    (True, True, False)
    """

    def __init__(self) -> None:
        self._heeded = False
        self.requested = False

    def request(self) -> bool:
        """Ask work to end at its next step; return False where none heeds it, or it was so before."""
        if not self._heeded or self.requested:
            return False
        self.requested = True
        return True

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Promise that a block looks whether it was asked, and raises `KeyboardInterrupt` once it is put away."""
        self._heeded, self.requested = True, False
        try:
            yield
        finally:
            self._heeded = False


END = EndRequest()
"""That of this process."""
