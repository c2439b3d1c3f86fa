"""Notes what was done to a learner, when, by whom and why: one line an act, in the order in which they were done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from everlora.archive.atomic import write_text
from everlora.archive.commits import HistoryEntry
from everlora.archive.schema import Record, read_rows

HISTORY = "history.jsonl"


class Act(Record):
    """Holds one act.

    Attributes:
        act: the verb.
        date: UTC, ISO 8601.
        tasks: that it concerned.
        by: who did it, if they said so.
        because: why, in their words.
    """

    act: Literal["init", "learn", "rollback", "forget", "compact"]
    date: str
    tasks: list[str]
    by: str | None = None
    because: str | None = None


def read_history(path: Path) -> list[Act]:
    """Read what was done to the learner in ``path``; nothing where nobody noted it.

    Raises:
        FolderError: the file is damaged.
    """
    place = path / HISTORY
    return read_rows(Act, place) if place.is_file() else []


def note(path: Path, act: Act) -> None:
    """Add an act to the history of a learner, in one step; its date is not before that of the act before it."""
    known = read_history(path)
    later = act.model_copy(update={"date": max(act.date, known[-1].date)}) if known else act
    lines = [json.dumps(one.plain(), ensure_ascii=False) + "\n" for one in (*known, later)]
    write_text(path / HISTORY, "".join(lines))


def now(after: HistoryEntry | None = None) -> str:
    """Return the time of day in UTC to the second, never before that of an entry: clocks are set back, lives are not.

    >>> now(HistoryEntry(date="9999-01-01T00:00:00Z"))
    '9999-01-01T00:00:00Z'
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return max(time, after.date) if after else time
