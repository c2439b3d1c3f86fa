"""How long a run still takes: told from what was measured, of the whole run, and only when it is known."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from everlora import Example, Learner, Task
from everlora.runtime import console
from everlora.runtime.console import ConsoleProgress
from everlora.runtime.progress import Progress
from everlora.runtime.time_left import TimeLeft, Work


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pace_is_that_of_the_whole_run() -> None:
    """Ten rows a second, two answers a second: what is left falls by as much as passes."""
    clock = Clock()
    left = TimeLeft([Work("learning a", 100, 10), Work("learning b", 300, 20)], clock)
    assert left.left() is None
    left.begin("learning a", 10)
    for _ in range(10):
        clock.now += 1.0
        left.advance()
    assert left.left() == pytest.approx(30.0)  # no answer was measured yet
    assert not left.complete
    left.begin("answering a", 10)
    clock.now += 5.0
    left.advance(10)
    assert left.complete
    assert left.left() == pytest.approx(30.0 + 10.0)
    left.end_stage()
    assert left.left() == pytest.approx(40.0)
    left.begin("learning b", 30)
    clock.now += 15.0
    left.advance(15)
    assert left.left() == pytest.approx(15.0 + 10.0)


def test_a_few_fast_steps_say_nothing() -> None:
    clock = Clock()
    left = TimeLeft([Work("learning a", 100, 0)], clock)
    left.begin("learning a", 100)
    clock.now += 0.5
    left.advance()
    assert left.left() is None


def test_a_stage_that_stops_early_is_not_waited_for() -> None:
    clock = Clock()
    left = TimeLeft([Work("learning a", 100, 0), Work("learning b", 100, 0)], clock)
    left.begin("learning a", 10)
    clock.now += 5.0
    left.advance(5)
    left.end_stage()
    assert left.left() == pytest.approx(5.0)


def test_the_plan_counts_rows_as_often_as_they_are_seen(tmp_path: Path) -> None:
    rows = [Example("x", "yes"), Example("y", "no")] * 10
    tasks = [Task(name=name, train=rows, test=rows[:4], labels=("yes", "no")) for name in ("a", "b")]
    plans: list[list[Work]] = []

    class Planned(Progress):
        def plan(self, works: object) -> None:
            plans.append(list(works))  # type: ignore[call-overload]

    for train in ({"max_steps": 2, "per_device_train_batch_size": 4}, {"num_train_epochs": 0.2}):
        out = tmp_path / str(len(plans))
        Learner("tiny-bert", method="inclora", out=out, train=train, progress=Planned()).follow(tasks)
    assert plans == [
        [Work("learning a", 8, 4), Work("learning b", 8, 8)],
        [Work("learning a", 4.0, 4), Work("learning b", 4.0, 8)],
    ]


def test_it_is_told_once_and_after_every_task(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(console, "TimeLeft", lambda works: TimeLeft(works, clock))
    progress = ConsoleProgress()
    progress.plan([Work("learning a", 10, 10), Work("learning b", 1000, 10)])
    progress.phase("learning a", 2)
    for _ in range(2):
        clock.now += 5.0
        progress.advance()
    progress.phase("answering a", 10)
    clock.now += 1.0
    progress.advance(10)
    progress.end_stage({})
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["2 tasks to learn, at least 17 min to go", "about 17 min to go"]


def test_bars_are_drawn_where_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that nobody watches prints nothing; a terminal sees each piece of work, and is left clean."""
    assert type(console.watched(None)) is Progress
    shown = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "err", shown)
    rows = [Example("x", "yes"), Example("y", "no")] * 4
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "l", train={"max_steps": 2})
    learner.learn(Task(name="only", train=rows, test=rows[:2], labels=("yes", "no")))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "learning only" in text
    assert "answering only" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") >= 2  # the cursor is hidden and shown again
