"""What was done to a learner is told in order: tasks from their own commits, all else from what was noted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everlora.archive.commits import HistoryEntry
from everlora.archive.folder import stages
from everlora.archive.history import HISTORY, Act, learned, note, now, read_history
from everlora.core.errors import FolderError
from sealing import edit, relist
from small_folders import make, train


def act(verb: str, date: str, *tasks: str) -> Act:
    return Act.model_validate({"act": verb, "date": date, "tasks": list(tasks)})


def test_what_was_learned_is_told_by_the_tasks_themselves(tmp_path: Path) -> None:
    folder = make(tmp_path, ())
    assert read_history(tmp_path) == []
    note(tmp_path, act("init", "2026-01-01T00:00:00Z"))
    train(folder, "a", date="2026-01-02T00:00:00Z")
    train(folder, "b", date="2026-01-04T00:00:00Z")
    note(tmp_path, act("compact", "2026-01-03T00:00:00Z", "a"))
    found = read_history(tmp_path)
    assert [(one.act, one.date[:10], one.tasks) for one in found] == [
        ("init", "2026-01-01", []),
        ("learn", "2026-01-02", ["a"]),
        ("compact", "2026-01-03", ["a"]),
        ("learn", "2026-01-04", ["b"]),
    ]
    assert [(one.by, one.because) for one in found if one.act == "learn"] == [("ada", "task 1"), ("ada", "task 2")]
    assert learned(stages(tmp_path)) == [one for one in found if one.act == "learn"]


def test_acts_are_added_behind_those_that_were_noted(tmp_path: Path) -> None:
    for day in range(1, 4):
        note(tmp_path, act("init", f"2026-01-0{day}T00:00:00Z"))
    lines = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert [line["date"][:10] for line in lines] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_task_of_an_older_everlora_has_no_history(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    edit(tmp_path / "tasks/01-a/COMMIT", lambda facts: facts.pop("history"))
    relist(tmp_path)
    assert read_history(tmp_path) == []


def test_a_history_that_is_no_history_is_damaged(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text('{"act": "sing", "date": "2026-01-01T00:00:00Z", "tasks": []}\n')
    with pytest.raises(FolderError, match=r"history\.jsonl is damaged"):
        read_history(tmp_path)


def test_time_does_not_run_backwards() -> None:
    later = HistoryEntry(date="2999-12-31T23:59:59Z")
    assert now(later) == later.date
    first = now()
    assert now(HistoryEntry(date="1999-01-01T00:00:00Z")) >= first > "2026"
