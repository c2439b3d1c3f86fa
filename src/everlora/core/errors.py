"""Defines the errors that a user can act on.

Every message is one line: what is wrong, where, and what to do. The command line prints the line and exits with
`status`; Python code catches `EverloraError`. Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 1500
"""Characters of a message; of a longer one the middle is left out."""
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it, or cannot write: escapes, other directions of text, half letters."""


def printable(text: str) -> str:
    r"""Return a text with its control characters spelt out, so that a terminal shows them and does not obey.

    >>> printable("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class EverloraError(Exception):
    """Is the base of all errors that are the caller's to mend.

    >>> from everlora import EverloraError, parse
    >>> try:
    ...     parse("elal")
    ... except EverloraError as error:
    ...     print(error)
    unknown method 'elal'; did you mean 'ella'? (everlora methods lists them)

    Attributes:
        status: exit status of the command line for this error.
    """

    status: int = 2

    def __init__(self, message: str) -> None:
        line = printable(" ".join(message.split()))
        if len(line) > LONGEST:  # a label of megabytes, say: what to do about it stands at the end
            line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 3 :]}"
        super().__init__(line)


class ConfigError(EverloraError):
    """Says that a setting, name or composition cannot be used."""


class DataError(EverloraError):
    """Says that a task, file or row cannot be used; the message names the file and the row."""


class ModelError(EverloraError):
    """Says that a model cannot be loaded or adapted."""


class FolderError(EverloraError):
    """Says that an output folder holds something else, or is damaged."""


class TrainingError(EverloraError):
    """Says that training could not go on (a loss that is not a number, say); earlier tasks are intact."""

    status = 3


class Interrupted(EverloraError):
    """Says that the user pressed Ctrl-C, or the system ended the process.

    Args:
        message: one line.
        number: of the signal; by default that of Ctrl-C.
    """

    status = 130

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.status = 128 + (number or 2)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelt most like ``name``, or None if none is near."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
    return close[0] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, else the list of what is known."""
    names = sorted(known)
    close = closest(name, names)
    return f"; did you mean {close!r}?" if close is not None else f"; known: {', '.join(names)}"
