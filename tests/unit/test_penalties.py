"""Penalties against worked examples, autograd, finite differences and loops written straight from the papers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calculus import by_autograd, draw, numeric
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import TaskContext, WeightPenalty
from everlora.core.updates import LowRank, stack
from everlora.parts.penalties import EnergyOverlap, FactorNorm, Orthogonality, energy_overlap, orthogonality
from everlora.parts.signs import SignConflict


def test_bare_parts_are_those_of_the_papers_methods_at_a_given_strength() -> None:
    assert parse("o-lora").penalties == (Orthogonality(),)
    assert parse("o-lora(norm_lam=0.3)").penalties == (Orthogonality(), FactorNorm(lam=0.3))
    assert parse("ella(lam=1, energy=raw)").penalties == (EnergyOverlap(),)
    assert FactorNorm().strength == 0, "off unless it is set"


# --- O-LoRA ----------------------------------------------------------------------------------------------------------

PAST_A = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
NEW_A = torch.tensor([[1.0, -1.0]])


def test_the_worked_example_of_olora() -> None:
    value, gradient = orthogonality(NEW_A, PAST_A, "l1")
    assert (float(value), gradient.tolist()) == (2.0, [[2.0, 0.0]])
    value, gradient = orthogonality(NEW_A, PAST_A, "l2sq")
    assert (float(value), gradient.tolist()) == (2.0, [[4.0, 0.0]])
    for c, expected in ((1.0, 2.0), (0.1, 0.2), (0.01, 0.02)):  # the trivial way out
        assert float(orthogonality(c * NEW_A, PAST_A, "l1")[0]) == pytest.approx(expected, rel=1e-6)


def reference(new: Tensor, past: Tensor, norm: str) -> Tensor:
    if norm == "cos":
        new = new / new.norm(dim=-1, keepdim=True)
        past = past / past.norm(dim=-1, keepdim=True)
    products = past @ new.mT
    return products.square().sum() if norm == "l2sq" else products.abs().sum()


@pytest.mark.parametrize("norm", ["l1", "l2sq", "cos"])
@pytest.mark.parametrize("r", [1, 2, 8])
def test_olora_gradient_is_autograds_and_the_finite_difference(norm: str, r: int) -> None:
    new, past = draw(r, (r, 9), (2 * r, 9))
    past[0, :4] = 0
    expected, by_rule = by_autograd(lambda x: reference(x, past, norm), new)
    value, gradient = orthogonality(new, past, norm)  # type: ignore[arg-type]
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, by_rule, rtol=1e-10, atol=1e-10)
    by_step = numeric(lambda x: orthogonality(x, past, norm)[0], new)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient, by_step, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("c", [0.01, 10.0])
def test_the_gauge_scales_olora_by_c_and_leaves_its_cosine(c: float) -> None:
    new, past = draw(1, (4, 9), (8, 9))
    for norm, factor in (("l1", c), ("l2sq", c**2), ("cos", 1.0)):
        before, after = orthogonality(new, past, norm)[0], orthogonality(c * new, past, norm)[0]  # type: ignore[arg-type]
        torch.testing.assert_close(after, factor * before, rtol=1e-12, atol=0)
    # No pull along a row itself: turning it is the only way down.
    gradient = orthogonality(new, past, "cos")[1]
    torch.testing.assert_close((gradient * new).sum(-1), torch.zeros(4).double(), rtol=0, atol=1e-12)
    assert gradient.norm() > 0.1


@pytest.mark.parametrize("norm", ["l1", "l2sq", "cos"])
def test_olora_is_zero_exactly_when_row_spaces_are_orthogonal(norm: str) -> None:
    new, past = torch.eye(6)[:2], torch.eye(6)[2:5]
    assert float(orthogonality(new, past, norm)[0]) == 0  # type: ignore[arg-type]
    assert float(orthogonality(new + 0.1 * past[:2], past, norm)[0]) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["l1", "l2sq", "cos"])
def test_sides_take_their_own_factor(norm: str) -> None:
    A, B, P, Q = draw(2, (1, 2, 5), (1, 7, 2), (1, 4, 5), (1, 7, 4), dtype=torch.float32)
    past, live = LowRank(P, Q), LowRank(A, B)
    on_A, on_B = Orthogonality(lam=2.0, side="A", norm=norm), Orthogonality(lam=2.0, side="B", norm=norm)  # type: ignore[arg-type]
    for part, new, before in ((on_A, A, P), (on_B, B.mT, Q.mT)):
        state = part.prepare(TaskContext(updates=(past,)))
        assert state is not None
        pull = part.value_and_grad(live, state)
        value, gradient = orthogonality(new, before, norm)  # type: ignore[arg-type]
        torch.testing.assert_close(pull.value, value)
        touched, other = (pull.A, pull.B) if part.side == "A" else (pull.B.mT, pull.A)
        torch.testing.assert_close(touched, gradient)
        assert torch.count_nonzero(other) == 0
        assert pull.A.shape == A.shape
        assert pull.B.shape == B.shape


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("side", ["A", "B"])
def test_olora_is_the_sum_over_tasks_of_the_paper_whatever_the_scale(side: str, scale: float) -> None:
    """Σ_{i<t} ‖B_iᵀ B_t‖² (or ‖A_i A_tᵀ‖²): factors, not updates, so LoRA's alpha has no say."""
    factors = [draw(t, (2, 5), (7, 2), dtype=torch.float32) for t in range(3)]
    sites = [LowRank(A, B, scale) for A, B in factors]
    past = UpdateHistory(tuple({"m": site} for site in sites[:2]))
    part = Orthogonality(lam=1.0, side=side, norm="l2sq")  # type: ignore[arg-type]
    state = part.prepare(TaskContext(updates=past.stacked(["m"])))
    assert state is not None
    value = float(part.value_and_grad(stack(sites[2:]), state).value)
    A_t, B_t = factors[2]
    expected = sum(float(((A @ A_t.mT) if side == "A" else (B.mT @ B_t)).square().sum()) for A, B in factors[:2])
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("modules", "width", "per_task"), [(144, 1024, 76.6), (64, 4096, 17.0)])
def test_the_first_value_of_olora_in_a_task(modules: int, width: int, per_task: float) -> None:
    """L (t−1) r² √(2/π) / (3 √k) for rows as PEFT draws them (Kaiming-uniform with a = √5)."""
    r, earlier = 8, 2
    source = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(modules):
        rows = torch.empty((earlier + 1) * r, width)
        torch.nn.init.kaiming_uniform_(rows, a=math.sqrt(5), generator=source)
        total += float(orthogonality(rows[:r], rows[r:], "l1")[0])
    formula = modules * earlier * r**2 * math.sqrt(2 / math.pi) / (3 * math.sqrt(width))
    assert formula == pytest.approx(per_task * earlier, abs=0.1)
    assert total == pytest.approx(formula, rel=0.02)


