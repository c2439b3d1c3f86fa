"""The forecast of a task: made before its first step, of the folder and the new task's rows alone, at two percent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from everlora import Example, Learner, Task
from everlora.adapters import files as adapters
from everlora.learner import forecast as forecasts
from everlora.learner.verbs.verify import verify
from everlora.training import forecast_summary, forecast_sums

BY_LABELS = {"scoring": "labels"}
STEPS: dict[str, Any] = {"max_steps": 8, "learning_rate": 0.02, "per_device_train_batch_size": 8}


def words(name: str, *labels: str) -> Task:
    rows = [Example(f"{label} {label} {label} {n}", label) for n in range(12) for label in labels]
    return Task(name=name, train=rows[: 8 * len(labels)], test=rows[8 * len(labels) :], labels=labels)


FIRST, SECOND, THIRD = words("first", "alpha", "beta"), words("second", "beta", "delta"), words("third", "red", "blue")


def begun(place: Path, method: str = "inclora", model: str = "tiny-bert", **evaluation: str) -> Learner:
    return Learner(model, method=method, out=place, evaluation={**BY_LABELS, **evaluation})


def test_a_learner_says_first_what_earlier_tasks_will_lose_and_learns_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / "a").learn(FIRST, train=STEPS)
    passed: list[int] = []
    whole = forecast_sums.to_batch
    monkeypatch.setattr(forecast_sums, "to_batch", lambda m, f, rows: passed.append(len(rows)) or whole(m, f, rows))
    # In a new process the rows of the first task are nowhere: what is known of it is its folder.
    learner = Learner.open(tmp_path / "a")
    made = learner.learn(SECOND, train=STEPS).forecast
    assert made is not None
    assert [one.task for one in made.risks] == ["first"]
    steps = STEPS["max_steps"] * STEPS["per_device_train_batch_size"]
    assert sum(passed) - forecast_summary.ROWS + 16 == made.rows  # the summary at the end passes its 16 rows
    assert 0 < made.rows <= 0.02 * steps
    assert made.share <= 0.02
    for one in made.risks:
        assert one.nats_low <= one.nats <= one.nats_high
        assert one.points_low <= one.points <= one.points_high
    again = learner.learn(THIRD, train=STEPS).forecast
    assert again is not None
    assert {one.task for one in again.risks} == {"first", "second"}
    assert [one.nats for one in again.risks] == sorted((one.nats for one in again.risks), reverse=True)
    sizes = [adapters.read(stage.path)[0] for stage in learner._learner.folder.stages()[:2]]
    expected = sum(sum(float(one.norm()) ** 2 for one in each.values()) ** 0.5 for each in sizes) / 2
    assert again.size == pytest.approx(expected, rel=1e-4)
    assert verify(tmp_path / "a").state == "sound"

    silent = begun(tmp_path / "b")
    for task in (FIRST, SECOND, THIRD):
        assert silent.learn(task, train=STEPS, forecast=False).forecast is None
    for one, other in zip(learner._learner.folder.stages(), silent._learner.folder.stages(), strict=True):
        assert adapters.equal(adapters.read(one.path)[0], adapters.read(other.path)[0])
        assert forecast_summary.FILE in one.facts.files
        assert forecast_summary.FILE not in other.facts.files
    # Tasks of before, which left no summary, are named.
    blind = silent.learn(words("fourth", "up", "down"), train=STEPS).forecast
    assert blind is not None
    assert blind.unknown == ["first", "second", "third"]
    assert blind.reason is not None


@pytest.mark.parametrize(
    ("method", "model", "evaluation", "line"),
    [
        ("l2p", "tiny-bert", {}, "no forecast for this form: 'l2p'"),
        ("inclora", "tiny-bert", {"scoring": "generate"}, "no forecast for this form: new rows of the head"),
        ("inclora+ties", "tiny-llama", {}, "merges"),
    ],
)
def test_where_there_is_no_forecast_one_line_says_why(
    tmp_path: Path, method: str, model: str, evaluation: dict[str, str], line: str
) -> None:
    learner, short = begun(tmp_path / "a", method, model, **evaluation), {**STEPS, "max_steps": 1}
    learner.learn(FIRST, train=short)
    made = learner.learn(SECOND, train=short).forecast
    assert made is not None
    assert line in str(made.reason)
    assert not made.risks


def test_a_task_that_is_too_short_for_two_percent_has_no_forecast(tmp_path: Path) -> None:
    learner, short = begun(tmp_path / "a", "seqlora"), {**STEPS, "max_steps": 2}
    learner.learn(FIRST, train=STEPS)
    made = learner.learn(SECOND, train=short).forecast
    assert made is not None
    assert "less than one" in str(made.reason)


def test_of_many_earlier_tasks_those_that_lose_most_are_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = begun(tmp_path / "a", model="tiny-llama")
    for task in (FIRST, SECOND):
        learner.learn(task, train=STEPS)
    monkeypatch.setattr(forecasts, "NAMED", 1)
    made = learner.learn(THIRD, train=STEPS).forecast
    assert made is not None
    assert len(made.risks) == len(made.lesser) == 1
    assert {*made.lesser, made.risks[0].task} == {"first", "second"}
    assert made.risks[0].nats >= max(made.lesser.values())
    assert "the other 1 are expected to lose at most" in forecasts.lines(made)[1]
    learner.forget("second")
    third = learner._learner.folder.stages()[1].facts.forecast
    assert third is not None
    assert "second" not in {*third.lesser, *(one.task for one in third.risks)}


def test_what_is_forgotten_is_in_no_forecast_of_those_that_stay(tmp_path: Path) -> None:
    learner = begun(tmp_path / "a", model="tiny-llama")
    for task in (FIRST, SECOND, THIRD):
        learner.learn(task, train=STEPS)
    learner.forget("second")
    third = learner._learner.folder.stages()[1].facts
    assert third.forecast is not None
    assert [one.task for one in third.forecast.risks] == ["first"]
    made = learner.learn(replace(SECOND, name="again"), train=STEPS).forecast
    assert made is not None
    assert {one.task for one in made.risks} == {"first", "third"}
