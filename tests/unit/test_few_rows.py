"""A task with far fewer rows than a part wants to measure is learned, and warned of once."""

from __future__ import annotations

from pathlib import Path

import pytest

from everlora import Example, Task, parse
from everlora.testing import tiny_runs
from everlora.training.evidence import few_rows
from everlora.training.stages import Stage


def stage(rows: int, tasks: int = 1) -> Stage:
    examples = [Example(f"row {k}", "yes" if k % 2 else "no") for k in range(rows)]
    one = Task(name="a", train=examples, test=examples[:1], labels=("yes", "no"), instruction="Say.")
    return Stage(1, "a", (one,) * tasks, 0)


@pytest.mark.parametrize(
    ("method", "what", "samples"),
    [
        ("kfac", "curvature", 32),
        ("ewc", "Fisher information", 200),
        ("inflora", "moments of inputs", 256),
        ("lb-cl", "gradients", 8),
        ("kfac(samples=12)", "curvature", 12),
    ],
)
def test_half_of_the_rows_that_are_wanted_are_enough(method: str, what: str, samples: int) -> None:
    parts = [*parse(method).parts()]
    assert few_rows(parts, stage(samples // 2)) == []
    assert few_rows(parts, stage(samples // 4, tasks=2)) == [], "rows of tasks that are learned together add up"
    (said,) = few_rows(parts, stage(samples // 2 - 1))
    rows = samples // 2 - 1
    assert said.startswith(f"too few training rows ({rows}) to measure its {what} ({samples} are wanted) well: ")
    assert "give the task more rows, or take a method" in said
    assert "\n" not in said


def test_two_parts_are_one_line_and_none_is_none() -> None:
    (said,) = few_rows([*parse("lb-cl+kfac").parts()], stage(2))
    assert "curvature (32 are wanted)" in said
    assert " and " in said
    assert "gradients (8 are wanted)" in said
    assert few_rows([*parse("ella").parts()], stage(1)) == []


@pytest.mark.parametrize(("method", "tasks"), [("kfac", ["one", "two"]), ("lb-cl", ["two"])])
def test_each_task_of_two_rows_is_learned_warned_of_once_and_recorded(
    method: str, tasks: list[str], tmp_path: Path
) -> None:
    """LB-CL measures before a task, and nothing before the first."""
    stream = [tiny_runs.text_task(name, ("yes", "no"), seed=k, train=2) for k, name in enumerate(("one", "two"))]
    watch = tiny_runs.Watch()
    learner = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "run", stream, progress=watch)
    warned = [line.split("'")[1] for line in watch.warnings if "too few training rows (2) to measure" in line]
    assert warned == tasks
    recorded = {one.facts.name for one in learner.folder.stages() if "too few training" in (one.facts.warning or "")}
    assert recorded == set(tasks)
