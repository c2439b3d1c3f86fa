"""The Kronecker curvature: its formula by autograd, its evidence by gradients of single rows, and what it promises."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculus import by_autograd, draw
from everlora import parse
from everlora.core.errors import ConfigError, TrainingError
from everlora.core.method import Method
from everlora.core.roles import Budget, Curvature, Evidence, TaskContext
from everlora.core.updates import LowRank, precise, stack
from everlora.parts import factor_stores
from everlora.parts.decay import UpdateDecay
from everlora.parts.kronecker import KroneckerCurvature, kronecker_rise
from everlora.parts.sparsity import Sparsity
from everlora.training.group import ASCENT, StrengthController, acting

O, I, R = 3, 4, 2  # noqa: E741


def factor(seed: int, n: int) -> Tensor:
    (root,) = draw(seed, (n, n + 2))
    return root @ root.mT / n


def rise(D: Tensor, L: Tensor, R: Tensor) -> Tensor:
    return (D * (L @ D @ R)).sum((-2, -1)) / (2 * L.diagonal(dim1=-2, dim2=-1).sum(-1))


def context(memory: dict[str, Tensor], start: LowRank | None = None) -> TaskContext:
    return TaskContext(memory={key: tensor[None] for key, tensor in memory.items()}, start=start)


def test_value_and_gradient_are_autograds() -> None:
    U, V, L, M = *draw(0, (O, R), (R, I)), factor(1, O), factor(2, I)
    value, on_U = by_autograd(lambda u: rise(2.0 * u @ V, L, M), U)
    _, on_V = by_autograd(lambda v: rise(2.0 * U @ v, L, M), V)
    found = kronecker_rise(U, V, 2.0, {"full": L}, {"full": M}, L.trace())
    for ours, right in zip(found, (value, on_U, on_V), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("continued", [False, True])
def test_the_part_is_the_formula_at_pairs_and_triplets_fresh_and_continued(sigma: bool, continued: bool) -> None:
    def site(seed: int) -> LowRank:
        A, B, s = draw(seed, (R, I), (O, R), (R, 1))
        return LowRank(A, B, 1.5, s if sigma else None)

    part, live = KroneckerCurvature(), stack([site(3)])
    seen = Evidence(curvature=Curvature(left=factor(5, O), right=factor(6, I)))
    memory = part.remember(site(4), {}, seen)
    begin = stack([site(4)]) if continued else None
    state = part.prepare(context(memory, begin))
    assert state is not None

    def direct(**moved: Tensor) -> Tensor:
        tensors = {**live.tensors, **moved}
        now = live.holding(tensors)
        D = now.scale * (now.up @ now.A) - (begin.scale * (begin.up @ begin.A) if begin else 0)
        return rise(D, factor(5, O), factor(6, I)).sum()

    found = part.value_and_grad(live, state)
    for name, tensor in live.tensors.items():
        value, right = by_autograd(lambda t, name=name: direct(**{name: t}), tensor)
        torch.testing.assert_close(found.value.sum().double(), value, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found.gradient[name].double(), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("earlier", [1, 3])
def test_linear_tasks_end_at_their_joint_optimum(earlier: int) -> None:
    """A theorem: under squared error the prediction is the rise itself, and λ = 1 leads to the optimum of all tasks.

    Task k asks that ½ tr (W − W_k) C_k (W − W_k)ᵀ be small: its Fisher information is C_k ⊗ 1, and with L = tr C_k 1
    and R = o C_k it is R ⊗ L / tr L. What is remembered is a sum over tasks, of optima and curvatures that have
    nothing to do with one another.
    """
    optima = [draw(1 + k, (O, I))[0] for k in range(earlier + 1)]
    curvatures = [factor(20 + k, I) for k in range(earlier + 1)]
    part, memory = KroneckerCurvature(), {}
    for C in curvatures[:-1]:
        seen = Curvature(left=torch.eye(O).double() * C.trace(), right=O * C)
        memory = part.remember(LowRank(torch.zeros(1, I), torch.zeros(O, 1)), memory, Evidence(curvature=seen))
    memory = {key: t.double() if t.is_floating_point() else t for key, t in memory.items()}
    state = part.prepare(context(memory))
    assert state is not None

    def best(tasks: int) -> Tensor:
        asked = sum((optima[k] @ curvatures[k] for k in range(1, tasks)), optima[0] @ curvatures[0])
        return torch.linalg.solve(sum(curvatures[1:tasks], curvatures[0]), asked.mT).mT

    def lost(W: Tensor) -> Tensor:
        """What all earlier tasks together lose at W."""
        ways = [(W - optima[k], curvatures[k]) for k in range(earlier)]
        return torch.stack([0.5 * (D @ C * D).sum() for D, C in ways]).sum()

    # Earlier tasks ended at the optimum of them all; an update of full rank, whose B is the update itself.
    began, ones = best(earlier), torch.eye(I).double()[None]
    W = began.clone()

    # Newton's method by the part's own gradient, which is linear in the update: a column of H at a time.
    def pull(D: Tensor) -> Tensor:
        found = part.value_and_grad(LowRank(ones, D[None]), state)
        torch.testing.assert_close(found.value[0], lost(began + D) - lost(began), rtol=1e-6, atol=1e-12)
        return found.gradient["B"][0] + (began + D - optima[-1]) @ curvatures[-1]

    start = pull(torch.zeros_like(W))
    columns = []
    for k in range(W.numel()):
        unit = torch.zeros(W.numel()).double()
        unit[k] = 1
        columns.append((pull(unit.view_as(W)) - start).flatten())
    step = torch.linalg.solve(torch.stack(columns, 1), -start.flatten()).view_as(W)
    torch.testing.assert_close(began + step, best(earlier + 1), rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(c=st.floats(0.1, 10), seed=st.integers(0, 50))
def test_the_gauge_changes_nothing_and_nothing_is_lost_at_zero(c: float, seed: int) -> None:
    A, B = draw(seed, (1, R, I), (1, O, R))
    part = KroneckerCurvature()
    memory = part.remember(
        LowRank(A[0], B[0]), {}, Evidence(curvature=Curvature(left=factor(1, O), right=factor(2, I)))
    )
    state = part.prepare(context(memory))
    assert state is not None
    plain = part.value_and_grad(LowRank(A, B), state).value
    assert plain >= 0
    torch.testing.assert_close(part.value_and_grad(LowRank(c * A, B / c), state).value, plain, rtol=1e-4, atol=1e-8)
    still = part.value_and_grad(LowRank(A, torch.zeros_like(B)), state)
    assert not still.value.any()
    assert not still.gradient["B"].any()


def test_memory_is_constant_in_the_number_of_tasks_and_adds_up() -> None:
    part = KroneckerCurvature()
    update, memory = LowRank(torch.ones(1, I), torch.ones(O, 1)), {}
    for k in (1, 2, 3):
        seen = Evidence(curvature=Curvature(left=factor(k, O).float(), right=factor(10 + k, I).float()))
        memory = part.remember(update, memory, seen)
        assert sum(t.nbytes for t in memory.values()) == part.memory_bytes(O, I, 1, k)
    torch.testing.assert_close(memory["left.full"], sum(factor(k, O).float() for k in (1, 2, 3)))
    assert int(memory["tasks"]) == 3
    state = part.prepare(context(memory))
    assert state is not None
    assert part.earlier_tasks(state) == 3


@pytest.mark.parametrize("store", ["low-rank", "diagonal", "int8"])
def test_what_a_store_drops_is_at_most_its_measured_error(store: factor_stores.FactorStore) -> None:
    part = KroneckerCurvature(store=store, store_rank=2)
    exact, update, memory = torch.zeros(6, 6), LowRank(torch.ones(1, 6), torch.ones(6, 1)), {}
    for k in (1, 2, 3):
        one = factor(k, 6).float()
        exact = exact + one
        memory = part.remember(update, memory, Evidence(curvature=Curvature(left=one, right=one)))
        assert sum(t.nbytes for t in memory.values()) == part.memory_bytes(6, 6, 1, k)
    kept = {key.removeprefix("left."): t for key, t in memory.items() if key.startswith("left.")}
    off = (factor_stores.decode(kept) - exact).norm()
    assert 0 < off <= kept["error"] * 1.0001
    (columns,) = draw(9, (6, 2))
    dense = factor_stores.decode(kept) @ columns.float()
    torch.testing.assert_close(factor_stores.times(kept, columns.float()), dense, rtol=1e-4, atol=1e-5)
    if store == "diagonal":
        torch.testing.assert_close(factor_stores.decode(kept).trace(), exact.trace(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("store", ["full", "low-rank", "diagonal", "int8"])
def test_a_curvature_is_off_by_at_most_its_bound(store: factor_stores.FactorStore) -> None:
    """Of F = R ⊗ L / tr L over two tasks, made dense here; both sides are rounded, and the trace is not."""
    part = KroneckerCurvature(store=store, store_rank=3)
    left, right, update, memory = torch.zeros(O, O), torch.zeros(I, I), LowRank(torch.ones(1, I), torch.ones(O, 1)), {}
    for k in (1, 2):
        L, M = factor(k, O).float(), factor(10 + k, I).float()
        left, right = left + L, right + M
        memory = part.remember(update, memory, Evidence(curvature=Curvature(left=L, right=M)))
    bound = part.error_bound(memory)
    if store == "full":
        assert bound is None
        return
    assert bound is not None
    kept = [
        factor_stores.decode({key.removeprefix(side): t for key, t in memory.items() if key.startswith(side)})
        for side in ("left.", "right.")
    ]
    off = (torch.kron(right, left) - torch.kron(kept[1], kept[0])).norm() / left.trace()
    assert 0 < off <= bound[0] * 1.0001
    torch.testing.assert_close(bound[1], float(torch.kron(kept[1], kept[0]).norm() / left.trace()), rtol=1e-4, atol=0)


def test_where_nothing_was_measured_a_store_is_off_by_nothing() -> None:
    part = KroneckerCurvature(store="int8")
    assert part.error_bound(part.remember(LowRank(torch.ones(1, I), torch.ones(O, 1)), {})) == (0.0, 0.0)


def test_nothing_is_pulled_on_before_there_is_a_past_or_where_nothing_was_measured() -> None:
    part = KroneckerCurvature()
    assert part.prepare(TaskContext()) is None
    update = LowRank(torch.ones(1, I), torch.ones(O, 1))
    state = part.prepare(context(part.remember(update, {})))
    assert state is not None
    assert not part.value_and_grad(stack([update]), state).value.any()


def test_a_budget_rises_where_it_is_overdrawn_and_falls_where_it_is_not() -> None:
    control = StrengthController(Budget(nats=1e-3), predicts=True)
    assert float(control.lam) == 0
    control.spend(predicted=4e-3, tasks=2)  # twice what two tasks may lose
    assert control.price == pytest.approx(ASCENT)
    assert float(control.lam) == pytest.approx(ASCENT / 2e-3)
    control.spend(predicted=0.0, tasks=2)
    assert control.price == pytest.approx(0, abs=1e-12)
    control.spend(predicted=0.0, tasks=2)
    assert control.price == 0


def test_a_budget_of_another_penalty_is_its_share_of_the_gradient() -> None:
    control = StrengthController(Budget(nats=1e-3))
    control.spend(predicted=2e-3, tasks=1)
    control.update(torch.tensor(3.0), torch.tensor(6.0))
    assert float(control.lam) == pytest.approx(ASCENT * 3 / 6)


def test_a_budget_without_a_prediction_is_refused_with_advice_that_helps() -> None:
    alone = Sparsity(lam=Budget(nats=1e-3))
    with pytest.raises(ConfigError, match=r"no part of 'mine' makes one; give it KroneckerCurvature\(lam=0\.0\)"):
        Method(name="mine", penalties=(alone,))
    assert Method(name="mine", penalties=(alone, KroneckerCurvature(lam=0.0))).penalties[0] == alone


BUDGETED = ["ella", "c-lora", "ps-lora", "ewc", "decay", "n-lora"]


@pytest.mark.parametrize("name", BUDGETED)
@pytest.mark.parametrize(
    "kfac", ["kfac", "kfac(lam=3)", "kfac(lam=0,samples=8)", "kfac(store=diagonal)", "kfac(lam=0)"]
)
def test_one_curvature_predicts_for_every_budget(name: str, kfac: str) -> None:
    """That which somebody set, in place of the one that came with the budget."""
    (pull, came), (own,) = parse(f"{name}(lam=budget)").penalties, parse(kfac).penalties
    assert came == KroneckerCurvature(lam=0.0)
    for text in (f"{name}(lam=budget)+{kfac}", f"{kfac}+{name}(lam=budget)"):
        assert set(parse(text).penalties) == {pull, own}
        assert acting(parse(text).penalties) == list(parse(text).penalties)


def test_one_curvature_predicts_for_three_budgets() -> None:
    for several in permutations(("kfac(lam=0,samples=8)", "ella(lam=budget)", "ps-lora(lam=budget)")):
        found = [one for one in parse("+".join(several)).penalties if isinstance(one, KroneckerCurvature)]
        assert found == [KroneckerCurvature(lam=0.0, samples=8)]


@pytest.mark.parametrize("text", ["kfac(lam=0)+kfac", "kfac(lam=0,samples=8)+kfac(lam=0,store=int8)+ella(lam=budget)"])
def test_two_curvatures_that_somebody_set_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="'kronecker_curvature' is given twice"):
        parse(text)


def test_of_two_budgets_on_one_prediction_the_narrower_one_holds() -> None:
    """It is met exactly in the end, while the price of the wider one falls to 0."""
    wide, narrow = StrengthController(Budget(nats=2e-3)), StrengthController(Budget(nats=1e-3), predicts=True)
    prices, shares = [], (wide, narrow)
    for _ in range(4000):
        predicted = 8e-3 / (1 + 10 * (wide.price + narrow.price))  # what is lost falls as both prices rise
        prices.append(wide.price)
        for one in shares:
            one.spend(predicted, tasks=1)
    assert max(prices) > 0, "as long as both are overdrawn, both pull"
    assert wide.price == 0
    assert predicted == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_brings_its_prediction_with_it(name: str) -> None:
    method = parse(f"{name}(lam=budget(nats=1e-3))")
    assert method.penalties[0].strength == Budget(nats=1e-3)
    assert [p.name for p in method.penalties[1:]] == ["kronecker_curvature"]


@pytest.mark.parametrize("given", ["budget(nats=0)", "budget(nats=-1)", "budget(nats=nan)", "budget(nats=x)"])
def test_a_budget_that_means_nothing_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"kfac(lam={given})")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("continued", [False, True])
def test_decay_is_the_norm_of_the_update(sigma: bool, continued: bool) -> None:
    """From where the task began, where one adapter goes on; by autograd for every tensor."""

    def site(seed: int) -> LowRank:
        A, B, s = draw(seed, (1, R, I), (1, O, R), (1, R, 1))
        return LowRank(A, B, 1.5, s if sigma else None)

    part, live, begin = UpdateDecay(), site(0), site(1) if continued else None
    assert part.prepare(TaskContext(start=begin)) is None, "the first task is free"
    state = part.prepare(TaskContext(updates=(live,), start=begin))
    assert state is not None
    found = part.value_and_grad(live, state)
    for name, tensor in live.tensors.items():

        def norm(moved: Tensor, name: str = name) -> Tensor:
            now = live.holding({**live.tensors, name: moved})
            D = now.scale * (now.up @ now.A) - (begin.scale * (begin.up @ begin.A) if begin else 0)
            return D.square().sum((-2, -1))

        value, right = by_autograd(norm, tensor)
        torch.testing.assert_close(found.value.double(), value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.gradient[name].double(), right, rtol=1e-4, atol=1e-5)


# --- how a factor is stored ------------------------------------------------------------------------------------------


def test_the_largest_eigenvalues_are_stored_by_hand() -> None:
    """Of diag(¼, ⁴⁄₁₀₀, ¹⁄₁₀₀) two directions: lost is ¹⁄₁₀₀, which the diagonal keeps."""
    M = torch.diag(torch.tensor([0.01, 0.25, 0.04]))
    kept = factor_stores.encode(M, "low-rank", rank=2)
    torch.testing.assert_close(factor_stores.decode(kept), torch.diag(torch.tensor([0.0, 0.25, 0.04])))
    assert kept["error"].tolist() == pytest.approx([0.01])
    exact = factor_stores.encode(M, "diagonal", rank=2)
    torch.testing.assert_close(factor_stores.decode(exact), M)
    torch.testing.assert_close(exact["diagonal"], torch.tensor([0.01, 0.0, 0.0]), rtol=1e-5, atol=1e-8)
    assert float(exact["error"]) < 1e-8
    all_of_it = factor_stores.encode(M, "low-rank", rank=9)
    assert all_of_it["root"].shape == (3, 3)
    torch.testing.assert_close(factor_stores.decode(all_of_it), M)


def test_what_is_not_positive_by_rounding_is_nothing() -> None:
    M = torch.diag(torch.tensor([1.0, -1e-9]))
    assert factor_stores.decode(factor_stores.encode(M, "low-rank", rank=2)).tolist() == [[1, 0], [0, 0]]
    assert not factor_stores.encode(M, "diagonal", rank=2)["diagonal"].any()


def test_every_row_of_the_root_is_rounded_in_steps_of_its_own() -> None:
    """By hand, of [[1, 0, 0], [0.3, 1, 0], [0, 0, 0]]: 0.3 of 127 steps are 38, and each row keeps its length."""
    M = torch.tensor([[1.0, 0.3, 0.0], [0.3, 1.09, 0.0], [0.0, 0.0, 0.0]])
    kept = factor_stores.encode(M, "int8", rank=1)
    assert kept["root8"][:2].tolist() == [[127, 0, 0], [38, 127, 0]]
    long = (38**2 + 127**2) ** 0.5
    torch.testing.assert_close(kept["step"].flatten(), torch.tensor([1 / 127, 1.09**0.5 / long, 0.0]))
    found = factor_stores.decode(kept)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 38 * 1.09**0.5 / long, 0.0]))
    assert torch.equal(found, found.mT), "or the gradient were not that of the value"
    torch.testing.assert_close(kept["error"], (found - M).norm().reshape(1))


def test_int8_keeps_the_diagonal_however_many_tasks_are_summed() -> None:
    """What rounding adds to it would grow from task to task, and every direction be held by it."""
    exact, kept = torch.zeros(48, 48), None
    for task in range(15):
        basis = torch.linalg.qr(draw(task, (48, 48))[0]).Q
        one = ((basis * torch.exp(-torch.arange(48.0).double() / 5)) @ basis.mT).float()
        exact = exact + one
        kept = factor_stores.encode(one if kept is None else one + factor_stores.decode(kept), "int8", rank=1)
    assert kept is not None
    found = factor_stores.decode(kept)
    torch.testing.assert_close(found.diagonal(), exact.diagonal(), rtol=1e-5, atol=0)
    assert float((found - exact).norm()) < 0.05 * float(exact.norm())


def test_a_curvature_that_is_not_finite_is_an_error_of_one_line() -> None:
    with pytest.raises(TrainingError, match="not finite"):
        factor_stores.encode(torch.full((3, 3), float("nan")), "int8", rank=1)


@pytest.mark.parametrize("store", ["low-rank", "diagonal", "int8"])
@pytest.mark.parametrize("falls", [lambda k: k**-2.0, lambda k: torch.exp(-k / 5), lambda k: (k < 4).double()])
def test_no_direction_is_rewarded_whatever_is_rounded(store: factor_stores.FactorStore, falls: Any) -> None:
    """A factor that is rounded itself has eigenvalues below 0, of which the largest is 6e-4 of the largest of all."""
    basis = torch.linalg.qr(draw(5, (96, 96))[0]).Q
    M = (basis * falls(torch.arange(1.0, 97).double())) @ basis.mT
    found = precise(factor_stores.decode(factor_stores.encode(M.float(), store, rank=8)))
    values = torch.linalg.eigvalsh(found)
    assert float(values[0]) >= -1e-6 * float(values[-1])
    assert float(values[-1]) == pytest.approx(1, abs=0.5)


def test_what_the_first_version_rounded_is_still_read() -> None:
    steps = torch.tensor([[127, 64], [127, 64]], dtype=torch.int8)
    kept, off = {"int8": steps, "step": torch.tensor([[4 / 127], [2 / 127]])}, (64 * 4 + 127 * 2) / 254
    found = factor_stores.decode(kept)
    torch.testing.assert_close(found, torch.tensor([[4.0, off], [off, 128 / 127]]))
    assert torch.equal(factor_stores.times(kept, torch.eye(2)), found)


@pytest.mark.parametrize("store", ["full", "low-rank", "diagonal", "int8"])
def test_factors_multiply_in_a_stack_and_take_what_they_say(store: factor_stores.FactorStore) -> None:
    for n, rank in ((5, 2), (2, 5)):
        each = [factor_stores.encode(factor(seed, n), store, rank) for seed in (1, 2, 3)]
        assert sum(t.nbytes for t in each[0].values()) == factor_stores.size(store, n, rank)
        both = {key: torch.stack([one[key] for one in each]) for key in each[0]}
        (columns,) = draw(4, (3, n, 4), dtype=torch.float32)
        found = factor_stores.times(both, columns)
        for k, one in enumerate(each):
            torch.testing.assert_close(found[k], factor_stores.decode(one) @ columns[k], rtol=1e-4, atol=1e-5)
