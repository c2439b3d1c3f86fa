"""How W_past is kept: what each store is off by, and what it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from everlora.core.roles import State, TaskContext
from everlora.core.updates import LowRank, stack
from everlora.parts import stores
from everlora.parts.penalties import EnergyOverlap
from everlora.parts.stores import Store, add, decode, size
from everlora.training import memory

STORES: tuple[Store, ...] = ("factors", "dense", "svd", "int8")
sixty_examples = settings(max_examples=60, deadline=None, derandomize=True)


def update(seed: int, r: int, o: int, i: int, scale: float, form: str = "plain") -> LowRank:
    source = torch.Generator().manual_seed(seed)
    A, B, sigma = (torch.randn(*shape, generator=source) for shape in ((r, i), (o, r), (r, 1)))
    return LowRank(A, B, scale, sigma if form == "svd" else None)


@st.composite
def tasks(draw: st.DrawFn) -> list[LowRank]:
    """One to six updates of one module, of very different sizes."""
    o, i, r = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    form, seed = draw(st.sampled_from(["plain", "svd"])), draw(st.integers(0, 10**6))
    sizes = draw(st.lists(st.sampled_from([1e-3, 0.1, 1.0, 30.0]), min_size=1, max_size=6))
    return [update(seed + t, r, o, i, scale, form) for t, scale in enumerate(sizes)]


def kept(updates: list[LowRank], store: Store, rank: int = 2) -> State:
    state: State = {}
    for one in updates:
        state = add(state, one, store, rank)
    return state


def exact(updates: list[LowRank]) -> Tensor:
    return sum((one.scale * one.up.double() @ one.A.double() for one in updates), torch.zeros(()).double())


def rounding(updates: list[LowRank]) -> float:
    """What fp32 may lose on the way, seen from every update that was added."""
    return 1e-6 * len(updates) * sum(float(exact([one]).norm()) for one in updates)


@sixty_examples
@given(tasks())
def test_dense_is_the_sum(updates: list[LowRank]) -> None:
    torch.testing.assert_close(
        decode(kept(updates, "dense")).double(), exact(updates), rtol=0, atol=rounding(updates) + 1e-12
    )


@sixty_examples
@given(tasks(), st.integers(1, 6), st.integers(0, 10**6))
def test_a_truncated_past_is_off_by_no_more_than_it_says(updates: list[LowRank], rank: int, seed: int) -> None:
    """|‖D ⊙ W_past‖ − ‖D ⊙ Ŵ‖| ≤ max|D| · error, for updates D of every kind."""
    W, state = exact(updates), kept(updates, "svd", rank)
    guess, error = decode(state).double(), float(state["error"])
    assert float((W - guess).norm()) <= error * (1 + 1e-6) + rounding(updates)
    source = torch.Generator().manual_seed(seed)
    spike = torch.zeros_like(W)
    spike.view(-1)[int((W - guess).abs().argmax())] = 3.0
    for D in (torch.randn(W.shape, generator=source, dtype=torch.float64), torch.full_like(W, 0.5), spike):
        apart = abs(float((D * W).norm() - (D * guess).norm()))
        assert apart <= float(D.abs().max()) * (error * (1 + 1e-6) + rounding(updates))


@sixty_examples
@given(tasks())
def test_a_truncated_past_is_exact_while_its_rank_suffices(updates: list[LowRank]) -> None:
    state = kept(updates, "svd", sum(one.rank for one in updates))
    assert float(state["error"]) <= rounding(updates)
    torch.testing.assert_close(decode(state).double(), exact(updates), rtol=0, atol=rounding(updates) + 1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_after_one_task_the_error_is_the_distance_and_after_two_the_sum_of_what_was_cut(rank: int) -> None:
    first, second = update(0, 4, 9, 7, 2.0), update(1, 4, 9, 7, 2.0)
    one = kept([first], "svd", rank)
    assert float(one["error"]) == pytest.approx(float((exact([first]) - decode(one)).norm()), rel=1e-5)
    two = add(one, second, "svd", rank)
    cut = float((decode(one) + exact([second]) - decode(two)).norm())
    assert float(two["error"]) == pytest.approx(float(one["error"]) + cut, rel=1e-5)


@sixty_examples
@given(tasks())
def test_eight_bits_are_off_by_half_a_step_of_each_row_and_task(updates: list[LowRank]) -> None:
    state: State = {}
    allowed = torch.zeros(updates[0].shape[0], 1).double()
    for t in range(len(updates)):
        before = decode(state).double() if state else torch.zeros(updates[0].shape).double()
        state = add(state, updates[t], "int8", 0)
        assert state["int8"].dtype == torch.int8
        allowed = allowed + state["step"].double() / 2
        # One step is 1/127 of the row's largest entry, half of it 0.4 %.
        most = (before + exact([updates[t]])).abs().amax(-1, keepdim=True)
        assert (state["step"].double() / 2 <= 0.004 * most + rounding(updates)).all()
        off = (exact(updates[: t + 1]) - decode(state)).abs()
        assert (off <= allowed * (1 + 1e-5) + rounding(updates)).all()


@pytest.mark.parametrize("store", ["dense", "int8"])
def test_a_stack_is_stored_as_its_modules_are(store: Store) -> None:
    modules = [update(seed, 2, 4, 5, 1.0) for seed in range(3)]
    both = add({}, stack(modules), store, 1)
    for k, one in enumerate(modules):
        alone = add({}, one, store, 1)
        torch.testing.assert_close(decode(both)[k], decode(alone))
        assert {key: t[k].shape for key, t in both.items()} == {key: t.shape for key, t in alone.items()}


def test_a_row_of_zeros_stays_a_row_of_zeros_in_eight_bits() -> None:
    flat = LowRank(torch.ones(1, 3), torch.tensor([[0.0], [1.0]]))
    state = kept([flat, flat], "int8")
    assert decode(state).tolist() == [[0.0] * 3, [2.0] * 3]
    nothing = LowRank(torch.ones(1, 3), torch.zeros(2, 1))
    for store in ("dense", "svd", "int8"):
        assert torch.equal(decode(kept([nothing, nothing], store)), torch.zeros(2, 3))  # type: ignore[arg-type]


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(("o", "i"), [(16, 24), (24, 16), (3, 20), (20, 5), (1, 1)])
@pytest.mark.parametrize(("r", "rank"), [(2, 8), (4, 8), (8, 3), (4, 64)])
def test_what_is_said_to_be_kept_is_kept(store: Store, o: int, i: int, r: int, rank: int) -> None:
    part = EnergyOverlap(store=store, store_rank=rank)
    state: State = {}
    for t in range(1, 7):
        state = part.remember(update(t, r, o, i, 1.0), state)
        held = sum(tensor.nbytes for tensor in state.values())
        assert held == part.memory_bytes(o, i, r, t) == size(store, o, i, min(rank, t * r))


def test_sizes_in_numbers() -> None:
    sizes = {store: size(store, 4096, 1024, 8) for store in STORES}
    assert sizes == {"factors": 0, "dense": 4 * 4096 * 1024, "svd": 4 * 8 * 5120 + 4, "int8": 4096 * 1024 + 4 * 4096}


@pytest.mark.parametrize("store", STORES)
def test_one_adapter_trained_on_is_all_there_is_to_keep(store: Store) -> None:
    """Under ``continue`` nothing adds up, neither bytes nor errors: what is kept is the latest adapter."""
    part = EnergyOverlap(store=store, store_rank=8)
    held: memory.Memory = {}
    for t in range(1, 7):
        now = {"m": update(t, 2, 16, 24, 2.0)}
        held = memory.remember([part], held, now, continued=True)
        assert memory.size(held) == part.memory_bytes(16, 24, 2, 1)
        if store != "factors":
            found, dense = decode(held[part.name]["m"]), now["m"].dense()
            near = 0.004 if store == "int8" else 1e-6
            torch.testing.assert_close(found, dense, rtol=0, atol=near * float(dense.abs().max()))


# --- through the part ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", ["raw", "rms", "max"])
@pytest.mark.parametrize("store", STORES)
def test_every_store_pulls_alike(store: Store, energy: str) -> None:
    names, count = ["a", "b", "c"], 3
    part = EnergyOverlap(store=store, store_rank=2 * count, energy=energy)  # type: ignore[arg-type]
    past = [{name: update(10 * t + k, 2, 9, 7, 0.5) for k, name in enumerate(names)} for t in range(count)]
    held: memory.Memory = {}
    for delta in past:
        held = memory.remember([part], held, delta, continued=False)
    states = [held[part.name][name] for name in names]
    remembered = {key: torch.stack([state[key] for state in states]) for key in states[0]}
    updates = tuple(stack([delta[name] for name in names]) for delta in past)
    live = stack([update(k, 2, 9, 7, 0.5) for k in range(3)])
    plain = EnergyOverlap(energy=energy)  # type: ignore[arg-type]
    found, exact_state = (
        part.prepare(TaskContext(updates=updates, memory=remembered)),
        plain.prepare(TaskContext(updates=updates)),
    )
    assert found is not None
    assert exact_state is not None
    pull, want = part.value_and_grad(live, found), plain.value_and_grad(live, exact_state)
    near = 0.03 if store == "int8" else 1e-4
    for field in ("value", "A", "B"):
        got, expected = getattr(pull, field), getattr(want, field)
        torch.testing.assert_close(got, expected, rtol=near, atol=near * float(expected.abs().max()))


def test_a_truncated_past_is_what_the_part_pulls_on_and_not_the_factors_beside_it() -> None:
    part = EnergyOverlap(store="svd", store_rank=1, energy="raw")
    whole = update(0, 3, 9, 7, 1.0)
    held = {key: tensor[None] for key, tensor in part.remember(whole, {}).items()}
    state = part.prepare(TaskContext(updates=(stack([whole]),), memory=held))
    assert state is not None
    torch.testing.assert_close(state["squared"][0], stores.decode(part.remember(whole, {})).square())
    assert not torch.allclose(state["squared"][0], whole.dense().square(), rtol=0.1)