# --- factor norm -----------------------------------------------------------------------------------------------------


def test_factor_norm_is_autograds() -> None:
    A, B = draw(4, (3, 2, 5), (3, 7, 2))
    expected = by_autograd(lambda a, b: a.flatten(1).norm(dim=1) + b.flatten(1).norm(dim=1), A, B)
    part = FactorNorm(lam=0.3)
    state = part.prepare(TaskContext())
    assert state is not None  # it acts on the first task too
    pull = part.value_and_grad(LowRank(A, B, 4.0), state)
    for got, want in zip((pull.value, pull.A, pull.B), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_factor_norm_where_b_starts() -> None:
    (A,) = draw(4, (1, 2, 5))
    pull = FactorNorm(lam=2.0).value_and_grad(LowRank(A, torch.zeros(1, 7, 2, dtype=torch.float64)), {})
    assert torch.count_nonzero(pull.B) == 0
    torch.testing.assert_close(pull.value[0], A.norm())
    torch.testing.assert_close(pull.A, A / A.norm())


# --- numerics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_entries_of_a_thousandth_do_not_vanish(dtype: torch.dtype) -> None:
    """Products are of order 1e-12, below the smallest fp16 number (6e-8): computed in fp16 they would be 0."""
    o, i = 16, 24
    live = LowRank(torch.ones(1, 1, i, dtype=dtype), torch.full((1, o, 1), 1e-3, dtype=dtype), 1.0)
    part = EnergyOverlap(lam=1.0, energy="raw")
    state = part.prepare(TaskContext(updates=(live,)))
    assert state is not None
    pull = part.value_and_grad(live, state)
    entry = float(torch.tensor(1e-3, dtype=dtype).double())
    assert pull.value.dtype == torch.float32
    assert float(pull.value) == pytest.approx(o * i * entry**4, rel=1e-6)
    assert pull.B.flatten().tolist() == pytest.approx([2 * i * entry**3] * o, rel=1e-6)
    assert pull.A.flatten().tolist() == pytest.approx([2 * o * entry**4] * i, rel=1e-6)


def test_half_precision_factors_keep_their_orthogonality() -> None:
    A = torch.full((1, 1, 8), 1e-3, dtype=torch.float16)
    part = Orthogonality(lam=1.0, norm="l2sq")
    live = LowRank(A, torch.zeros(1, 3, 1, dtype=torch.float16))
    state = part.prepare(TaskContext(updates=(live,)))
    assert state is not None
    entry = float(A[0, 0, 0].double())
    assert float(part.value_and_grad(live, state).value) == pytest.approx((8 * entry**2) ** 2, rel=1e-6)


def test_the_value_loses_no_digits_at_a_large_matrix() -> None:
    o, i, r = 2048, 3072, 4
    A, B, W = draw(7, (r, i), (o, r), (o, i), dtype=torch.float32)
    A, B, W = 1e-2 * A, 1e-2 * B, 1e-3 * W
    value, gA, gB = energy_overlap(A, B, 4.0, W.square())
    exact, hA, hB = energy_overlap(A.double(), B.double(), 4.0, W.square().double())
    assert float(value) == pytest.approx(float(exact), rel=1e-6)
    # A gradient's entries sum thousands of terms of both signs: compare with the largest of them.
    for got, want in ((gA, hA), (gB, hB)):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-5 * float(want.abs().max()))


