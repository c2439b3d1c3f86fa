"""Notes what was done to a learner, when, by whom and why: one line an act, in the order in which they were done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from everlora.archive.atomic import write_text
from everlora.archive.commits import HistoryEntry
from everlora.archive.committed import Committed, read_stages
from everlora.archive.manifest import check_at_root, mark_unfinished
from everlora.archive.schema import Record, read_rows
from everlora.core.errors import ConfigError

HISTORY = "history.jsonl"


class Act(Record):
    """Holds one act.

    Attributes:
        act: the verb.
        date: UTC, ISO 8601.
        tasks: that it concerned.
        by: who did it, if they said so.
        because: why, in their words.
        kept: how many test rows were kept of each task, by ``eval``.
    """

    act: Literal["init", "learn", "eval", "rollback", "forget", "compact"]
    date: str
    tasks: list[str]
    by: str | None = None
    because: str | None = None
    kept: dict[str, int] | None = None


def read_history(path: Path) -> list[Act]:
    """Read what was done to the learner in ``path``, in order; what was learned stands in the tasks' own COMMITs.

    Raises:
        FolderError: the folder is damaged.
    """
    check_at_root(path, HISTORY)
    noted = _noted(path)
    # What was learned when something was taken back has been noted then, in its order among acts of one second.
    later = [act for act in learned(read_stages(path, hashes=False, complete=True)) if act not in noted]
    return sorted([*noted, *later], key=lambda act: act.date)


def learned(stages: Sequence[Committed]) -> list[Act]:
    """Return the acts by which tasks were learned, and test rows of them kept; an older everlora noted none."""
    entries = [(stage.facts, stage.facts.history) for stage in stages]
    acts = [
        Act(act="learn", date=entry.date, tasks=list(facts.data), by=entry.by, because=entry.because)
        for facts, entry in entries
        if entry is not None
    ]
    kept = [one for stage in stages for one in stage.kept]
    return acts + [Act(act="eval", date=one.date, tasks=list(one.rows), kept=one.rows) for one in kept]


def note(path: Path, *acts: Act) -> None:
    """Add acts to the history of a learner, in one step; those that stand there already are not noted again."""
    mark_unfinished(path)
    known = _noted(path)
    every = (*known, *(act for act in acts if act not in known))
    lines = [json.dumps(one.plain(), ensure_ascii=False) + "\n" for one in every]
    write_text(path / HISTORY, "".join(lines))


def _noted(path: Path) -> list[Act]:
    place = path / HISTORY
    return read_rows(Act, place) if place.is_file() else []


def check_act(by: object, because: object, **choices: object) -> None:
    """Refuse, before anything is done, what could not be written to the history of it, and choices that are none.

    Args:
        by: who does it.
        because: why.
        **choices: what is to be True or False, by name: any text would count as True.

    Raises:
        ConfigError: which it is.
    """
    for name, text in (("by", by), ("because", because)):
        if not (text is None or isinstance(text, str)):
            raise ConfigError(f"{name} is a text, not {text!r}; give one, or leave it out")
        if text is not None and text.encode(errors="ignore").decode() != text:
            raise ConfigError(f"{name} is a text in UTF-8, and {text!r} cannot be written; give another")
    for name, choice in choices.items():
        if not isinstance(choice, bool):
            raise ConfigError(f"{name} is True or False, not {choice!r}")


def now(after: HistoryEntry | None = None) -> str:
    """Return the time of day in UTC to the second, never before that of an entry: clocks are set back, lives are not.

    >>> now(HistoryEntry(date="9999-01-01T00:00:00Z"))
    '9999-01-01T00:00:00Z'
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return max(time, after.date) if after else time
