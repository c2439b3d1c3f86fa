"""The forecast's arithmetic: exact where a loss is quadratic, of bounded size, and ordered as it must be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tiny_runs
from calculus import draw
from everlora.archive.forecast import Forecast, TaskRisk
from everlora.core.errors import FolderError
from everlora.core.updates import LowRank, concatenate
from everlora.learner.forecast import lines
from everlora.learner.forecast_risk import STAKED, interval, norm, rise, sized
from everlora.parts import factor_stores
from everlora.training import forecast_summary
from everlora.training.curvature import curvature
from everlora.training.evidence import weight_gradients
from everlora.training.forecast_summary import BYTES, LossModel, TaskSummary, descent, product, rank_for
from everlora.training.forecast_sums import Sums, fits, sums_over

O, I, R = 3, 5, 2  # noqa: E741
SOURCE = torch.Generator().manual_seed(0)


class Regression:
    """A linear layer's task: ½ mean ‖W x − y‖² over its rows."""

    def __init__(self, seed: int) -> None:
        self.x, self.y = draw(seed, (40, I), (40, O), dtype=torch.float32)

    def loss(self, W: Tensor) -> float:
        return float((self.x @ W.mT - self.y).square().sum(1).mean() / 2)

    def sums(self, W: Tensor) -> Sums:
        """Of this loss: the Fisher information of y ~ N(W x, 1), for which L and R are exact."""
        G = (self.x @ W.mT - self.y).mT @ self.x / len(self.x)
        return Sums(G, torch.eye(O), O * self.x.mT @ self.x / len(self.x))

    def summary(self, W: Tensor) -> LossModel:
        return LossModel.of(self.sums(W), self.sums(W), 8, SOURCE)


def pair(seed: int, trained: str, scale: float = 2.0) -> LowRank:
    A, B = draw(seed, (R, I), (O, R), dtype=torch.float32)
    return LowRank(A.requires_grad_(trained == "A"), B.requires_grad_(trained == "B"), scale)


@pytest.mark.parametrize("trained", ["A", "B"])
def test_of_linear_regressions_the_forecast_is_what_comes(trained: str) -> None:
    """An oracle: three tasks on one linear layer over a frozen body, each learned by a step of descent."""
    (W,) = draw(9, (O, I), dtype=torch.float32)
    first, rate = Regression(1), 0.05
    known, updates = first.summary(W), []
    for number in (2, 3):
        task, live = Regression(number), pair(number, trained)
        # Without looking at the first task: its summary, and the slope of the new one.
        moved = descent(live, task.sums(W).gradient)
        step = LowRank(moved.A, moved.B * rate)
        forecast = sum(known.terms(step, concatenate(updates) if updates else None))
        tensor = getattr(live, trained)
        G = task.sums(W).gradient
        on = live.scale * (live.B.mT @ G if trained == "A" else G @ live.A.mT)
        after = live.holding({**live.tensors, trained: tensor - rate * on})
        D = (after.dense() - live.dense()).detach()
        assert forecast == pytest.approx(first.loss(W + D) - first.loss(W), rel=1e-3, abs=1e-6)
        updates.append(step)
        W = W + D


def test_a_summary_of_low_rank_keeps_the_trace_and_is_exact_where_it_has_the_rank() -> None:
    (root,) = draw(3, (12, 2), dtype=torch.float32)
    matrix = root @ root.mT
    sums = Sums(matrix, matrix, matrix)
    kept = LossModel.of(sums, sums, 2, SOURCE)
    for side in (kept.left, kept.right, kept.begin):
        torch.testing.assert_close(factor_stores.decode(side), matrix, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kept.gradient.dense(), matrix, rtol=1e-4, atol=1e-4)
    thin = LossModel.of(sums, sums, 1, SOURCE)
    assert float(factor_stores.decode(thin.left).trace()) == pytest.approx(float(matrix.trace()), rel=1e-4)
    assert not torch.allclose(thin.gradient.dense(), matrix, rtol=1e-2)


def test_tasks_that_push_outputs_alike_overlap_wholly_and_others_not_at_all() -> None:
    here, there = torch.diag(torch.tensor([1.0, 2.0, 0.0])), torch.diag(torch.tensor([0.0, 0.0, 3.0]))
    sums = Sums(torch.zeros(O, I), here, torch.eye(I))
    kept = LossModel.of(sums, sums, 8, SOURCE)
    assert kept.overlap(5 * here) == pytest.approx(1.0, rel=1e-5)
    assert kept.overlap(there) == pytest.approx(0.0, abs=1e-6)
    assert kept.overlap(torch.zeros(O, O)) == 0.0


