"""ELLA's pull and the theory behind it: worked examples, autograd, loops from the paper, bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from calculus import by_autograd, draw, numeric
from everlora.core.errors import ConfigError
from everlora.core.history import UpdateHistory
from everlora.core.roles import AutoStrength, TaskContext
from everlora.core.updates import LowRank, stack
from everlora.methods.ella import RHO, ella
from everlora.parts.penalties import EnergyOverlap, energy, energy_overlap, interference, interference_bound, shrink
from everlora.parts.stores import Store

SHAPES = [(1, 5, 7), (2, 7, 5), (8, 11, 6)]  # (r, o, i)
A6 = torch.tensor([[1.0, -1.0]])
B6 = torch.tensor([[1.0], [2.0]])
W6 = torch.tensor([[1.0, 0.0], [0.5, -1.0]])


def case(r: int, o: int, i: int) -> tuple[Tensor, Tensor, Tensor]:
    A, B, W = draw(r * 100 + o, (r, i), (o, r), (o, i))
    W[0, :2] = 0  # nothing was learned at these entries
    W[:, -1] = 0
    return A, B, W.square()


def eighths(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Multiples of 1/8, of which fp32 makes exact products."""
    return [(8 * tensor).round() / 8 for tensor in draw(seed, *shapes)]


@pytest.mark.parametrize(
    ("s", "omega", "on_A", "on_B"),
    [(1.0, 6.0, [4.0, -8.0], [2.0, 5.0]), (2.0, 24.0, [16.0, -32.0], [8.0, 20.0])],
)
def test_the_worked_example(s: float, omega: float, on_A: list[float], on_B: list[float]) -> None:
    value, gA, gB = energy_overlap(A6, B6, s, W6.square())
    assert float(value) == omega
    assert gA.tolist() == [on_A]
    assert gB.flatten().tolist() == on_B
    assert float((A6 * gA).sum()) == float((B6 * gB).sum()) == 2 * omega


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_worked_example_through_the_part_and_a_past_of_two_tasks(sign: float) -> None:
    # W6 as two updates with their own scales: the part sees their sum.
    first = LowRank(torch.tensor([[1.0, 0.0]]), sign * torch.tensor([[0.25], [0.125]]), 4.0)
    second = LowRank(torch.tensor([[0.0, -2.0]]), sign * torch.tensor([[0.0], [1.0]]), 0.5)
    past = UpdateHistory(({"m": first}, {"m": second}))
    assert torch.equal(past.total("m"), sign * W6)
    part = EnergyOverlap(lam=3.0, energy="raw")
    state = part.prepare(TaskContext(updates=past.stacked(["m"])))
    assert state is not None
    pull = part.value_and_grad(stack([LowRank(A6, B6, 2.0)]), state)
    assert pull.value.tolist() == [24.0]
    assert pull.A.tolist() == [[[16.0, -32.0]]]
    assert pull.B.tolist() == [[[8.0], [20.0]]]


@pytest.mark.parametrize("scale", [1.0, 4.0, 0.3])
@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_the_gradient_is_autograds(r: int, o: int, i: int, continued: bool, scale: float) -> None:
    A, B, squared = case(r, o, i)
    start = draw(1, (o, i))[0] if continued else None
    expected = by_autograd(
        lambda a, b: ((scale * (b @ a) - (0 if start is None else start)) * squared.sqrt()).square().sum(), A, B
    )
    kept = None if start is None else start.clone()
    found = energy_overlap(A, B, scale, squared, start)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert start is None or torch.equal(start, kept)


@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_the_gradient_is_the_finite_difference(r: int, o: int, i: int) -> None:
    A, B, squared = case(r, o, i)
    _, gA, gB = energy_overlap(A, B, 1.5, squared)
    by_A = numeric(lambda x: energy_overlap(x, B, 1.5, squared)[0], A)
    by_B = numeric(lambda x: energy_overlap(A, x, 1.5, squared)[0], B)
    size = float(max(gA.abs().max(), gB.abs().max()))
    torch.testing.assert_close(gA, by_A, rtol=0, atol=1e-7 * size)
    torch.testing.assert_close(gB, by_B, rtol=0, atol=1e-7 * size)


