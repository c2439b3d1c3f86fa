"""A budget's prediction is multiplied by how far off earlier ones were, as rows of earlier tasks show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from calculus import draw
from everlora import parse
from everlora.analysis.status import status
from everlora.archive.commits import ProbedRise
from everlora.core.errors import ConfigError
from everlora.core.roles import Budget, Curvature, Evidence, ProbedBudget, State, TaskContext
from everlora.core.updates import LowRank
from everlora.parts.kronecker import KroneckerCurvature
from everlora.testing import tiny_runs
from everlora.training import calibration as calibrating
from everlora.training.calibration import FILE, HIGHEST, LOWEST, Calibration, mean_loss
from everlora.training.group import StrengthController
from everlora.training.stages import stages

O, I = 3, 4  # noqa: E741
METHOD = "kfac(lam=budget(nats=1e-3,probes=4))"


def linear_task(seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor, State]:
    """A linear task under squared error, ½ tr (W − W*) C (W − W*)ᵀ: W*, C, and its curvature times ``scale``."""
    W, x = draw(seed, (O, I), (I, 20))
    C = x @ x.mT / 20
    part = KroneckerCurvature()
    seen = Evidence(curvature=Curvature(left=scale * C.trace() * torch.eye(O).double(), right=scale * O * C))
    found = part.remember(LowRank(torch.zeros(1, I), torch.zeros(O, 1)), {}, seen)
    memory = {key: t.double()[None] if t.is_floating_point() else t[None] for key, t in found.items()}
    state = part.prepare(TaskContext(memory=memory))
    assert state is not None
    return W, C, state


def predicted(D: Tensor, state: State) -> float:
    full = LowRank(torch.eye(I).double()[None], D[None])
    return float(KroneckerCurvature().value_and_grad(full, state).value)


def seen_after(D: Tensor, seed: int, scale: float) -> tuple[Calibration, float]:
    """What is known when an update D follows a task that was learned to its optimum, and what was predicted."""
    _, C, state = linear_task(seed, scale)
    real, expected = float(0.5 * (D @ C * D).sum()), predicted(D, state)
    calibration = Calibration(probes=8)
    calibration.append([], ProbedRise(losses={"one": [0.0]}), None)
    assert calibration.ratio == 1
    calibration.append([], ProbedRise(losses={"one": [real]}, real_rise=real), expected)
    return calibration, expected


@pytest.mark.parametrize("seed", range(4))
def test_on_a_linear_model_under_squared_error_the_ratio_is_one(seed: int) -> None:
    (D,) = draw(100 + seed, (O, I))
    assert seen_after(D, seed, 1.0)[0].ratio == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 0.5, 7.0])
def test_a_curvature_of_the_wrong_size_is_corrected(scale: float) -> None:
    """Later predictions times the ratio are the real rises, and the budget then acts as with the right curvature."""
    (D, later) = draw(50, (O, I), (O, I))
    calibration, _ = seen_after(D, 3, scale)
    assert calibration.ratio == pytest.approx(1 / scale, rel=1e-6)
    wrong, right = (predicted(later, linear_task(3, size)[2]) for size in (scale, 1.0))
    assert calibration.ratio * wrong == pytest.approx(right, rel=1e-6)
    corrected = StrengthController(Budget(nats=0.1), predicts=True, calibration=calibration.ratio)
    exact = StrengthController(Budget(nats=0.1), predicts=True)
    corrected.spend(wrong, tasks=1)
    exact.spend(right, tasks=1)
    assert exact.price > 0
    assert corrected.price == pytest.approx(exact.price, rel=1e-6)
    # λ times the gradient of the prediction, which is as wrong as the prediction is.
    assert float(corrected.lam) * scale == pytest.approx(float(exact.lam), rel=1e-5)


def test_the_ratio_is_of_sums_and_is_held() -> None:
    calibration = Calibration(probes=1)
    for real, expected in ((0.5, 0.1), (-0.1, 0.1)):
        calibration.append([], ProbedRise(losses={}, real_rise=real), expected)
    assert calibration.ratio == pytest.approx(2)
    calibration.append([], ProbedRise(losses={}, real_rise=1e3), 0.1)
    assert calibration.ratio == HIGHEST == 30
    calibration.append([], ProbedRise(losses={}, real_rise=-2e3), 0.1)
    assert calibration.ratio == LOWEST
    assert (LOWEST, HIGHEST) == (1 / 30, 30)
    assert calibration.ratio == LOWEST == pytest.approx(1 / 30)
    none = Calibration(probes=1)
    none.append([], ProbedRise(losses={}, real_rise=1.0), 0.0)
    assert none.ratio == 1


def test_how_a_budget_with_probes_is_written() -> None:
    for given in ("budget(nats=1e-3,probes=8)", "budget(probes=8, nats=1e-3)"):
        assert parse(f"kfac(lam={given})").penalties[0].strength == ProbedBudget(nats=1e-3, probes=8)
    assert Calibration.of(parse("ella(lam=budget(probes=3))")).probes == 3
    assert Calibration.of(parse("kfac")).probes == 0
    assert dataclasses.asdict(Budget(nats=1e-3)) == {"nats": 1e-3}  # which the identity of runs is made of
    for wrong in ("probes=1", "probes=x", "probes=1.5", "rows=3", "8", "probes=4,probes=8"):
        with pytest.raises(ConfigError) as refused:
            parse(f"kfac(lam=budget({wrong}))")
        assert "\n" not in str(refused.value)


def test_rows_that_do_not_tell_the_rises_apart_change_nothing() -> None:
    for error, ratio in ((0.0, 3.0), (0.099, 3.0), (0.101, 1.0)):
        calibration = Calibration(probes=2)
        calibration.append([], ProbedRise(losses={}, real_rise=0.3, error=error), 0.1)
        assert calibration.ratio == pytest.approx(ratio)


def test_rows_that_are_not_those_of_before_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "mean_loss", lambda model, family, rows: 0.5)
    (task,) = tiny_runs.stream("tiny-bert")[:1]
    for noted in (2, 3):
        seen = Calibration(probes=2, rows=[task.take(2)], losses={task.name: [0.1] * noted})
        model: Any = None
        if noted == 2:
            found = seen.measure(model, model, [])
            assert found is not None
            assert (found.real_rise, found.error) == (pytest.approx(0.4), 0.0)
        else:
            with pytest.raises(ValueError, match="longer"):
                seen.measure(model, model, [])


def test_errors_of_several_stages_add_up_as_variances() -> None:
    for error, ratio in ((0.4, 1.0), (0.35, 3.0)):
        calibration = Calibration(probes=2)
        for _ in range(2):
            calibration.append([], ProbedRise(losses={}, real_rise=0.75, error=error), 0.25)
        assert calibration.ratio == pytest.approx(ratio), "1.5 against 0.5, within twice 0.566 or beyond twice 0.495"


def test_what_was_not_measured_or_not_predicted_counts_for_nothing() -> None:
    calibration = Calibration(probes=2)
    for seen, predicted in (
        (None, 1.0),
        (ProbedRise(losses={"a": [1.0]}), 1.0),
        (ProbedRise(losses={}, real_rise=9), None),
    ):
        calibration.append([], seen, predicted)
        assert (calibration.predicted, calibration.real, calibration.variance) == (0, 0, 0)
    assert calibration.losses == {}


def test_rises_are_means_of_tasks_and_one_row_alone_has_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 2.0, 4.0, 1.0, 5.0, 7.0, 3.0, 0.0])
    monkeypatch.setattr("everlora.training.calibration.mean_loss", lambda *_: next(losses))
    one, two, three = (
        tiny_runs.text_task(name, ("yes", "no"), seed=0, train=rows) for name, rows in (("a", 2), ("b", 1), ("c", 1))
    )
    assert Calibration(probes=0).measure(cast(Any, None), cast(Any, None), [one]) is None
    calibration = Calibration(probes=2)
    first = calibration.measure(cast(Any, None), cast(Any, None), [one, two])
    assert first == ProbedRise(losses={"a": [1.0, 2.0], "b": [4.0]}, calibration=1.0)
    calibration.append([one, two], first, None)
    second = calibration.measure(cast(Any, None), cast(Any, None), [three])
    assert second is not None
    assert second.losses == {"a": [1.0, 5.0], "b": [7.0], "c": [3.0]}
    assert second.real_rise == pytest.approx((0 + 3) / 2 + 3)
    assert second.error == pytest.approx((4.5 / 2) ** 0.5)


@pytest.mark.parametrize(("probes", "rows"), [(0, None), (2, 2), (9, 4)])
def test_rows_are_drawn_from_the_seed_and_in_their_order(probes: int, rows: int | None) -> None:
    task = tiny_runs.text_task("a", ("yes", "no"), seed=0, train=4)
    (stage,) = stages(parse("kfac"), [task])
    drawn = [Calibration(probes=probes).draw(stage, seed) for seed in (0, 0, *range(20))]
    assert drawn[0] == drawn[1]
    if rows is None:
        assert drawn == [[]] * 22
        return
    for (found,) in drawn:
        places = [task.train.index(row) for row in found.train]
        assert places == sorted(set(places))
        assert (len(places), list(found.test), list(found.dev)) == (rows, list(found.train[:1]), [])
    assert any(found != drawn[0] for found in drawn) is (rows < 4)


def rise(before: ProbedRise, after: ProbedRise, names: list[str]) -> tuple[float, float]:
    """The sum of the tasks' mean rises, and its standard error."""
    rises = [Tensor(after.losses[name]).double() - Tensor(before.losses[name]).double() for name in names]
    return float(sum(one.mean() for one in rises)), float(sum(one.var() / len(one) for one in rises) ** 0.5)


