"""Strengths that are given and strengths that are found, and gradients on their way to A, B and σ."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculus import by_autograd, draw
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.roles import AutoStrength, Budget, PenaltyGradient, ProbedBudget, TaskContext, WeightPenalty
from everlora.core.updates import LowRank, stack
from everlora.methods.ella import ella
from everlora.methods.pslora import pslora
from everlora.parts.penalties import EnergyOverlap, FactorNorm, Orthogonality
from everlora.parts.signs import SignConflict
from everlora.parts.strengths import RHO, read_strength
from everlora.training.group import StrengthController, added, norms, scaled

often = settings(max_examples=60, deadline=None, derandomize=True)
sizes = st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=8)


def turned(strength: float | AutoStrength, steps: list[tuple[float, float]]) -> StrengthController:
    controller = StrengthController(strength)
    for task, pull in steps:
        controller.update(torch.tensor(task), torch.tensor(pull))
    return controller


def pull_of(seed: int, form: str = "plain", modules: int = 3) -> PenaltyGradient:
    A, B, sigma = draw(seed, (modules, 2, 5), (modules, 7, 2), (modules, 2, 1), dtype=torch.float32)
    own = {"sigma": sigma} if form == "svd" else {}
    return PenaltyGradient(value=torch.arange(1.0, modules + 1), gradient={"A": A, "B": B, **own})


# --- what people write -----------------------------------------------------------------------------------------------


def test_a_strength_without_a_number_is_the_documented_one() -> None:
    """Whoever writes ``lam=auto`` or ``lam=budget`` has these numbers in their results."""
    assert read_strength("auto") == AutoStrength(rho=0.03)
    assert read_strength("auto", share=0.1) == AutoStrength(rho=0.1)
    assert read_strength("auto", 0.0, per_module=True, share=0.1) == AutoStrength(rho=0.0, per_module=True)
    assert read_strength("budget") == Budget(nats=3e-4)
    assert read_strength(" budget( probes=8 ) ") == ProbedBudget(nats=3e-4, probes=8)
    assert read_strength(0.3) == 0.3


@pytest.mark.parametrize("text", ["budget(nat=1)", "budget(nats=1,nats=2)", "budget(nats)", "budget(probes=x)"])
def test_what_is_no_budget_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"budget\(nats=0\.0003\) or budget\(nats=0\.0003, probes=8\), not '[np]"):
        read_strength(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lam", "rho", "per_module", "there"),
    [(0.3, 0.1, False, "lam=0.3"), (0.3, None, True, "lam=0.3"), (Budget(nats=1.0), 0.1, False, "a budget")],
)
def test_a_share_goes_with_auto_alone(lam: float | Budget, rho: float | None, per_module: bool, there: str) -> None:
    with pytest.raises(ConfigError, match=f"with {there} there is nothing to find"):
        read_strength(lam, rho, per_module=per_module)


# --- λ ---------------------------------------------------------------------------------------------------------------


@often
@given(st.floats(0, 100), sizes)
def test_a_given_strength_stays_what_it_is(lam: float, steps: list[tuple[float, float]]) -> None:
    assert float(StrengthController(lam).lam) == pytest.approx(lam)
    assert not StrengthController(lam).found
    assert float(turned(lam, steps).lam) == pytest.approx(lam)


@often
@given(st.floats(0, 10), sizes)
def test_a_share_is_the_ratio_of_sums_over_the_steps_so_far(rho: float, steps: list[tuple[float, float]]) -> None:
    """λ_n = ρ Σ_{m≤n} ‖∇L_m‖ / Σ_{m≤n} ‖∇Ω_m‖, after every n."""
    controller = StrengthController(AutoStrength(rho=rho))
    assert controller.found
    assert float(controller.lam) == 0
    for n, (task, pull) in enumerate(steps, 1):
        controller.update(torch.tensor(task), torch.tensor(pull))
        above, below = sum(t for t, _ in steps[:n]), sum(p for _, p in steps[:n])
        assert float(controller.lam) == pytest.approx(
            rho * above / below if below > 1e-30 else 0.0, rel=1e-5, abs=1e-30
        )


def test_a_gradient_near_nothing_makes_no_strength_infinite() -> None:
    for pull in (0.0, 1.4e-45, 1e-38):
        assert float(turned(AutoStrength(rho=1.0), [(1e3, pull)]).lam) == 0
    assert float(turned(AutoStrength(rho=1.0), [(1e3, 1e-25)]).lam) == pytest.approx(1e28, rel=1e-5)


def test_three_steps_by_hand() -> None:
    controller, found = StrengthController(AutoStrength(rho=0.1)), []
    for task, pull in ((4.0, 0.0), (2.0, 0.5), (2.0, 1.5)):
        controller.update(torch.tensor(task), torch.tensor(pull))
        found.append(float(controller.lam))
    # Nothing to pull on at the first step: its gradient counts all the same.
    assert found == pytest.approx([0.0, 0.1 * 6 / 0.5, 0.1 * 8 / 2])


@pytest.mark.parametrize("c", [1e-6, 3.0, 1e6])
def test_rescaling_the_penalty_rescales_what_is_found_and_not_the_share(c: float) -> None:
    steps = [(3.0, 0.2), (5.0, 0.7), (2.0, 0.1)]
    one = turned(AutoStrength(rho=0.3), steps)
    other = turned(AutoStrength(rho=0.3), [(task, c * pull) for task, pull in steps])
    assert float(other.lam) == pytest.approx(float(one.lam) / c, rel=1e-5)
    bent = turned(AutoStrength(rho=0.3), [(c * task, pull) for task, pull in steps])
    assert float(bent.lam) == pytest.approx(float(one.lam) * c, rel=1e-5)
    # Summed over the steps the pull is the share: Σ λ‖∇Ω‖ = ρ Σ ‖∇L‖.
    total = float(one.lam) * sum(pull for _, pull in steps)
    assert total == pytest.approx(0.3 * sum(task for task, _ in steps), rel=1e-6)


@pytest.mark.parametrize("energy", ["raw", "rms", "max"])
def test_the_pull_that_a_share_finds_is_free_of_scales_energies_and_modules(energy: str) -> None:
    """Ω raw and Ω over its rms differ by a factor; ρ brings both to one pull."""
    A, B, P, Q = draw(1, (1, 2, 5), (1, 7, 2), (1, 2, 5), (1, 7, 2), dtype=torch.float32)
    found = []
    for size, form in ((1.0, "raw"), (0.01, energy)):
        part = EnergyOverlap(energy=form)  # type: ignore[arg-type]
        state = part.prepare(TaskContext(updates=(LowRank(P, Q, size),)))
        assert state is not None
        pull = part.value_and_grad(LowRank(A, B, 4.0), state)
        controller = StrengthController(AutoStrength(rho=0.1))
        controller.update(torch.tensor(2.0), norms(pull.gradient).norm())
        found.append(scaled(pull.gradient, controller.lam))
    torch.testing.assert_close(found[1]["A"], found[0]["A"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[1]["B"], found[0]["B"], rtol=1e-4, atol=1e-7)
    assert float(norms(found[0]).norm()) == pytest.approx(0.1 * 2.0, rel=1e-5)


def test_every_module_may_find_its_own() -> None:
    controller = StrengthController(AutoStrength(rho=0.5, per_module=True))
    controller.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 0.0, 0.5]))
    controller.update(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([4.0, 0.0, 1.5]))
    assert controller.lam.tolist() == pytest.approx([0.5 * 4 / 8, 0.0, 0.5 * 4 / 2])
    pull = pull_of(0, "svd")
    own = scaled(pull.gradient, controller.lam)
    for k in range(3):
        one = scaled({name: g[k : k + 1] for name, g in pull.gradient.items()}, controller.lam[k])
        torch.testing.assert_close(own["A"][k], one["A"][0])
        torch.testing.assert_close(own["B"][k], one["B"][0])
    assert not own["A"][1].any()


def test_what_is_asked_for_is_what_the_parts_hold() -> None:
    assert ella(lam="auto", rho=0.2, per_module=True).penalties[0].strength == AutoStrength(rho=0.2, per_module=True)
    assert parse("ella(lam=auto)").penalties[0].strength == AutoStrength(rho=0.1)
    assert parse("ella(lam=0.25)").penalties[0].strength == 0.25
    assert pslora().penalties[0].strength == AutoStrength(rho=RHO)
    assert pslora(lam=2.0).penalties[0].strength == 2.0


@pytest.mark.parametrize("rho", ["-0.1", "nan", "inf"])
@pytest.mark.parametrize("method", ["ella", "ps-lora"])
def test_a_share_is_a_number_of_at_least_zero(method: str, rho: str) -> None:
    with pytest.raises(ConfigError, match=r"strength.*at least 0"):
        parse(f"{method}(lam=auto,rho={rho})")


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "svd"])
def test_a_pull_is_scaled_in_all_its_parts(form: str) -> None:
    pull = pull_of(1, form)
    lam = torch.tensor([2.0, 0.0, -1.0])
    whole, each = scaled(pull.gradient, torch.tensor(3.0)), scaled(pull.gradient, lam)
    assert list(whole) == (["A", "B", "sigma"] if form == "svd" else ["A", "B"])
    for key, tensor in whole.items():
        assert torch.equal(tensor, 3 * getattr(pull, key))
        assert torch.equal(each[key], lam[:, None, None] * getattr(pull, key))


@pytest.mark.parametrize("form", ["plain", "svd"])
def test_gradients_add_up_part_by_part(form: str) -> None:
    one, other = (scaled(pull_of(seed, form).gradient, torch.tensor(1.0)) for seed in (2, 3))
    total = added(one, other)
    assert total.keys() == one.keys()
    for key, tensor in total.items():
        assert torch.equal(tensor, one[key] + other[key])


@pytest.mark.parametrize("form", ["plain", "svd"])
def test_norms_are_those_of_all_entries_of_a_module(form: str) -> None:
    pull = pull_of(4, form)
    gradient = scaled(pull.gradient, torch.tensor(1.0))
    expected = [float(torch.cat([t[k].flatten() for t in gradient.values()]).norm()) for k in range(3)]
    assert norms(pull.gradient).tolist() == pytest.approx(expected, rel=1e-6)
    assert norms(gradient).tolist() == pytest.approx(expected, rel=1e-6)


# --- from the pair to the triplets -----------------------------------------------------------------------------------


def omega(part: WeightPenalty, A: Tensor, up: Tensor, scale: float, W: Tensor, past: LowRank) -> Tensor:
    """The penalties as they are printed, of the pair (A, B diag σ)."""
    D = scale * (up @ A)
    if isinstance(part, EnergyOverlap):
        return (D * W).square().sum((-2, -1))
    if isinstance(part, SignConflict):
        return ((1 - torch.tanh(0.7 * D) * torch.tanh(0.7 * W)) * D).square().sum((-2, -1))
    if isinstance(part, Orthogonality):
        new, old = (A, past.A) if part.side == "A" else (up.mT, past.B.mT * past.scale / scale)
        return (new @ old.mT).square().sum((-2, -1))
    return A.flatten(1).norm(dim=1) + up.flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    "part",
    [
        EnergyOverlap(energy="raw"),
        SignConflict(sharpness=0.7),
        Orthogonality(side="A", norm="l2sq"),
        Orthogonality(side="B", norm="l2sq"),
        FactorNorm(),
    ],
    ids=str,
)
@pytest.mark.parametrize(("r", "o", "i"), [(1, 5, 7), (2, 7, 5), (8, 11, 6)])
def test_what_acts_on_a_pair_acts_on_its_triplets(part: WeightPenalty, r: int, o: int, i: int) -> None:
    A, B, sigma, P, Q = draw(r, (3, r, i), (3, o, r), (3, r, 1), (3, 2, i), (3, o, 2))
    sigma[0, 0] = 0  # PEFT starts σ at 0, and it must be able to leave
    past = LowRank((8 * P).round() / 8, (8 * Q).round() / 8, 2.0)  # exact in fp32, in which the past is kept
    W = past.scale * past.B @ past.A
    state = part.prepare(TaskContext(updates=(past,)))
    assert state is not None
    state = {key: tensor.double() for key, tensor in state.items()}
    if isinstance(part, SignConflict):
        state["sharpness"] = torch.full_like(state["sharpness"], 0.7)
        state["past"] = torch.tanh(0.7 * W)
    expected = by_autograd(lambda a, b, s: omega(part, a, b * s.mT, 0.5, W, past), A, B, sigma)
    pull = part.value_and_grad(LowRank(A, B, 0.5, sigma), state)
    assert pull.sigma is not None
    for got, want in zip((pull.value, pull.A, pull.B, pull.sigma), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    plain = part.value_and_grad(LowRank(A, B * sigma.mT, 0.5), state)
    assert plain.sigma is None
    torch.testing.assert_close(plain.value, pull.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(plain.A, pull.A, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("part", [EnergyOverlap(), SignConflict(), Orthogonality(side="B"), FactorNorm()], ids=str)
def test_a_pull_on_triplets_builds_no_graph(part: WeightPenalty) -> None:
    A, B, sigma, P, Q = draw(5, (3, 2, 5), (3, 7, 2), (3, 2, 1), (3, 2, 5), (3, 7, 2), dtype=torch.float32)
    live = LowRank(*(tensor.requires_grad_() for tensor in (A, B)), 1.0, sigma.requires_grad_())
    state = part.prepare(TaskContext(updates=(LowRank(P, Q),)))
    assert state is not None
    pull = part.value_and_grad(live, state)
    assert pull.sigma is not None
    assert not any(tensor.requires_grad for tensor in (pull.value, pull.A, pull.B, pull.sigma))


@pytest.mark.parametrize("lam", ["", "''", "x", "budgets", "0.3.1"])
@pytest.mark.parametrize("method", ["kfac", "ella", "ewc", "n-lora"])
def test_words_that_are_no_strength_are_refused_in_one_sentence(method: str, lam: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"{method}(lam={lam})")
    said = f"option 'lam': a strength is a number, auto, or budget(nats=0.0003) (got {lam!r})"
    assert str(refused.value) == f"method {method!r}, {said}"


def test_through_leaves_a_pair_alone() -> None:
    A, B, value = draw(6, (3, 2, 5), (3, 7, 2), (3,))
    found = PenaltyGradient.through(stack([LowRank(A[0], B[0])] * 3), value, A, B)
    assert found.A is A
    assert found.B is B
    assert found.sigma is None