@pytest.mark.parametrize("form", ["plain", "svd"])
@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_one_adapter_trained_on_is_pulled_by_its_change_since_the_task_began(
    r: int, o: int, i: int, form: str
) -> None:
    A, B, A0, B0, P, Q, s, s0 = eighths(r, (r, i), (o, r), (r, i), (o, r), (r, i), (o, r), (r, 1), (r, 1))
    s, s0 = (s, s0) if form == "svd" else (torch.ones_like(s), torch.ones_like(s0))
    sigma = (s, s0) if form == "svd" else (None, None)
    live, start = stack([LowRank(A, B, 2.0, sigma[0])]), stack([LowRank(A0, B0, 2.0, sigma[1])])
    part = EnergyOverlap(energy="raw")
    state = part.prepare(TaskContext(updates=(stack([LowRank(P, Q, 0.5)]),), start=start))
    assert state is not None
    pull = part.value_and_grad(live, state)

    def omega(a: Tensor, b: Tensor, sig: Tensor) -> Tensor:
        return ((2.0 * (b * sig.T) @ a - 2.0 * (B0 * s0.T) @ A0) * (0.5 * Q @ P)).square().sum()

    value, gA, gB, gS = by_autograd(omega, A, B, s)
    torch.testing.assert_close(pull.value[0], value, rtol=1e-10, atol=0)
    torch.testing.assert_close(pull.A[0], gA, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pull.B[0], gB, rtol=1e-10, atol=1e-10)
    if form == "svd":
        torch.testing.assert_close(pull.sigma[0], gS, rtol=1e-10, atol=1e-10)  # type: ignore[index]
    still = part.value_and_grad(start, state)  # no change, no pull: the first step of a task is the task's own
    assert not any(tensor.any() for tensor in (still.value, still.A, still.B))