@pytest.mark.parametrize("scoring", ["labels", "generate"])
def test_a_run_measures_what_its_budget_predicted(scoring: str, tmp_path: Path) -> None:
    tasks, how = tiny_runs.stream("tiny-bert", 3), {"evaluation": {"scoring": scoring, "schedule": "final"}}
    learner = tiny_runs.train_sequence("tiny-bert", METHOD, tmp_path / "run", tasks, **how)
    found = status(tmp_path / "run")
    first, second, third = (task.probed for task in found.tasks)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.real_rise is None
    assert (first.calibration, second.calibration) == (1, 1)
    assert (second.real_rise, second.error) == pytest.approx(rise(first, second, ["first"]))
    assert (third.real_rise, third.error) == pytest.approx(rise(second, third, ["first", "second"]))
    expected = found.tasks[1].predicted_rise
    assert expected is not None
    ratio = min(max(second.real_rise / expected, LOWEST), HIGHEST)
    tells = abs(second.real_rise - expected) > 2 * second.error
    assert third.calibration == pytest.approx(ratio if tells else 1.0)
    assert f"(really {third.real_rise:.2g} ± {third.error:.2g})" in (found.forecast or "")
    assert found.stored_rows == 12
    assert learner.storage().stored_rows == 12
    train = {row.input for row in tasks[0].train}
    assert {row.input for row in learner.calibration.rows[0].train} <= train
    model = learner.inference_model()
    for task in learner.calibration.rows:
        rows = [(row, task) for row in task.train]
        mean = sum(third.losses[task.name]) / len(rows)
        assert mean_loss(model, learner.base.family, rows) == pytest.approx(mean, rel=1e-4)


def test_a_run_that_goes_on_knows_what_was_seen(tmp_path: Path) -> None:
    tasks = tiny_runs.stream("tiny-bert", 3)
    whole = tiny_runs.train_sequence("tiny-bert", METHOD, tmp_path / "whole", tasks)
    cut = tiny_runs.begin("tiny-bert", METHOD, tmp_path / "cut", progress=tiny_runs.Cut("third"))
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tasks)
    resumed = tiny_runs.begin("tiny-bert", METHOD, tmp_path / "cut", resume=True)
    resumed.follow(tasks)
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0
    assert resumed.calibration.losses == whole.calibration.losses
    assert resumed.calibration.ratio == whole.calibration.ratio


def test_without_probes_no_row_is_stored(tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-bert", "kfac", tmp_path / "run")
    assert not list((tmp_path / "run").rglob(FILE))
    assert learner.storage().stored_rows == 0
    assert {task.probed for task in status(tmp_path / "run").tasks} == {None}