@given(st.floats(0, 10), st.floats(0, 1), st.floats(0, 5))
def test_no_more_is_expected_to_be_lost_than_is_at_stake(curved: float, overlap: float, stake: float) -> None:
    expected = rise(curved, overlap, stake)
    assert 0 <= expected <= max(STAKED * overlap**0.5 * stake, 1e-6) + 1e-12
    assert rise(curved + 1, overlap, stake) >= expected
    for unit in ("nats", "points"):
        low, high = interval(expected, unit)
        assert low <= expected <= high
        assert low < high


def test_an_update_is_taken_to_be_as_large_as_it_is_told() -> None:
    updates = {"a": LowRank(*draw(1, (R, I), (O, R))), "b": LowRank(*draw(2, (R, I), (O, R)), 3.0)}
    taken = sized(updates, 7.0)
    assert norm(taken) == pytest.approx(7.0)
    ratio = 7.0 / norm(updates)
    torch.testing.assert_close(taken["b"].dense(), ratio * updates["b"].dense())
    assert product(updates["a"], updates["a"]) == pytest.approx(float(updates["a"].norm()) ** 2, rel=1e-5)


def test_one_pass_of_rows_has_the_sums_of_two() -> None:
    base = tiny_runs.base("tiny-llama")
    task = tiny_runs.stream("tiny-llama", 1)[0]
    rows = [(row, task) for row in task.train[:12]]
    layers = {n: m for n, m in base.model.named_modules() if n.endswith(("q_proj", "v_proj"))}
    seen = sums_over(base.model, base.family, layers, rows, torch.Generator().manual_seed(3))
    fisher = curvature(base.model, base.family, layers, rows, torch.Generator().manual_seed(3))
    each = weight_gradients(base.model, base.family, layers, rows, per_sample=True)
    assert seen.rows == 12
    assert seen.loss > 0
    for name, one in seen.sums.items():
        torch.testing.assert_close(one.left, fisher[name].left, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(one.right, fisher[name].right, rtol=1e-4, atol=1e-8)
        assert each[name].shape[0] == 12
        cosine = torch.nn.functional.cosine_similarity(one.gradient.flatten(), each[name].mean(0).flatten(), dim=0)
        assert float(cosine) > 0.9  # the mean over tokens there, the sum over a row's answer here
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert not any(layer._forward_hooks for layer in layers.values())


def test_a_summary_reads_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    sums = Regression(1).sums(torch.zeros(O, I))
    summary = TaskSummary({"layer.0.q": LossModel.of(sums, sums, 2, SOURCE)}, 2.0, 0.5)
    assert forecast_summary.read(tmp_path) is None
    forecast_summary.write(tmp_path, None)
    assert forecast_summary.read(tmp_path) is None
    forecast_summary.write(tmp_path, summary)
    again = forecast_summary.read(tmp_path)
    assert again is not None
    assert (again.before, again.after) == (2.0, 0.5)
    update = LowRank(*draw(4, (R, I), (O, R), dtype=torch.float32))
    assert again.models["layer.0.q"].terms(update) == pytest.approx(
        summary.models["layer.0.q"].terms(update), rel=1e-5
    )
    file = tmp_path / forecast_summary.FILE
    file.write_bytes(file.read_bytes()[: random.Random(0).randrange(20, 60)])
    with pytest.raises(FolderError, match="cannot be read"):
        forecast_summary.read(tmp_path)


def test_summaries_are_of_bounded_size() -> None:
    for shapes in ([(384, 384)] * 4, [(576, 576), (192, 576)] * 30, [(4096, 4096)] * 16):
        rank, width = rank_for(shapes), sum(out + into for out, into in shapes)
        # A gradient, L twice and R, and the diagonals of the last three.
        written = 4 * (rank * width + sum((2 * rank + 2) * out + (rank + 1) * into for out, into in shapes))
        assert written <= BYTES or rank == 1
    assert not fits([(14336, 4096)] * 32)


def test_a_forecast_is_told_line_by_line() -> None:
    risk = TaskRisk(
        task="refunds", nats=0.1, nats_low=0.0, nats_high=0.3, points=4.0, points_low=-1.0, points_high=9.0,
        overlap=0.2, stake=1.0, slope=0.0, curved=0.1,
    )  # fmt: skip
    made = Forecast(risks=[risk], unknown=["tone"])
    assert lines(made) == [
        "refunds is expected to lose 4.0 (-1.0 to 9.0) points, 0.100 nats",
        "tone: not forecast, it has no summary",
    ]
    assert lines(Forecast(reason="no forecast: so it is")) == ["no forecast: so it is"]
