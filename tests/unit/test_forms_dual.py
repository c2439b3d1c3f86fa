"""The maths of DATA: gates, growing pools, the penalty that keeps components apart, restoration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.roles import TaskContext
from everlora.core.updates import Weights
from everlora.parts.forms_dual import (
    DualAdapter,
    Orthonormality,
    Restoration,
    code_gate,
    cosine_gate,
    departure,
    masked_mean,
    orthonormal,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(h):
    return torch.ones(h.shape[:2], dtype=torch.bool)


def test_the_cosine_gate_by_hand():
    """h̄ = (1, 2), A = (1, 1), K = (1, 0): cos = 1/√5; W = (2, 4): mean 3; g = σ(3/√5)."""
    h = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    gate = cosine_gate(h, everywhere(h), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]))
    assert float(gate) == pytest.approx(1 / (1 + math.exp(-3 / math.sqrt(5))), abs=1e-12)


def test_the_mean_of_the_real_tokens():
    h = torch.tensor([[[1.0, 2.0, 3.0], [3.0, 6.0, 5.0], [9.0, 9.0, 9.0]]]).expand(3, 3, 3)
    mask = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    assert masked_mean(h, mask).tolist() == [[2, 4, 4], [3, 6, 5], [0, 0, 0]]


@pytest.mark.parametrize("size", [1e-6, 1e3])
def test_a_cosine_has_no_unit(size):
    h, K, A, W = drawn(2, 3, 5), drawn(4, 5, seed=1), drawn(4, 5, seed=2), drawn(4, 5, seed=3)
    plain = cosine_gate(h, everywhere(h), K, A, W)
    for found in (
        cosine_gate(size * h, everywhere(h), K, A, W),
        cosine_gate(h, everywhere(h), size * K, A, W),
        cosine_gate(h, everywhere(h), K, size * A, W),
    ):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-7)


def test_an_adapter_weighs_by_the_gate_that_it_is_given():
    h, pools = drawn(2, 3, 5), {name: drawn(4, 5, seed=k) for k, name in enumerate("KAW")}
    for name, gate in (("cosine", cosine_gate), ("code", code_gate)):
        assert torch.equal(DualAdapter(gate=name).weigh(h, everywhere(h), pools), gate(h, everywhere(h), **pools))


def test_new_rows_of_a_pool_are_as_many_as_it_says_and_those_of_w_add_nothing():
    for name in "KAW":
        old = DualAdapter(components=3).grow(name, None, 8, torch.Generator().manual_seed(0))
        new = DualAdapter(components=3).grow(name, old, 8, torch.Generator().manual_seed(1))
        assert new.shape == (3, 8)
        assert float((new @ old.mT).abs().max()) < 1e-6
        assert (float(new.mean(-1).abs().max()) < 1e-7) is (name == "W")


def test_the_code_gate_by_hand():
    """One token (3, 4), A = I: q = (.6, .8); K rows (1, 0), (3, 4): sums of unit rows 1, 1.4; W rows sum to 2, -1.

    Σ = .6·1·2 + .8·1.4·(-1) = .08, by √2.
    """
    h = torch.tensor([[[3.0, 4.0]]])
    K, W = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.5, 0.5], [-2.0, 1.0]])
    gate = code_gate(h, everywhere(h), K, torch.eye(2), W)
    assert float(gate) == pytest.approx(1 / (1 + math.exp(-0.08 / math.sqrt(2))), abs=1e-6)


def test_the_code_gate_is_the_index_pattern_summed_out():
    h, K, A, W = drawn(2, 3, 5), drawn(4, 5, seed=1), drawn(4, 5, seed=2), drawn(4, 5, seed=3)
    q = torch.einsum("ble,je->blj", h, A)
    q = q / q.norm(dim=-1, keepdim=True)
    keys = K / K.norm(dim=-1, keepdim=True)
    inner = torch.einsum("blj,jc,jd->b", q, keys, W) / 5**0.5
    torch.testing.assert_close(code_gate(h, everywhere(h), K, A, W).double(), inner.sigmoid(), rtol=1e-5, atol=1e-6)


def test_an_adapter_weighs_by_the_gate_that_it_names_and_grows_pools_of_its_size():
    h, (K, A, W) = drawn(2, 3, 5).float(), (drawn(4, 5, seed=k).float() for k in range(3))
    for name, gate in (("cosine", cosine_gate), ("code", code_gate)):
        found = DualAdapter(gate=name).weigh(h, everywhere(h), {"K": K, "A": A, "W": W})
        assert torch.equal(found, gate(h, everywhere(h), K, A, W))
    assert DualAdapter().gate == "cosine"
    grown = {name: DualAdapter(components=3).grow(name, None, 5, torch.Generator().manual_seed(0)) for name in "KAW"}
    assert {name: rows.shape for name, rows in grown.items()} == dict.fromkeys("KAW", (3, 5))
    assert [float(rows.mean(-1).abs().max()) < 1e-6 for rows in grown.values()] == [False, False, True]


@pytest.mark.parametrize("gate", [cosine_gate, code_gate])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_masked_does_not_count(gate, data):
    size, junk = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    pools = [drawn(4, 8, seed=k).float() for k in range(3)]
    h = drawn(2, size, 8, seed=size).float()
    padded = torch.cat([1e3 * drawn(2, junk, 8, seed=9).float(), h], dim=1)
    mask = torch.cat([torch.zeros(2, junk, dtype=torch.bool), everywhere(h)], dim=1)
    alone = gate(h, everywhere(h), *pools)
    torch.testing.assert_close(gate(padded, mask, *pools), alone, rtol=1e-5, atol=1e-6)
    assert bool(((alone > 0) & (alone < 1)).all())


def test_components_that_were_just_added_leave_a_cosine_gate_as_it_was():
    h, draw = drawn(3, 5, 16).float(), torch.Generator().manual_seed(1)
    K, A, W = (orthonormal(None, 4, 16, draw) for _ in range(3))
    more = [torch.cat([old, orthonormal(old, 4, 16, draw, level=k == 2)]) for k, old in enumerate((K, A, W))]
    before, after = cosine_gate(h, everywhere(h), K, A, W), cosine_gate(h, everywhere(h), *more)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-8)
    assert not torch.allclose(before, torch.full_like(before, 0.5), atol=1e-3)


@given(st.integers(0, 6), st.integers(1, 4), st.booleans(), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_new_components_are_orthonormal_and_off_the_old_ones(known, count, level, seed):
    old = drawn(known, 12, seed=seed).float() if known else None
    new = orthonormal(old, count, 12, torch.Generator().manual_seed(seed), level=level)
    torch.testing.assert_close(new @ new.mT, torch.eye(count), rtol=0, atol=1e-6)
    if old is not None:
        assert float((new @ old.mT).abs().max()) < 1e-5
    if level:
        assert float(new.mean(-1).abs().max()) < 1e-7


def test_pools_that_are_full_take_unit_rows_that_are_merely_random():
    old = torch.eye(4)
    new = orthonormal(old, 3, 4, torch.Generator().manual_seed(0), level=True)
    torch.testing.assert_close(new.norm(dim=-1), torch.ones(3))
    assert float(new.mean(-1).abs().max()) < 1e-7


def test_a_pool_may_become_a_whole_basis_and_its_unit_has_no_meaning():
    everything = orthonormal(None, 4, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(everything @ everything.mT, torch.eye(4), rtol=0, atol=1e-6)
    for size in (1e-4, 1e4):
        (new,) = orthonormal(size * everything[:3], 1, 4, torch.Generator().manual_seed(1))
        torch.testing.assert_close(new.abs(), everything[3].abs(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("part", "counts"), [(1e-6, False), (1.1e-6, True)])
def test_a_row_that_is_a_millionth_of_another_is_rounding(part, counts):
    old = torch.diag(torch.tensor([1.0, part, 0.0], dtype=torch.float64))
    (new,) = orthonormal(old, 1, 3, torch.Generator().manual_seed(0))
    assert float(new[0]) == pytest.approx(0, abs=1e-7)
    assert (abs(float(new[1])) < 1e-7) is counts


def test_the_penalty_by_hand():
    """M = [(1, 0); (1, 1)]: M Mᵀ − I = [[0, 1], [1, 1]], mean of squares 3/4; gradient of the second row
    4/4 · (1·(1, 0) + 1·(1, 1)) = (2, 1)."""
    value, gradient = departure(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]]))
    assert float(value) == 0.75
    assert gradient.tolist() == [[[2.0, 1.0]]]


@pytest.mark.parametrize("known", [0, 3])
def test_the_penalty_against_autograd(known):
    live = drawn(2, 4, 6).requires_grad_()
    frozen = drawn(2, known, 6, seed=1) if known else None
    value, gradient = departure(frozen, live)
    (expected,) = torch.autograd.grad(value.sum(), live)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


def test_the_penalty_is_the_mean_over_pools_and_gates():
    live = Weights({k: drawn(3, 2, 5, seed=s).float() for s, k in enumerate("KAW")})
    old = Weights({k: drawn(3, 4, 5, seed=s + 5).float() for s, k in enumerate("KAW")})
    part = Orthonormality()
    pull = part.value_and_grad(live, part.prepare(TaskContext(start=old)))
    whole = [departure(old.tensors[k], live.tensors[k])[0] for k in "KAW"]
    assert float(pull.value.sum()) == pytest.approx(float(torch.stack(whole).mean()), rel=1e-6)
    assert pull.gradient.keys() == {"K", "A", "W"}
    for gate in range(3):
        own = torch.stack([departure(old.tensors[k][gate], live.tensors[k][gate])[0] for k in "KAW"])
        assert float(pull.value[gate]) == pytest.approx(float(own.mean()) / 3, rel=1e-6)
    for k in "KAW":
        mean = departure(old.tensors[k], live.tensors[k])[1] / 9
        torch.testing.assert_close(pull.gradient[k], mean, rtol=1e-6, atol=1e-8)
    fresh = Weights({k: orthonormal(None, 2, 5, torch.Generator().manual_seed(0))[None] for k in "KAW"})
    assert float(part.value_and_grad(fresh, part.prepare(TaskContext())).value.sum()) < 1e-12


def test_restoration_undoes_all_steps_at_rate_one_and_none_at_rate_zero():
    state = Restoration(rate=1.0, every=3).prepare(TaskContext(seed=4))
    part, where = Restoration(rate=1.0, every=3), torch.zeros(2, 3)
    for k in range(3):
        where = where + part.shape({"w": torch.full((2, 3), float(k + 1))}, state)["w"]
        assert float(where.max()) == (1, 3, 0)[k]
    assert Restoration(rate=0.0).prepare(TaskContext()) is None


def test_restoration_takes_its_share_and_is_drawn_from_the_seed():
    step = {"w": torch.ones(100, 100)}

    def second(seed):
        part = Restoration(rate=0.1)
        state = part.prepare(TaskContext(seed=seed))
        part.shape(step, state)
        return part.shape(step, state)["w"]

    share = float((second(1) <= 0).float().mean())
    assert 0.08 < share < 0.12
    assert torch.equal(second(1), second(1))
    assert not torch.equal(second(1), second(2))


@pytest.mark.parametrize("seed", [4, 2**31 - 3])
def test_what_returns_is_drawn_from_the_seed_and_the_number_of_the_step(seed):
    """Any process can draw it again, of seeds up to the largest."""
    part = Restoration(rate=0.5, every=2)
    state = part.prepare(TaskContext(seed=seed))
    for number in range(1, 7):
        found = part.shape({"w": torch.ones(50)}, state)["w"]
        source = torch.Generator().manual_seed((seed + number) % 2**31)
        back = torch.rand(50, generator=source) < 0.5
        assert torch.equal(found <= 0, back) if number % 2 == 0 else bool((found == 1).all())


def test_a_draw_of_exactly_the_rate_does_not_return():
    rate = float(torch.rand(1, generator=torch.Generator().manual_seed(8)))
    for part, back in ((Restoration(rate=rate), False), (Restoration(rate=rate + 1e-6), True)):
        assert bool(part.shape({"w": torch.ones(1)}, part.prepare(TaskContext(seed=7)))["w"] <= 0) is back


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("data(low=0)", "low must be at least 1"),
        ("data(blocks=-1)", "blocks must be at least 1"),
        ("data(mu=-1)", "strength"),
        ("data(restore=2)", "probability"),
        ("data(restore=0.1,restore_every=0)", "counts steps"),
        ("data(gate=linear)", "gate"),
        ("data+o-lora", "exclude one another"),
        ("data+seqlora", "exclude one another"),
    ],
)
def test_bad_options_are_refused(expression, message):
    with pytest.raises(ConfigError, match=message):
        parse(expression)


def test_the_alias_is_the_same_method():
    assert parse("data-lora") == parse("data")
