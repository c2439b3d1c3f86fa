"""MIGU's mask: counts, ties, what the part makes of magnitudes, what the probe measures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calculus import draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.roles import NeedsActivations, TaskContext
from everlora.core.updates import LowRank, Weights
from everlora.parts.masks import MagnitudeMask, strongest
from everlora.training.probe import magnitudes

often = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize(("n", "kept"), [(8, 3), (10, 3), (1024, 307), (11, 4), (1, 1)])
def test_as_many_rows_stay_as_the_notes_count(n: int, kept: int) -> None:
    size = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double()
    mask = strongest(size, 0.7)
    assert int(mask.sum()) == kept
    assert set(size[mask.bool()].tolist()) == set(map(float, range(n - kept, n)))


@often
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.floats(0, 1))
def test_the_mask_is_the_quantile_of_the_paper_ties_included(values: list[int], tau: float) -> None:
    size = torch.tensor(values, dtype=torch.float64)
    edge = torch.quantile(size, tau)
    clear = (size - edge).abs() > 1e-6  # where a quantile is interpolated to a value, rounding decides
    mask = strongest(size, tau)
    assert torch.equal(mask.bool()[clear], (size >= edge)[clear])
    assert len({(v, m) for v, m in zip(values, mask.tolist(), strict=True)}) == len(set(values)), "a tie was torn"


@often
@given(st.integers(1, 30), st.floats(0.01, 100))
def test_the_paper_norms_magnitudes_which_changes_nothing(n: int, scale: float) -> None:
    (size,) = draw(n, (3, n))
    assert torch.equal(strongest(size.abs(), 0.7), strongest(size.abs() * scale, 0.7))


def test_masked_rows_are_exactly_zero_and_the_others_untouched() -> None:
    A, B, sigma = draw(1, (2, 4, 6), (2, 5, 4), (2, 4, 1))
    part = MagnitudeMask(tau=0.5)
    seen = {"A": torch.tensor([[1.0, 4, 3, 2], [4, 1, 2, 3]]), "B": torch.tensor([[1.0, 2, 3, 4, 5], [5, 4, 3, 2, 1]])}
    state = part.look(seen, {})
    shaped = part.shape({"A": A, "B": B, "sigma": sigma}, state)
    rows = {"A": [[1, 2], [0, 3]], "B": [[2, 3, 4], [0, 1, 2]], "sigma": [[1, 2], [0, 3]]}
    for key, before in (("A", A), ("B", B), ("sigma", sigma)):
        for k, kept in enumerate(rows[key]):
            gone = [j for j in range(before.shape[1]) if j not in kept]
            assert torch.equal(shaped[key][k, kept], before[k, kept])
            assert not shaped[key][k, gone].any()


def test_shaping_is_linear_and_twice_is_once() -> None:
    part = MagnitudeMask()
    one, two, size = draw(2, (3, 8, 5), (3, 8, 5), (3, 8))
    state = part.look({"A": size.abs()}, {})
    left = part.shape({"A": one + two}, state)["A"]
    right = part.shape({"A": one}, state)["A"] + part.shape({"A": two}, state)["A"]
    assert torch.equal(left, right)
    assert torch.equal(part.shape({"A": left}, state)["A"], left)


def test_the_first_task_and_tau_zero_mask_nothing() -> None:
    live = LowRank(torch.ones(1, 2, 3), torch.ones(1, 4, 2))
    assert MagnitudeMask().prepare(TaskContext()) is None
    assert MagnitudeMask().prepare(TaskContext(updates=(live,))) == {}
    assert MagnitudeMask().prepare(TaskContext(start=live)) == {}
    assert MagnitudeMask(tau=0).prepare(TaskContext(updates=(live,))) is None
    assert isinstance(MagnitudeMask(), NeedsActivations)


def test_places_without_outputs_are_not_masked() -> None:
    part = MagnitudeMask()
    state = part.look({"W": torch.full((1, 6), torch.inf)}, {})
    (W, bias) = draw(3, (1, 6, 2), (1, 6))
    shaped = part.shape({"W": W, "bias": bias}, state)
    assert torch.equal(shaped["W"], W)
    assert torch.equal(shaped["bias"], bias)


def test_magnitudes_by_hand_padding_excluded() -> None:
    site = LowRank(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [2.0]]), scale=2.0)
    x = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [50.0, 0.0]]])
    out = torch.tensor([[[-5.0, 1.0], [2.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    found = magnitudes(site, x, out, mask, update_too=True)
    assert found["A"].tolist() == [4.0]  # |1| + |−3|
    assert found["B"].tolist() == [7.0, 1.0]
    assert found["update"].tolist() == [8.0, 16.0]  # 2 · 4, 2 · 8
    assert magnitudes(site, x, out, None)["B"].tolist() == [16.0, 10.0]
    assert {k: v.tolist() for k, v in magnitudes(Weights({"W": torch.ones(2, 2)}), x, out, mask).items()} == {
        "W": [7.0, 1.0]
    }


@pytest.mark.parametrize("tau", [-0.1, 1.1, float("nan")])
def test_tau_is_a_share(tau: float) -> None:
    with pytest.raises(ConfigError, match="tau is the share of rows"):
        MagnitudeMask(tau=tau)


def test_alone_on_seqlora_and_on_any_host() -> None:
    assert parse("migu").adapter.policy == "continue"
    assert parse("o-lora+migu").adapter == parse("o-lora").adapter
    assert parse("migu+o-lora").consolidator == parse("o-lora").consolidator
    with pytest.raises(ConfigError, match="exclude one another"):
        parse("mtl+migu")
    with pytest.raises(ConfigError, match="outputs"):
        parse("migu(outputs=hidden)")


@pytest.mark.parametrize("typed", ["lb-cl+migu", "migu+lb-cl"])
def test_a_mask_comes_before_a_projection(typed: str) -> None:
    assert [part.name for part in parse(typed).transforms] == ["magnitude_mask", "project_out"]
