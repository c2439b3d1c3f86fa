"""PS-LoRA's stability loss: worked examples, limits, autograd. Its merge stands in test_merges."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from calculus import by_autograd, draw, numeric
from everlora.core.errors import ConfigError
from everlora.core.roles import PenaltyGradient, TaskContext
from everlora.core.updates import LowRank, stack
from everlora.methods.pslora import pslora
from everlora.parts import signs
from everlora.parts.merges import LargestMagnitude
from everlora.parts.signs import SignConflict, sign_conflict

SHAPES = [(1, 5, 7), (2, 7, 5), (8, 11, 6)]  # (r, o, i)
A = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
B = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
W = torch.tensor([[1.0, 0.0], [0.5, -1.0]], dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)


def psi(D: Tensor, past: Tensor, sharpness: Tensor | float, detached: bool = False) -> Tensor:
    """The formula as it is printed; autograd takes it from there."""
    weight = 1 - torch.tanh(sharpness * D) * torch.tanh(sharpness * past)
    return ((weight.detach() if detached else weight) * D).square().sum()


def pull_on(part: SignConflict, live: LowRank, *updates: LowRank, start: LowRank | None = None) -> PenaltyGradient:
    state = part.prepare(TaskContext(updates=updates, start=start))
    assert state is not None
    return part.value_and_grad(live, state)


# --- worked examples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corner", "value", "on_D", "on_A", "on_B"),
    [
        (1.0, 2.688891, [[0.084099, -2.0], [1.085077, -0.168187]], [2.254252, -2.336373], [2.084099, 1.253263]),
        (-1.0, 5.008993, [[6.003705, -2.0], [1.085077, -0.168187]], [8.173858, -2.336373], [8.003705, 1.253263]),
    ],
)
def test_the_worked_examples(
    corner: float, value: float, on_D: list[list[float]], on_A: list[float], on_B: list[float]
) -> None:
    past = W.clone()
    past[0, 0] = corner
    found, gA, gB = sign_conflict(A, B, 1.0, past.tanh(), ONE)
    assert float(found) == pytest.approx(value, abs=1e-6)
    assert gA.flatten().tolist() == pytest.approx(on_A, abs=1e-6)
    assert gB.flatten().tolist() == pytest.approx(on_B, abs=1e-6)
    # With A = I the gradient for B is that for ΔW itself.
    D = B @ A
    _, _, gD = sign_conflict(torch.eye(2, dtype=torch.float64), D, 1.0, past.tanh(), ONE)
    torch.testing.assert_close(gD, torch.tensor(on_D, dtype=torch.float64), rtol=0, atol=1e-6)


def test_every_module_has_a_sharpness_of_its_own() -> None:
    """η = 1 / rms(ΔW_past) of one module, whatever stands beside it in the stack."""
    pasts = [LowRank(A.float(), size * B.float()) for size in (1.0, 100.0)]
    live = LowRank(A.float(), -0.5 * B.float())
    alone = [float(pull_on(SignConflict(), stack([live]), stack([past])).value) for past in pasts]
    together = pull_on(SignConflict(), stack([live, live]), stack(pasts)).value
    assert together.tolist() == pytest.approx(alone, rel=1e-6)
    rms = float((B @ A).square().mean().sqrt())
    expected = [float(psi(-0.5 * B @ A, size * B @ A, 1 / (size * rms))) for size in (1.0, 100.0)]
    assert alone == pytest.approx(expected, rel=1e-5)


def test_the_steps_of_the_worked_example() -> None:
    h, sigma = (B @ A).tanh(), W.tanh()
    expected = [
        (h, [[0.761594, -0.761594], [0.964028, -0.964028]]),
        (sigma, [[0.761594, 0.0], [0.462117, -0.761594]]),
        (1 - sigma * h, [[0.419974, 1.0], [0.554506, 0.265802]]),
    ]
    for got, want in expected:
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_worked_example_through_the_part_and_a_past_of_two_tasks() -> None:
    first = LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25], [0.125]]), 4.0)
    second = LowRank(torch.tensor([[0.0, -2.0]]), torch.tensor([[0.0], [1.0]]), 0.5)
    live = stack([LowRank(A.float(), B.float() / 2, 2.0)])
    pull = pull_on(SignConflict(lam=3.0, sharpness=1.0), live, stack([first]), stack([second]))
    assert pull.value.tolist() == pytest.approx([2.688891], abs=1e-5)
    assert pull.A.flatten().tolist() == pytest.approx([2.254252, -2.336373], abs=1e-5)
    assert pull.B.flatten().tolist() == pytest.approx([2 * 2.084099, 2 * 1.253263], abs=1e-5)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_the_gradient_is_autograds(r: int, o: int, i: int, scale: float, continued: bool, detached: bool) -> None:
    A, B, past, start = draw(r + o, (r, i), (o, r), (o, i), (o, i))
    past[0, :2] = 0
    past[:, -1] = 0
    eta = torch.tensor(0.8, dtype=torch.float64)
    before = start if continued else torch.zeros_like(start)
    expected = by_autograd(lambda a, b: psi(scale * (b @ a) - before, past, eta, detached), A, B)
    found = sign_conflict(
        A, B, scale, (eta * past).tanh(), eta, detach_weight=detached, start=start if continued else None
    )
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert float(found[1].norm()) > 0.1


@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_the_gradient_is_the_finite_difference(r: int, o: int, i: int) -> None:
    A, B, past = draw(r, (r, i), (o, r), (o, i))
    sigma, eta = (0.5 * past).tanh(), ONE / 2
    _, gA, gB = sign_conflict(A, B, 1.5, sigma, eta)
    by_A = numeric(lambda x: sign_conflict(x, B, 1.5, sigma, eta)[0], A)
    by_B = numeric(lambda x: sign_conflict(A, x, 1.5, sigma, eta)[0], B)
    size = float(max(gA.abs().max(), gB.abs().max()))
    torch.testing.assert_close(gA, by_A, rtol=0, atol=1e-7 * size)
    torch.testing.assert_close(gB, by_B, rtol=0, atol=1e-7 * size)


def test_the_detached_pull_always_shrinks() -> None:
    """Along ΔW: ⟨D, ∂Ψ/∂D⟩ = 2Ψ detached; with the full gradient large aligned entries are pushed on."""
    D, past = 3 * torch.ones(1, 1).double(), 3 * torch.ones(1, 1).double()
    unit = torch.ones(1, 1).double()
    value, _, full = sign_conflict(unit, D, 1.0, past.tanh(), ONE)
    _, _, detached = sign_conflict(unit, D, 1.0, past.tanh(), ONE, detach_weight=True)
    assert float(full) < 0 < float(detached)
    assert float(detached * D) == pytest.approx(2 * float(value), rel=1e-12)


# --- limits and invariants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("eta", [1e-3, 1.0, 1e3])
def test_psi_lies_between_nothing_and_four_times_the_update(seed: int, eta: float) -> None:
    A, B, past = draw(seed, (2, 6), (5, 2), (5, 6))
    value, *_ = sign_conflict(A, B, 1.0, (eta * past).tanh(), eta * ONE)
    whole = (B @ A).square().sum()
    assert 0 <= float(value) <= 4 * float(whole)
    flipped, *_ = sign_conflict(A, -B, 1.0, (-eta * past).tanh(), eta * ONE)
    torch.testing.assert_close(flipped, value, rtol=1e-12, atol=0)
    if eta == 1e-3:  # tanh is flat: plain decay
        torch.testing.assert_close(value, whole, rtol=1e-4, atol=0)
    if eta == 1e3:  # tanh is a sign: aligned entries are free, opposed ones cost fourfold
        opposed = (B @ A) * past < 0
        torch.testing.assert_close(value, 4 * ((B @ A) * opposed).square().sum(), rtol=1e-2, atol=1e-4)


def test_without_a_past_psi_is_decay() -> None:
    A, B = draw(1, (2, 6), (5, 2))
    for eta, detached in itertools.product((0.1, 1.0, 50.0), (False, True)):
        value, gA, gB = sign_conflict(A, B, 1.5, torch.zeros(5, 6).double(), eta * ONE, detach_weight=detached)
        D = 1.5 * B @ A
        torch.testing.assert_close(value, D.square().sum(), rtol=1e-12, atol=0)
        torch.testing.assert_close(gB, 2 * 1.5 * D @ A.T, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gA, 2 * 1.5 * B.T @ D, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c", [0.01, 10.0])
def test_the_update_is_seen_and_not_its_factors(c: float) -> None:
    A, B, past = draw(2, (2, 6), (5, 2), (5, 6))
    value, gA, gB = sign_conflict(A, B, 1.0, past.tanh(), ONE)
    other, hA, hB = sign_conflict(c * A, B / c, 1.0, past.tanh(), ONE)
    torch.testing.assert_close(other, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(hA, gA / c, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(hB, gB * c, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("part", [SignConflict(), SignConflict(detach_weight=True, past="merged")], ids=str)
def test_the_step_zero_of_a_task_feels_no_pull(part: SignConflict) -> None:
    A, P, Q = draw(6, (3, 2, 5), (3, 4, 5), (3, 7, 4), dtype=torch.float32)
    pull = pull_on(part, LowRank(A, torch.zeros(3, 7, 2), 4.0), LowRank(P, Q))
    assert not any(tensor.any() for tensor in (pull.value, pull.A, pull.B))


def aligned(D: Tensor, sigma: float) -> Tensor:
    """√Ψ of one entry at η = 1: (1 − σ tanh D) D."""
    unit = torch.ones(1, 1, dtype=torch.float64)
    return torch.stack([sign_conflict(unit, d.view(1, 1), 1.0, sigma * unit, ONE)[0] for d in D]).sqrt()


def slope(D: Tensor, sigma: float) -> Tensor:
    unit = torch.ones(1, 1, dtype=torch.float64)
    return torch.stack([sign_conflict(unit, d.view(1, 1), 1.0, sigma * unit, ONE)[2].flatten()[0] for d in D])


def test_aligned_entries_grow_dearer_up_to_a_threshold_and_then_free() -> None:
    """Increasing for all D iff σ ≤ 0.83356, that is η|W_past| ≤ 1.19968; at σ = 1 the peak is f(0.63923) = 0.27846."""
    D = torch.linspace(0.01, 6, 600, dtype=torch.float64)
    assert (slope(D, 0.83356 - 1e-5) > 0).all()
    fine = torch.linspace(1.1, 1.3, 400, dtype=torch.float64)
    assert (slope(fine, 0.83356 + 1e-5) < 0).any()
    assert math.atanh(0.83356) == pytest.approx(1.19968, abs=2e-5)
    near = torch.linspace(0.6, 0.7, 2001, dtype=torch.float64)
    f = aligned(near, 1.0)
    assert float(near[f.argmax()]) == pytest.approx(0.63923, abs=5e-5)
    assert float(f.max()) == pytest.approx(0.27846, abs=5e-6)
    assert float(aligned(torch.tensor([12.0]).double(), 1.0)) < 1e-8


# --- the part --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1e-6, 1.0, 1e4])
def test_sharpness_rms_frees_the_loss_from_the_size_of_the_weights(c: float) -> None:
    """Ψ(cD, cW) = c² Ψ(D, W): the same picture of signs at every size; a fixed η sees another one."""
    A, B, P, Q = draw(3, (1, 2, 6), (1, 5, 2), (1, 3, 6), (1, 5, 3), dtype=torch.float32)
    one = pull_on(SignConflict(), LowRank(A, B), LowRank(P, Q))
    other = pull_on(SignConflict(), LowRank(A, c * B), LowRank(P, c * Q))
    torch.testing.assert_close(other.value, c**2 * one.value, rtol=1e-4, atol=0)
    fixed = SignConflict(sharpness=1.0)
    before, after = (pull_on(fixed, LowRank(A, k * B), LowRank(P, k * Q)).value / k**2 for k in (1.0, c))
    assert (c == 1) == (float(after) == pytest.approx(float(before), rel=0.05))


def test_sharpness_rms_is_one_over_the_rms_of_the_past() -> None:
    A, B, P, Q = draw(4, (2, 6), (5, 2), (3, 6), (5, 3))
    past = (2.0 * Q @ P).float().double()
    eta = 1 / past.square().mean().sqrt()
    live, before = LowRank(A, B, 0.5), LowRank(P.float(), Q.float(), 2.0)
    value, gA, gB = by_autograd(lambda a, b: psi(0.5 * (b @ a), past, eta), A, B)
    pull = pull_on(SignConflict(), stack([live]), stack([before]))
    torch.testing.assert_close(pull.value[0], value, rtol=1e-5, atol=0)
    torch.testing.assert_close(pull.A[0], gA, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pull.B[0], gB, rtol=1e-5, atol=1e-5)


def test_a_module_in_which_nothing_was_learned_only_decays() -> None:
    A, B, P = draw(4, (1, 2, 6), (1, 5, 2), (1, 3, 6), dtype=torch.float32)
    live = LowRank(A, 100 * B, 4.0)
    pull = pull_on(SignConflict(), live, LowRank(P, torch.zeros(1, 5, 3)))
    torch.testing.assert_close(pull.value, live.dense().square().sum((-2, -1)))
    assert all(tensor.isfinite().all() for tensor in (pull.A, pull.B))


def test_on_the_first_task_nothing_is_pulled_unless_asked() -> None:
    assert SignConflict().prepare(TaskContext()) is None
    assert pslora().penalties[0].prepare(TaskContext()) is None
    A, B = draw(5, (3, 2, 6), (3, 5, 2), dtype=torch.float32)
    for live in (LowRank(A, B, 4.0), LowRank(A, B, 4.0, torch.full((3, 2, 1), 0.5))):
        pull = pull_on(SignConflict(first_task_decay=True), live)
        torch.testing.assert_close(pull.value, live.dense().square().sum((-2, -1)))
        assert (pull.A.shape, pull.B.shape) == (A.shape, B.shape)


def test_signs_are_compared_with_the_sum_or_with_the_merge() -> None:
    A, B, *rest = draw(7, (1, 2, 6), (1, 5, 2), *[(1, 2, 6), (1, 5, 2)] * 3, dtype=torch.float32)
    updates = tuple(LowRank(P, Q, 2.0) for P, Q in zip(rest[::2], rest[1::2], strict=True))
    live = LowRank(A, B, 4.0)
    total = sum((update.dense() for update in updates), torch.zeros(1, 5, 6))
    merged = LargestMagnitude().merge(update.dense() for update in updates)
    values = []
    for view, past in (("sum", total), ("merged", merged)):
        value = psi(live.dense(), past, 0.7)
        values.append(float(value))
        found = pull_on(SignConflict(past=view, sharpness=0.7), live, *updates)  # type: ignore[arg-type]
        torch.testing.assert_close(found.value[0], value, rtol=1e-5, atol=0)
        eta = 1 / past.square().mean().sqrt()
        found = pull_on(SignConflict(past=view), live, *updates)  # type: ignore[arg-type]
        torch.testing.assert_close(found.value[0], psi(live.dense(), past, eta), rtol=1e-5, atol=0)
    assert values[0] != pytest.approx(values[1], rel=1e-3)
    assert pslora(loss_past="merged").penalties[0].past == "merged"  # type: ignore[attr-defined]


@pytest.mark.parametrize("sharpness", [math.nan, math.inf, -1.0])
def test_a_sharpness_that_is_no_positive_number_is_refused(sharpness: float) -> None:
    with pytest.raises(ConfigError, match="sharpness"):
        pslora(sharpness=sharpness)


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_rows_of_outputs_may_be_taken_few_at_once(
    monkeypatch: pytest.MonkeyPatch, continued: bool, detach: bool
) -> None:
    A, B, past, start = draw(3, (2, 3, 7), (2, 11, 3), (2, 11, 7), (2, 11, 7))
    eta = torch.tensor([0.5, 2.0]).double().view(2, 1, 1)
    more = {"detach_weight": detach, "start": start if continued else None}
    whole = sign_conflict(A, B, 2.0, past.tanh(), eta, **more)  # type: ignore[arg-type]
    for tile in (1, 2 * 7 * 8 * 4, 2 * 7 * 8 * 10):  # one row, four, ten
        monkeypatch.setattr(signs, "TILE", tile)
        for one, other in zip(sign_conflict(A, B, 2.0, past.tanh(), eta, **more), whole, strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
