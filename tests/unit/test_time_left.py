"""How long a run still takes: told from what was measured, of the whole run, and only when it is known."""

from __future__ import annotations

import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from everlora import Example, Learner, Task
from everlora.runtime import console
from everlora.runtime.console import ConsoleProgress
from everlora.runtime.progress import Progress
from everlora.runtime.time_left import Plan, TimeLeft, Work


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
        def plan(self, plan: Plan) -> None:
            plans.append(list(plan.works))

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
    progress.plan(Plan([Work("learning a", 10, 10), Work("learning b", 1000, 10)]))
    progress.phase("learning a", 2)
    for _ in range(2):
        clock.now += 5.0
        progress.advance()
    progress.phase("answering a", 10)
    clock.now += 1.0
    progress.advance(10)
    progress.end_stage({})
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "2 tasks to learn, at least 17 min to go",
        "about 17 min to go",
    ]
    assert all(time.strptime(line.partition(" ")[0], "%H:%M:%S") for line in lines)


def test_a_guess_comes_before_the_first_step_and_all_runs_of_a_sweep_are_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs of 300 rows at a row a second: 5 minutes each, of which 10 rows are done when it is said first."""
    clock = Clock()
    monkeypatch.setattr(console, "TimeLeft", lambda works: TimeLeft(works, clock))
    progress = ConsoleProgress()
    for run in (1, 2):
        progress.begin_run(f"run-{run}", run, 3)
        progress.plan(Plan([Work("learning a", 300, 0)], guess=240.0))
        progress.phase("learning a", 30)
        clock.now += 10.0
        progress.advance()
        clock.now += 290.0
        progress.advance(29)
        progress.end_stage({})
    said = [line.partition(" ")[2] for line in capfd.readouterr().err.splitlines()]
    assert [line for line in said if "learn" in line] == [
        "1 task to learn, roughly 4 min by a look at a few rows; 3 runs are to be made",
        "1 task to learn, about 5 min to go, about 15 min for all 3 runs",
        "1 task to learn, roughly 4 min by a look at a few rows; 2 runs are to be made",
        "1 task to learn, about 5 min to go, about 10 min for all 3 runs",
    ]
    ConsoleProgress(quiet=True).plan(Plan([Work("learning a", 300, 0)], guess=240.0))
    assert capfd.readouterr().err == ""


def test_a_terminal_shows_the_matrix_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "err", shown)
    progress = ConsoleProgress()
    with progress:
        progress.plan(Plan([Work("learning [b]", 8, 4)], ["a", "[b]"], done=[{"a": 90.0}]))
        progress.end_stage({"a": 60.0, "[b]": 81.5})
        progress.bars.refresh()
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "task 2 of 2" in text
    assert [word in text for word in ("90.0", "60.0", "81.5", "70.8", "[b]")] == [True] * 5


def test_guessing_changes_nothing(tmp_path: Path) -> None:
    rows = [Example("x", "yes"), Example("y", "no")] * 4
    tasks = [Task(name=name, train=rows, test=rows[:2], labels=("yes", "no")) for name in ("a", "b")]

    class Guessing(Progress):
        guesses = True
        seen: float | None = None

        def plan(self, plan: Plan) -> None:
            self.seen = plan.guess

    progress = Guessing()
    for name, shown in (("guessed", progress), ("plain", Progress())):
        settings: Any = {"train": {"max_steps": 2}, "progress": shown}
        Learner("tiny-llama", method="inclora", out=tmp_path / name, **settings).follow(tasks)
    assert progress.seen is not None
    assert progress.seen > 0
    files = [tmp_path / name / "tasks/02-b/adapter_model.safetensors" for name in ("guessed", "plain")]
    assert files[0].read_bytes() == files[1].read_bytes()


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


def test_a_task_that_is_scored_before_it_is_learned_is_no_part_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "err", shown)
    progress = ConsoleProgress()
    with progress:
        progress.plan(Plan([Work("learning b", 8, 4)], ["a", "b"], done=[{"a": 90.0, "b": 10.0}], known=[1, 2]))
        progress.bars.refresh()
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "10.0  90.0" in text, "the mean stands behind the last score"
    assert "50.0" not in text
