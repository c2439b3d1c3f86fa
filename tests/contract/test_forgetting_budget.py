"""What a task may cost the earlier ones: an update is taken as far as their rows allow, and no further."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from everlora import Example, Learner, Task
from everlora.adapters import files as adapters
from everlora.core.errors import ConfigError, TrainingError
from everlora.core.updates import LowRank
from everlora.evaluation.scoring import TaskScore
from everlora.learner.forgetting_budget import drop, scaled
from everlora.learner.sequential import SequentialLearner

BY_LABELS = {"scoring": "labels"}
STEPS = {"max_steps": 30, "learning_rate": 0.02, "per_device_train_batch_size": 8}


def score(task: str, *each: float) -> TaskScore:
    blank = ("",) * len(each)
    right = tuple(one > 0 for one in each)
    mean = sum(each) / len(each)
    return TaskScore(task=task, targets=blank, predictions=blank, correct=right, each=each, score=mean)


def words(name: str, *labels: str) -> Task:
    rows = [Example(f"{label} {label} {label} {n}", label) for n in range(12) for label in labels]
    return Task(name=name, train=rows[: 8 * len(labels)], test=rows[8 * len(labels) :], labels=labels)


def test_the_drop_is_the_mean_over_tasks_and_its_error_that_of_paired_rows() -> None:
    before = [score("a", 100.0, 100.0, 100.0, 0.0), score("b", 100.0, 100.0)]
    after = [score("a", 100.0, 0.0, 100.0, 0.0), score("b", 100.0, 100.0)]
    lost, error = drop(before, after)
    assert lost == pytest.approx(25.0 / 2)
    # Differences of a: 0, 100, 0, 0; their variance is 2500 with n - 1, that of their mean 625. Task b has none.
    assert error == pytest.approx(625.0**0.5 / 2)
    assert drop(before, before) == (0.0, 0.0)


@pytest.mark.parametrize("sigma", [None, torch.tensor([[2.0], [3.0]])])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_an_update_is_that_share_of_its_matrix(sigma: torch.Tensor | None, share: float) -> None:
    draws = torch.Generator().manual_seed(0)
    whole = LowRank(A=torch.randn(2, 5, generator=draws), B=torch.randn(4, 2, generator=draws), sigma=sigma)
    (part,) = scaled({"layer": whole}, share).values()
    assert torch.allclose(part.dense(), share * whole.dense(), atol=1e-6)


def taught(place: Path, may_lose: float | None) -> Learner:
    learner = Learner("tiny-bert", method="inclora", out=place, lora={"lora_alpha": 32}, evaluation=BY_LABELS)
    learner.learn(words("first", "alpha", "beta", "gamma"), keep_probe=12, train={**STEPS, "learning_rate": 0.005})
    learner.learn(words("second", "alpha", "beta", "delta"), may_lose=may_lose, train={**STEPS, "learning_rate": 0.09})
    return learner


def test_what_is_taken_stays_within_the_budget_and_is_what_is_written(tmp_path: Path) -> None:
    free, held = taught(tmp_path / "free", None), taught(tmp_path / "held", 30.0)
    spent = held.status() and held._learner.folder.stages()[1].facts.spent
    assert free._learner.folder.stages()[1].facts.spent is None
    assert spent is not None
    assert (spent.may_lose, spent.rows) == (30.0, 12)
    assert spent.lost + spent.error <= 30.0
    assert 0 < spent.share < 1, "these tasks disturb one another, or the test shows nothing"
    whole, part = (adapters.read(one._learner.folder.stages()[1].path)[0] for one in (free, held))
    for name, update in part.items():
        assert torch.allclose(update.dense(), spent.share * whole[name].dense(), atol=1e-5)
    # Measured again, on the rows that it was held against: what was predicted is what is there.
    when, now = held._learner.folder.stages()[0].facts.row[0], held.evaluate().scores["first"]
    assert when is not None
    assert when - now <= 30.0


def test_a_first_task_costs_nothing_and_a_wide_budget_takes_all(tmp_path: Path) -> None:
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "one", evaluation=BY_LABELS)
    first = learner.learn(words("first", "alpha", "beta"), keep_probe=4, may_lose=0.0, train={"max_steps": 1})
    assert first.spent is None
    second = learner.learn(words("second", "alpha", "beta"), may_lose=100.0, train={"max_steps": 1})
    assert second.spent is not None
    assert second.spent.share == 1.0


def test_what_is_predicted_is_predicted_of_what_is_taken(tmp_path: Path) -> None:
    """The prediction is quadratic: a share c of an update is predicted to cost c² of the whole."""
    found = []
    for name, may_lose in (("whole", 1000.0), ("part", 0.0)):
        method = "inclora+kfac(lam=budget(nats=1,probes=4))"
        learner = Learner(
            "tiny-bert", method=method, out=tmp_path / name, lora={"lora_alpha": 32}, evaluation=BY_LABELS
        )
        learner.learn(words("first", "alpha", "beta", "gamma"), keep_probe=12, train={**STEPS, "learning_rate": 0.005})
        second = words("second", "alpha", "beta", "delta")
        done = learner.learn(second, may_lose=may_lose, train={**STEPS, "learning_rate": 0.09})
        assert done.spent is not None
        assert done.predicted_rise is not None
        noted = learner._learner.folder.stages()[1].facts.predicted_rise
        assert noted == done.predicted_rise == learner._learner.calibration.predicted
        found.append((done.spent.share, done.predicted_rise))
    (whole, all_of_it), (share, part) = found
    assert whole == 1
    assert 0 < share < 1
    assert part == pytest.approx(share**2 * all_of_it, rel=1e-3)


def test_without_rows_the_forecast_stands_in(tmp_path: Path) -> None:
    wide = Learner("tiny-llama", method="inclora", out=tmp_path / "wide", lora={"lora_alpha": 32})
    wide.learn(words("first", "alpha", "beta", "gamma"), train=STEPS)
    held = Learner.open(shutil.copytree(tmp_path / "wide", tmp_path / "held"))
    second = words("second", "alpha", "beta", "delta")
    # What the whole update is expected to cost, found by a budget that it stays within.
    all_of_it = wide.learn(second, train=STEPS, may_lose=1000.0).spent
    assert all_of_it is not None
    assert (all_of_it.share, all_of_it.rows, all_of_it.forecast) == (1.0, 0, True)
    spent = held.learn(second, train=STEPS, may_lose=all_of_it.lost / 3).spent
    assert spent is not None
    assert (spent.rows, spent.error, spent.forecast) == (0, 0.0, True)
    assert 0 < spent.lost <= all_of_it.lost / 3
    assert 0 < spent.share < 1
    whole_update, part = (adapters.read(one._learner.folder.stages()[1].path)[0] for one in (wide, held))
    for name, update in part.items():
        assert torch.allclose(update.dense(), spent.share * whole_update[name].dense(), atol=1e-5)
    with pytest.raises(ConfigError, match="--no-forecast leaves out what would stand in"):
        held.learn(words("third", "alpha", "beta"), may_lose=1.0, train=STEPS, forecast=False)
    with pytest.raises(ConfigError, match="is no budget"):
        held.learn(words("third", "alpha", "beta"), may_lose=float("nan"), train=STEPS)
    with pytest.raises(TrainingError, match="points by the forecast, and no part of it"):
        held.learn(words("third", "alpha", "beta"), may_lose=-1.0, train=STEPS)


def test_a_budget_that_nothing_can_be_held_against_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "no-rows", evaluation=BY_LABELS)
    learner.learn(words("first", "alpha", "beta"), train={"max_steps": 1})
    monkeypatch.setattr(SequentialLearner, "train_task", lambda *_: pytest.fail("it was trained first"))
    with pytest.raises(ConfigError, match="less than one; teach with --keep-probe"):
        learner.learn(words("second", "alpha", "beta"), may_lose=1.0, train={"max_steps": 1})


def test_without_rows_or_with_another_form_a_budget_is_refused(tmp_path: Path) -> None:
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "no-rows", evaluation=BY_LABELS)
    learner.learn(words("first", "alpha", "beta"), train={"max_steps": 1})
    with pytest.raises(ConfigError, match="no test rows of earlier tasks are at hand"):
        learner.learn(words("second", "alpha", "beta"), may_lose=1.0, train={"max_steps": 1})
    assert len(learner.history()) == 1, "nothing was committed"
    other = Learner("tiny-bert", method="seqlora", out=tmp_path / "one-adapter")
    other.learn(words("first", "alpha", "beta"), keep_probe=4, train={"max_steps": 1})
    with pytest.raises(ConfigError, match="'seqlora' does not sum its updates"):
        other.learn(words("second", "alpha", "beta"), may_lose=1.0, train={"max_steps": 1})


def test_a_task_that_fits_nowhere_is_not_committed_but_by_force(tmp_path: Path) -> None:
    learner = Learner(
        "tiny-bert", method="inclora", out=tmp_path / "run", lora={"lora_alpha": 32}, evaluation=BY_LABELS
    )
    learner.learn(words("first", "alpha", "beta", "gamma"), keep_probe=12, train=STEPS)
    with pytest.raises(TrainingError, match="is not committed"):
        learner.learn(words("second", "alpha", "beta", "delta"), may_lose=-200.0, train=STEPS)
    assert [task.name for task in learner.status().tasks] == ["first"]


def test_a_head_that_all_tasks_share_is_no_matter_of_an_update(tmp_path: Path) -> None:
    """Its new rows answer in the place of the old ones, and a share of the update would not bring these back."""
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "run")
    learner.learn(words("first", "alpha", "beta"), keep_probe=4, train={"max_steps": 1})
    with pytest.raises(ConfigError, match="a head that answers with the labels of all tasks"):
        learner.learn(words("second", "alpha", "beta"), may_lose=2.0, train={"max_steps": 1})