# --- all -------------------------------------------------------------------------------------------------------------

PULLS = [
    EnergyOverlap(lam=0.3, energy="raw"),
    EnergyOverlap(lam=0.3, energy="rms"),
    EnergyOverlap(lam=0.3, energy="max"),
    Orthogonality(lam=0.3, norm="l1"),
    Orthogonality(lam=0.3, norm="l2sq"),
    Orthogonality(lam=0.3, norm="cos"),
    Orthogonality(lam=0.3, side="B", norm="l2sq"),
    Orthogonality(lam=0.3, side="B", norm="cos"),
    SignConflict(lam=0.3),
    SignConflict(lam=0.3, sharpness=0.5, detach_weight=True),
    SignConflict(lam=0.3, past="merged"),
    FactorNorm(lam=0.3),
]


@pytest.mark.parametrize("part", PULLS, ids=str)
def test_a_stack_of_modules_is_each_module_alone(part: WeightPenalty) -> None:
    sizes = [1.0, 100.0, 0.01]  # modules must not leak into one another's normalisation
    live, first, second = [], [], []
    for k, size in enumerate(sizes):
        A, B, P, Q = draw(k, (2, 5), (7, 2), (4, 5), (7, 4), dtype=torch.float32)
        live.append(LowRank(A, B, 2.0))
        first.append(LowRank(P[:2], Q[:, :2] * size, 1.0))
        second.append(LowRank(P[2:], Q[:, 2:] * size, 1.0))
    state = part.prepare(TaskContext(updates=(stack(first), stack(second))))
    assert state is not None
    whole = part.value_and_grad(stack(live), state)
    assert whole.value.shape == (3,)
    for k in range(3):
        single = part.prepare(TaskContext(updates=(stack(first[k : k + 1]), stack(second[k : k + 1]))))
        assert single is not None
        alone = part.value_and_grad(stack([live[k]]), single)
        for field in ("value", "A", "B"):
            together, apart = getattr(whole, field)[k], getattr(alone, field)[0]
            torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6 * float(apart.abs().max()))
    assert part.strength == 0.3


@pytest.mark.parametrize("part", PULLS, ids=str)
def test_a_pull_is_taken_at_strength_one_and_leaves_the_weights_alone(part: WeightPenalty) -> None:
    A, B, P, Q = draw(8, (2, 2, 5), (2, 7, 2), (2, 4, 5), (2, 7, 4), dtype=torch.float32)
    live = LowRank(A.clone().requires_grad_(), B.clone().requires_grad_(), 4.0)
    state = part.prepare(TaskContext(updates=(LowRank(P, Q),)))
    assert state is not None
    kept = {name: tensor.clone() for name, tensor in state.items()}
    pull = part.value_and_grad(live, state)
    stronger = replace(part, lam=6.0)  # type: ignore[type-var]
    assert (part.strength, stronger.strength) == (0.3, 6.0)
    again = stronger.value_and_grad(live, state)
    for field in ("value", "A", "B"):
        assert torch.equal(getattr(again, field), getattr(pull, field))
        assert not getattr(pull, field).requires_grad  # a graph here would be built at each step, for nothing
    assert torch.count_nonzero(pull.value) == 2
    assert torch.equal(live.A, A)
    assert torch.equal(live.B, B)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert isinstance(part, WeightPenalty)


@pytest.mark.parametrize("part", [part for part in PULLS if not isinstance(part, FactorNorm)], ids=str)
def test_the_first_task_has_no_past_to_pull_on(part: WeightPenalty) -> None:
    assert TaskContext(updates=UpdateHistory().stacked(["m"])) == TaskContext()
    assert TaskContext().factors() is None
    assert part.prepare(TaskContext()) is None
