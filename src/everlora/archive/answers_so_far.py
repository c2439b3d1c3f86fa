"""Keeps the answers of an evaluation while it goes on, so that one that was broken off is not begun anew.

They lie in one hidden file of JSON Lines, which is removed when the evaluation is committed. A line counts for the
very model, rows and settings that its key names; one that is torn does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FILE = ".evaluating.jsonl"
SECONDS = 10.0
"""Between two writes: what is answered meanwhile is lost if the process is killed, and not if it is interrupted."""


class AnswersSoFar:
    """Holds what was answered so far, by task and row.

    Args:
        folder: of the learner, which this process writes to.
        key: hash of all but a task's rows that answers depend on.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.place, self.key, self._last = folder / FILE, key, time.monotonic()
        self._lines: list[str] = []

    def known(self, task: str, rows: str) -> dict[int, str]:
        """Return the answers that are known of a task, by row.

        Args:
            task: its name.
            rows: digest of its rows.
        """
        found: dict[int, str] = {}
        with suppress(OSError, UnicodeDecodeError):
            for line in self.place.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    entry = json.loads(line)
                    if [entry["key"], entry["task"], entry["rows"]] == [self.key, task, rows]:
                        found |= {int(row): str(answer) for row, answer in entry["answers"].items()}
        return found

    def add(self, task: str, rows: str, answers: Mapping[int, str]) -> None:
        """Add answers to rows of a task, and write them if it is time to."""
        entry = {"key": self.key, "task": task, "rows": rows, "answers": dict(answers)}
        self._lines.append(json.dumps(entry) + "\n")
        if time.monotonic() - self._last >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was added; a disk that is full costs time later, and no evaluation now."""
        if self._lines:
            with suppress(OSError), self.place.open("a", encoding="utf-8") as file:
                # What stands before may be torn, and a line of its own is read all the same.
                file.write("\n" + "".join(self._lines))
        self._lines, self._last = [], time.monotonic()

    def clear(self) -> None:
        """Remove what was written: the evaluation is committed."""
        self._lines = []
        with suppress(OSError):
            self.place.unlink(missing_ok=True)
