"""Penalties against worked examples, autograd, finite differences and loops written straight from the papers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from everlora.core.past import Past
from everlora.core.roles import WeightPenalty
from everlora.core.sites import LowRank, stack
from everlora.parts.penalties import (
    EnergyOverlap,
    FactorNorm,
    Orthogonality,
    energy,
    energy_overlap,
    orthogonality,
    shrink,
)

SHAPES = [(1, 5, 7), (2, 7, 5), (8, 11, 6)]  # (r, o, i)
A6 = torch.tensor([[1.0, -1.0]])
B6 = torch.tensor([[1.0], [2.0]])
W6 = torch.tensor([[1.0, 0.0], [0.5, -1.0]])


def draw(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype) for shape in shapes]


def ella_case(r: int, o: int, i: int) -> tuple[Tensor, Tensor, Tensor]:
    A, B, W = draw(r * 100 + o, (r, i), (o, r), (o, i))
    W[0, :2] = 0  # nothing was learned at these entries
    W[:, -1] = 0
    return A, B, W.square()


def numeric(value: object, x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of the function ``value`` at ``x``."""
    out = torch.empty_like(x)
    for k in range(x.numel()):
        ends = []
        for sign in (1, -1):
            moved = x.clone()
            moved.view(-1)[k] += sign * step
            ends.append(value(moved))  # type: ignore[operator]
        out.view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
    return out


# --- ELLA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("s", "omega", "on_A", "on_B"),
    [(1.0, 6.0, [4.0, -8.0], [2.0, 5.0]), (2.0, 24.0, [16.0, -32.0], [8.0, 20.0])],
)
def test_the_worked_example_of_ella(s: float, omega: float, on_A: list[float], on_B: list[float]) -> None:
    value, gA, gB = energy_overlap(A6, B6, s, W6.square())
    assert float(value) == omega
    assert gA.tolist() == [on_A]
    assert gB.flatten().tolist() == on_B


def test_the_worked_example_through_the_part_and_a_past_of_two_tasks() -> None:
    # W6 as two updates with their own scales: the part sees their sum.
    first = LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25], [0.125]]), 4.0)
    second = LowRank(torch.tensor([[0.0, -2.0]]), torch.tensor([[0.0], [1.0]]), 0.5)
    past = Past(({"m": first}, {"m": second}))
    assert torch.equal(past.total("m"), W6)
    part = EnergyOverlap(lam=3.0, energy="raw")
    state = part.prepare(past.stacked(["m"]))
    assert state is not None
    pull = part.pull(stack([LowRank(A6, B6, 2.0)]), state)
    assert pull.value.tolist() == [72.0]
    assert pull.A.tolist() == [[[48.0, -96.0]]]
    assert pull.B.tolist() == [[[24.0], [60.0]]]