@pytest.mark.parametrize(("r", "o", "i"), SHAPES)
def test_euler_identities(r: int, o: int, i: int) -> None:
    """Ω is homogeneous of degree 2 in A and in B: ⟨A, ∂Ω/∂A⟩ = ⟨B, ∂Ω/∂B⟩ = 2Ω."""
    A, B, squared = case(r, o, i)
    value, gA, gB = energy_overlap(A, B, 0.7, squared)
    torch.testing.assert_close((A * gA).sum(), 2 * value, rtol=1e-12, atol=0)
    torch.testing.assert_close((B * gB).sum(), 2 * value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("where", ["A", "B", "scale", "past"])
def test_omega_scales_with_the_square(where: str) -> None:
    A, B, squared = case(2, 7, 5)
    c = 3.0
    value, *_ = energy_overlap(A, B, 1.5, squared)
    scaled, *_ = energy_overlap(
        A * (c if where == "A" else 1),
        B * (c if where == "B" else 1),
        1.5 * (c if where == "scale" else 1),
        squared * (c**2 if where == "past" else 1),
    )
    torch.testing.assert_close(scaled, c**2 * value, rtol=1e-12, atol=0)


def test_signs_of_the_past_have_no_meaning() -> None:
    W, coin = draw(3, (6, 9), (6, 9))
    assert (coin < 0).any()
    for form in ("raw", "rms", "max"):
        assert torch.equal(energy(W, form), energy(W * coin.sign(), form))


@pytest.mark.parametrize("c", [0.01, 0.1, 10.0])
def test_the_update_is_seen_and_not_its_factors(c: float) -> None:
    A, B, squared = case(8, 11, 6)
    value, gA, gB = energy_overlap(A, B, 1.0, squared)
    other, hA, hB = energy_overlap(c * A, B / c, 1.0, squared)
    torch.testing.assert_close(other, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(hA, gA / c, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(hB, gB * c, rtol=1e-10, atol=1e-12)


def test_the_double_loop_of_the_paper_module_by_module() -> None:
    r, o, i, modules, tasks, s = 2, 4, 3, 3, 2, 4.0

    def site(seed: int) -> LowRank:
        A, B = draw(seed, (r, i), (o, r), dtype=torch.float32)
        return LowRank(A, B, s)

    names = [f"m{k}" for k in range(modules)]
    past = UpdateHistory(tuple({n: site(100 * t + k) for k, n in enumerate(names)} for t in range(1, tasks + 1)))
    live = {n: site(k) for k, n in enumerate(names)}
    part = EnergyOverlap(energy="raw")
    state = part.prepare(TaskContext(updates=past.stacked(names)))
    assert state is not None
    pull = part.value_and_grad(stack([live[n] for n in names]), state)
    for k, name in enumerate(names):
        omega = 0.0
        for x in range(o):
            for y in range(i):
                new = s * sum(float(live[name].B[x, a]) * float(live[name].A[a, y]) for a in range(r))
                before = sum(
                    s * float(task[name].B[x, a]) * float(task[name].A[a, y]) for task in past for a in range(r)
                )
                omega += (new * abs(before)) ** 2
        assert float(pull.value[k]) == pytest.approx(omega, rel=1e-5)


def test_energy_forms() -> None:
    W = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(energy(W, "raw"), W.abs())
    torch.testing.assert_close(energy(W, "rms")[0], W[0].abs() / 2.5)
    torch.testing.assert_close(energy(W, "max")[0], W[0].abs() / 4)
    for form in ("rms", "max"):  # a module in which nothing was learned pulls nowhere
        assert torch.equal(energy(W, form)[1], torch.zeros(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("c", [1e-6, 1e-3, 7.0])
def test_normalised_energy_frees_lambda_from_the_size_of_the_past(c: float) -> None:
    A, B, P, Q = draw(5, (1, 2, 5), (1, 7, 2), (1, 4, 5), (1, 7, 4), dtype=torch.float32)
    live = LowRank(A, B, 4.0)
    for form, factor in (("rms", 1.0), ("max", 1.0), ("raw", c**2)):
        part = EnergyOverlap(energy=form)  # type: ignore[arg-type]
        one, other = (part.prepare(TaskContext(updates=(LowRank(P, k * Q),))) for k in (1, c))
        assert one is not None
        assert other is not None
        torch.testing.assert_close(
            part.value_and_grad(live, other).value, factor * part.value_and_grad(live, one).value, rtol=1e-5, atol=0
        )


def test_the_step_zero_of_a_task_feels_no_pull() -> None:
    A, P, Q = draw(6, (3, 2, 5), (3, 4, 5), (3, 7, 4), dtype=torch.float32)
    part = EnergyOverlap(lam=1e6)
    state = part.prepare(TaskContext(updates=(LowRank(P, Q),)))
    assert state is not None
    assert (state["squared"] > 0).all()
    pull = part.value_and_grad(LowRank(A, torch.zeros(3, 7, 2), 4.0), state)
    for tensor in (pull.value, pull.A, pull.B):
        assert torch.count_nonzero(tensor) == 0


@pytest.mark.parametrize("rank", [0, -1])
def test_a_store_of_no_rank_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match="store_rank"):
        ella(store="svd", store_rank=rank)


@pytest.mark.parametrize("store", ["factors", "dense", "int8"])
def test_a_rank_for_a_store_that_has_none_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=f"store_rank is the rank of store=svd; with store={store} there is none"):
        ella(store=store, store_rank=8)
    assert ella(store="svd") == ella(store="svd", store_rank=8)
    three = EnergyOverlap(lam=AutoStrength(rho=RHO), energy="rms", store="svd", store_rank=3)
    assert ella(store="svd", store_rank=3).penalties == (three,)


# --- shrinkage -------------------------------------------------------------------------------------------------------


def test_the_worked_example_of_shrinkage() -> None:
    G = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    D = shrink(G, W6.abs(), 1.0)
    torch.testing.assert_close(D, torch.tensor([[0.5, -1.0], [1.6, -1.0]]), rtol=1e-6, atol=0)
    overlap, bound = float(interference(D, W6)), float(interference_bound(G, W6, W6.abs(), 1.0))
    on_all = float(G.norm()) / 2 * math.sqrt(3)
    assert overlap == pytest.approx(2.3, abs=1e-5)
    assert bound == pytest.approx(2.598, abs=1e-3)
    assert on_all == pytest.approx(2.739, abs=1e-3)
    assert overlap <= bound <= on_all


def test_the_bound_on_the_overlap_holds_and_is_tight() -> None:
    """|⟨D*, W_past⟩| ≤ ‖G on the support‖_F / (2√λ) · √(number of non-zeros of W_past)."""
    source = torch.Generator().manual_seed(11)
    closest = 0.0
    for k in range(2000):
        o, i = torch.randint(1, 7, (2,), generator=source).tolist()
        W = torch.randn(o, i, generator=source, dtype=torch.float64)
        W[torch.rand(o, i, generator=source) < 0.3] = 0
        G = torch.randn(o, i, generator=source, dtype=torch.float64)
        lam = 10 ** float(4 * torch.rand((), generator=source) - 2)
        overlap = float(interference(shrink(G, W.abs(), lam), W).abs())
        bound = float(interference_bound(G, W, W.abs(), lam))
        assert bound == pytest.approx(float(G[W != 0].norm()) / (2 * math.sqrt(lam)) * int((W != 0).sum()) ** 0.5)
        assert overlap <= bound * (1 + 1e-12)
        closest = max(closest, overlap / bound if bound else 0.0)
        E = energy(W, ("rms", "max")[k % 2])  # type: ignore[arg-type]
        assert float(interference(shrink(G, E, lam), W).abs()) <= float(interference_bound(G, W, E, lam)) * (1 + 1e-12)
    assert closest > 0.9
    # Equality where λE² = 1 and G lies along the past.
    W = torch.tensor([[0.5, -0.5], [-0.5, 0.0]], dtype=torch.float64)
    G = W.sign() * 3
    assert float(interference(shrink(G, W.abs(), 4.0), W)) == pytest.approx(float(G.norm()) / 4 * 3**0.5, rel=1e-12)


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