@pytest.mark.parametrize("scale", [1.0, 4.0, 0.3])
@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_ella_gradient_is_autograds(r: int, o: int, i: int, scale: float) -> None:
    A, B, squared = ella_case(r, o, i)
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    omega = (scale * (b @ a) * squared.sqrt()).square().sum()
    omega.backward()
    value, gA, gB = energy_overlap(A, B, scale, squared)
    assert value.dtype == gA.dtype == torch.float64
    torch.testing.assert_close(value, omega.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gA, a.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gB, b.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_ella_gradient_is_the_finite_difference(r: int, o: int, i: int) -> None:
    A, B, squared = ella_case(r, o, i)
    _, gA, gB = energy_overlap(A, B, 1.5, squared)
    by_A = numeric(lambda x: energy_overlap(x, B, 1.5, squared)[0], A)
    by_B = numeric(lambda x: energy_overlap(A, x, 1.5, squared)[0], B)
    size = float(max(gA.abs().max(), gB.abs().max()))
    torch.testing.assert_close(gA, by_A, rtol=0, atol=1e-7 * size)
    torch.testing.assert_close(gB, by_B, rtol=0, atol=1e-7 * size)


@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_euler_identities(r: int, o: int, i: int) -> None:
    """Ω is homogeneous of degree 2 in A and in B: ⟨A, ∂Ω/∂A⟩ = ⟨B, ∂Ω/∂B⟩ = 2Ω."""
    A, B, squared = ella_case(r, o, i)
    value, gA, gB = energy_overlap(A, B, 0.7, squared)
    torch.testing.assert_close((A * gA).sum(), 2 * value, rtol=1e-12, atol=0)
    torch.testing.assert_close((B * gB).sum(), 2 * value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("where", ["A", "B", "scale", "past"])
def test_ella_scales_with_the_square(where: str) -> None:
    A, B, squared = ella_case(2, 7, 5)
    c = 3.0
    value, *_ = energy_overlap(A, B, 1.5, squared)
    scaled, *_ = energy_overlap(
        A * (c if where == "A" else 1),
        B * (c if where == "B" else 1),
        1.5 * (c if where == "scale" else 1),
        squared * (c**2 if where == "past" else 1),
    )
    torch.testing.assert_close(scaled, c**2 * value, rtol=1e-12, atol=0)


def test_signs_of_the_past_have_no_meaning_for_ella() -> None:
    (W,) = draw(3, (6, 9))
    flips = torch.where(torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.5, -1.0, 1.0).double()
    assert (flips < 0).any()
    assert (flips > 0).any()
    for form in ("raw", "rms", "max"):
        assert torch.equal(energy(W, form), energy(W * flips, form))


@pytest.mark.parametrize("c", [0.01, 0.1, 10.0])
def test_ella_sees_the_update_and_not_its_factors(c: float) -> None:
    A, B, squared = ella_case(8, 11, 6)
    value, gA, gB = energy_overlap(A, B, 1.0, squared)
    other, hA, hB = energy_overlap(c * A, B / c, 1.0, squared)
    torch.testing.assert_close(other, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(hA, gA / c, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(hB, gB * c, rtol=1e-10, atol=1e-12)


def test_ella_is_the_double_loop_of_the_paper_module_by_module() -> None:
    r, o, i, modules, tasks, s = 2, 4, 3, 3, 2, 4.0

    def site(seed: int) -> LowRank:
        A, B = draw(seed, (r, i), (o, r), dtype=torch.float32)
        return LowRank(A, B, s)

    names = [f"m{k}" for k in range(modules)]
    past = Past(tuple({n: site(100 * t + k) for k, n in enumerate(names)} for t in range(1, tasks + 1)))
    live = {n: site(k) for k, n in enumerate(names)}
    part = EnergyOverlap(lam=0.7, energy="raw")
    state = part.prepare(past.stacked(names))
    assert state is not None
    pull = part.pull(stack([live[n] for n in names]), state)
    for k, name in enumerate(names):
        omega = 0.0
        for x in range(o):
            for y in range(i):
                new = s * sum(float(live[name].B[x, a]) * float(live[name].A[a, y]) for a in range(r))
                before = sum(
                    s * float(task[name].B[x, a]) * float(task[name].A[a, y]) for task in past for a in range(r)
                )
                omega += (new * abs(before)) ** 2
        assert float(pull.value[k]) == pytest.approx(0.7 * omega, rel=1e-5)


@pytest.mark.parametrize(
    "part",
    [
        EnergyOverlap(lam=0.3, energy="raw"),
        EnergyOverlap(lam=0.3, energy="rms"),
        EnergyOverlap(lam=0.3, energy="max"),
        Orthogonality(lam=0.3, norm="l1"),
        Orthogonality(lam=0.3, norm="l2sq"),
        Orthogonality(lam=0.3, norm="cos"),
        Orthogonality(lam=0.3, side="B", norm="l2sq"),
        Orthogonality(lam=0.3, side="B", norm="cos"),
        FactorNorm(lam=0.3),
    ],
    ids=str,
)
def test_a_stack_of_modules_is_each_module_alone(part: WeightPenalty) -> None:
    names = ["a", "b", "c"]
    sizes = [1.0, 100.0, 0.01]  # modules must not leak into one another's normalisation
    live, before = [], []
    for k, size in enumerate(sizes):
        A, B, P, Q = draw(k, (2, 5), (7, 2), (4, 5), (7, 4), dtype=torch.float32)
        live.append(LowRank(A, B, 2.0))
        before.append(LowRank(P, Q * size, 1.0))
    state = part.prepare(stack(before))
    assert state is not None
    whole = part.pull(stack(live), state)
    assert whole.value.shape == (3,)
    for k, _ in enumerate(names):
        single = part.prepare(stack([before[k]]))
        assert single is not None
        alone = part.pull(stack([live[k]]), single)
        for field in ("value", "A", "B"):
            together, apart = getattr(whole, field)[k], getattr(alone, field)[0]
            torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6 * float(apart.abs().max()))
    assert part.strength == 0.3


def test_energy_forms() -> None:
    W = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(energy(W, "raw"), W.abs())
    torch.testing.assert_close(energy(W, "rms")[0], W[0].abs() / 2.5)
    torch.testing.assert_close(energy(W, "max")[0], W[0].abs() / 4)
    for form in ("rms", "max"):  # a module in which nothing was learned pulls nowhere
        assert torch.equal(energy(W, form)[1], torch.zeros(2, 2))


@pytest.mark.parametrize("c", [1e-6, 1e-3, 7.0])
def test_normalised_energy_frees_lambda_from_the_size_of_the_past(c: float) -> None:
    A, B, P, Q = draw(5, (1, 2, 5), (1, 7, 2), (1, 4, 5), (1, 7, 4), dtype=torch.float32)
    live = LowRank(A, B, 4.0)
    for form, factor in (("rms", 1.0), ("max", 1.0), ("raw", c**2)):
        part = EnergyOverlap(lam=1.0, energy=form)
        one, other = part.prepare(LowRank(P, Q)), part.prepare(LowRank(P, c * Q))
        assert one is not None
        assert other is not None
        torch.testing.assert_close(
            part.pull(live, other).value, factor * part.pull(live, one).value, rtol=1e-5, atol=0
        )


def test_the_step_zero_of_a_task_feels_no_pull_from_ella() -> None:
    A, P, Q = draw(6, (3, 2, 5), (3, 4, 5), (3, 7, 4), dtype=torch.float32)
    part = EnergyOverlap(lam=1e6)
    state = part.prepare(LowRank(P, Q))
    assert state is not None
    assert (state["squared"] > 0).all()
    pull = part.pull(LowRank(A, torch.zeros(3, 7, 2), 4.0), state)
    for tensor in (pull.value, pull.A, pull.B):
        assert torch.count_nonzero(tensor) == 0


@pytest.mark.parametrize("part", [EnergyOverlap(), Orthogonality(), Orthogonality(side="B")], ids=str)
def test_the_first_task_has_no_past_to_pull_on(part: WeightPenalty) -> None:
    assert Past().stacked(["m"]) is None
    assert part.prepare(Past().stacked(["m"])) is None


# --- numerics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_entries_of_a_thousandth_do_not_vanish(dtype: torch.dtype) -> None:
    """Products are of order 1e-12, below the smallest fp16 number (6e-8): computed in fp16 they would be 0."""
    o, i = 16, 24
    live = LowRank(torch.ones(1, 1, i, dtype=dtype), torch.full((1, o, 1), 1e-3, dtype=dtype), 1.0)
    part = EnergyOverlap(lam=1.0, energy="raw")
    state = part.prepare(live)
    assert state is not None
    pull = part.pull(live, state)
    entry = float(torch.tensor(1e-3, dtype=dtype).double())
    assert pull.value.dtype == torch.float32
    assert float(pull.value) == pytest.approx(o * i * entry**4, rel=1e-6)
    assert pull.B.flatten().tolist() == pytest.approx([2 * i * entry**3] * o, rel=1e-6)
    assert pull.A.flatten().tolist() == pytest.approx([2 * o * entry**4] * i, rel=1e-6)


def test_half_precision_factors_keep_their_orthogonality() -> None:
    A = torch.full((1, 1, 8), 1e-3, dtype=torch.float16)
    part = Orthogonality(lam=1.0, norm="l2sq")
    live = LowRank(A, torch.zeros(1, 3, 1, dtype=torch.float16))
    state = part.prepare(live)
    assert state is not None
    entry = float(A[0, 0, 0].double())
    assert float(part.pull(live, state).value) == pytest.approx((8 * entry**2) ** 2, rel=1e-6)


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


# --- shrinkage -------------------------------------------------------------------------------------------------------


def test_the_worked_example_of_shrinkage() -> None:
    G = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    D = shrink(G, W6.abs(), 1.0)
    torch.testing.assert_close(D, torch.tensor([[0.5, -1.0], [1.6, -1.0]]), rtol=1e-6, atol=0)
    overlap = float((D * W6).sum())
    on_support = float(G[W6 != 0].norm()) / 2 * math.sqrt(3)
    on_all = float(G.norm()) / 2 * math.sqrt(3)
    assert overlap == pytest.approx(2.3, abs=1e-5)
    assert on_support == pytest.approx(2.598, abs=1e-3)
    assert on_all == pytest.approx(2.739, abs=1e-3)
    assert overlap <= on_support <= on_all


def test_the_bound_on_the_overlap_holds_and_is_tight() -> None:
    """|⟨D*, W_past⟩| ≤ ‖G on the support‖_F / (2√λ) · √(number of non-zeros of W_past)."""
    source = torch.Generator().manual_seed(11)
    closest = 0.0
    for _ in range(2000):
        o, i = torch.randint(1, 7, (2,), generator=source).tolist()
        W = torch.randn(o, i, generator=source, dtype=torch.float64)
        W[torch.rand(o, i, generator=source) < 0.3] = 0
        G = torch.randn(o, i, generator=source, dtype=torch.float64)
        lam = 10 ** float(4 * torch.rand((), generator=source) - 2)
        overlap = float((shrink(G, W.abs(), lam) * W).sum().abs())
        bound = float(G[W != 0].norm()) / (2 * math.sqrt(lam)) * math.sqrt(int((W != 0).sum()))
        assert overlap <= bound * (1 + 1e-12)
        closest = max(closest, overlap / bound if bound else 0.0)
    assert closest > 0.9
    # Equality where λE² = 1 and G lies along the past.
    W = torch.tensor([[0.5, -0.5], [-0.5, 0.0]], dtype=torch.float64)
    G = W.sign() * 3
    assert float((shrink(G, W.abs(), 4.0) * W).sum()) == pytest.approx(float(G.norm()) / 4 * math.sqrt(3), rel=1e-12)


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_shrinkage_is_what_an_optimiser_finds(lam: float) -> None:
    G, W, start = draw(13, (4, 6), (4, 6), (4, 6))
    D = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([D], max_iter=200, tolerance_grad=1e-12, tolerance_change=0)

    def objective() -> Tensor:
        solver.zero_grad()
        loss = 0.5 * (D - G).square().sum() + lam / 2 * (D * W).square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    torch.testing.assert_close(D.detach(), shrink(G, W.abs(), lam), rtol=1e-8, atol=1e-8)
    assert not torch.allclose(D.detach(), G, atol=1e-2)


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
    leaf = new.clone().requires_grad_()
    expected = reference(leaf, past, norm)
    expected.backward()
    value, gradient = orthogonality(new, past, norm)  # type: ignore[arg-type]
    torch.testing.assert_close(value, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-10)
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
        state = part.prepare(past)
        assert state is not None
        pull = part.pull(live, state)
        value, gradient = orthogonality(new, before, norm)  # type: ignore[arg-type]
        torch.testing.assert_close(pull.value, 2 * value)
        touched, other = (pull.A, pull.B) if part.side == "A" else (pull.B.mT, pull.A)
        torch.testing.assert_close(touched, 2 * gradient)
        assert torch.count_nonzero(other) == 0
        assert pull.A.shape == A.shape
        assert pull.B.shape == B.shape


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("side", ["A", "B"])
def test_olora_is_the_sum_over_tasks_of_the_paper_whatever_the_scale(side: str, scale: float) -> None:
    """Σ_{i<t} ‖B_iᵀ B_t‖² (or ‖A_i A_tᵀ‖²): factors, not updates, so LoRA's alpha has no say."""
    factors = [draw(t, (2, 5), (7, 2), dtype=torch.float32) for t in range(3)]
    sites = [LowRank(A, B, scale) for A, B in factors]
    past = Past(tuple({"m": site} for site in sites[:2]))
    part = Orthogonality(lam=1.0, side=side, norm="l2sq")  # type: ignore[arg-type]
    state = part.prepare(past.stacked(["m"]))
    assert state is not None
    value = float(part.pull(stack(sites[2:]), state).value)
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
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    expected = 0.3 * (a.flatten(1).norm(dim=1) + b.flatten(1).norm(dim=1))
    expected.sum().backward()
    part = FactorNorm(lam=0.3)
    state = part.prepare(None)
    assert state is not None  # it acts on the first task too
    pull = part.pull(LowRank(A, B, 4.0), state)
    for got, want in ((pull.value, expected.detach()), (pull.A, a.grad), (pull.B, b.grad)):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_factor_norm_where_b_starts() -> None:
    (A,) = draw(4, (1, 2, 5))
    pull = FactorNorm(lam=2.0).pull(LowRank(A, torch.zeros(1, 7, 2, dtype=torch.float64)), {})
    assert torch.count_nonzero(pull.B) == 0
    torch.testing.assert_close(pull.value[0], 2 * A.norm())
    torch.testing.assert_close(pull.A, 2 * A / A.norm())


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [EnergyOverlap(lam=2.0), Orthogonality(lam=2.0), Orthogonality(lam=2.0, side="B"), FactorNorm(lam=2.0)]
)
def test_every_penalty_is_linear_in_its_strength_and_leaves_the_weights_alone(part: WeightPenalty) -> None:
    A, B, P, Q = draw(8, (2, 2, 5), (2, 7, 2), (2, 4, 5), (2, 7, 4), dtype=torch.float32)
    live = LowRank(A.clone().requires_grad_(), B.clone().requires_grad_(), 4.0)
    state = part.prepare(LowRank(P, Q))
    assert state is not None
    kept = {name: tensor.clone() for name, tensor in state.items()}
    pull = part.pull(live, state)
    triple = replace(part, lam=6.0).pull(live, state)  # type: ignore[type-var]
    for field in ("value", "A", "B"):
        torch.testing.assert_close(getattr(triple, field), 3 * getattr(pull, field), rtol=1e-6, atol=1e-6)
        assert not getattr(pull, field).requires_grad  # a graph here would be built at each step, for nothing
    assert torch.equal(live.A, A)
    assert torch.equal(live.B, B)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert isinstance(part, WeightPenalty)
