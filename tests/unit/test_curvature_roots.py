"""Wide factors of a curvature are summed as roots: what a store gets of them, what it may lack, and what is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from calculus import draw
from everlora.core.roles import Curvature, CurvatureRoots, Evidence, SymmetricRoot
from everlora.core.updates import LowRank
from everlora.data.task import Task
from everlora.parts import factor_stores
from everlora.parts.factor_stores import FactorStore
from everlora.parts.kronecker import KroneckerCurvature
from everlora.testing import tiny_runs
from everlora.training.curvature import Products

OUT, INTO = 1040, 1030
UPDATE = LowRank(torch.zeros(1, INTO), torch.zeros(OUT, 1))
STORES: tuple[FactorStore, ...] = ("low-rank", "diagonal")


class Narrow(TorchDispatchMode):
    """Refuses every operation that makes as many numbers as a wide factor has."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            assert not isinstance(one, Tensor) or one.numel() < INTO**2, f"{func} makes {tuple(one.shape)}"
        return found


def rows_of(seed: int, count: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients of rows whose directions weigh less and less; half the tokens have no gradient."""
    x, g = draw(seed, (count, tokens, INTO), (count, tokens, OUT), dtype=torch.float32)
    x, g = x * torch.arange(1, INTO + 1) ** -0.5, g * torch.arange(1, OUT + 1) ** -0.5
    g[:, ::2] = 0
    return x, g


def measured(
    x: Tensor, g: Tensor, root_columns: Callable[[int], int | None], calls: int = 1
) -> Curvature | CurvatureRoots:
    """What is seen of a layer that reads the tokens of a row in so many calls, and the rows in two batches."""
    layer, found = nn.Identity(), Products(root_columns)
    for some, their in zip(x.chunk(2), g.chunk(2), strict=True):
        outs = [(torch.zeros_like(t, requires_grad=True), t) for t in their.chunk(calls, 1)]
        heard = [found.watch(layer, (s,), out) for s, (out, _) in zip(some.chunk(calls, 1), outs, strict=True)]
        torch.stack([(out * t).sum() for out, (_, t) in zip(heard, outs, strict=True)]).sum().backward()
    mean = found.mean(len(x))
    assert mean is not None
    return mean


def evidence(found: Curvature | CurvatureRoots) -> Evidence:
    return Evidence(curvature_roots=found) if isinstance(found, CurvatureRoots) else Evidence(curvature=found)


@pytest.mark.parametrize("store", STORES)
def test_while_the_columns_suffice_a_store_is_what_it_is_of_the_matrices(store: FactorStore) -> None:
    """Of 6 rows with 4 tokens that have a gradient, in two calls, 16 of 24 directions are stored."""
    part = KroneckerCurvature(store=store, store_rank=16)
    x, g = rows_of(0, 6, 8)
    roots = measured(x, g, part.root_columns, calls=2)
    assert isinstance(roots, CurvatureRoots)
    mine, dense = (
        part.remember(UPDATE, {}, evidence(found)) for found in (roots, measured(x, g, lambda n: None, calls=2))
    )
    assert mine.keys() == dense.keys()
    for side in ("left.", "right."):
        one, other = (state[f"{side}root"].double() for state in (mine, dense))
        assert (one @ one.mT - other @ other.mT).norm() < 1e-5 * (other @ other.mT).norm()
        torch.testing.assert_close(mine[f"{side}error"], dense[f"{side}error"], rtol=1e-5, atol=0)
    if store == "diagonal":
        torch.testing.assert_close(mine["left.diagonal"], dense["left.diagonal"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine["trace"], dense["trace"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("store", STORES)
def test_over_tasks_the_error_bounds_what_is_missing_and_no_matrix_is_made(store: FactorStore) -> None:
    """Three tasks of 48 directions each, summed in 16 columns, of which 2 are stored."""
    part, memory = KroneckerCurvature(store=store, store_rank=2), {}
    left, right = torch.zeros(OUT, OUT).double(), torch.zeros(INTO, INTO).double()
    for task in (1, 2, 3):
        x, g = rows_of(task, 6, 16)
        with Narrow():
            found = measured(x, g, part.root_columns)
            memory = part.remember(UPDATE, memory, evidence(found))
        assert sum(t.nbytes for t in memory.values()) == part.memory_bytes(OUT, INTO, 1, task)
        x, g = x.double(), g.double()
        left = left + g.flatten(0, 1).mT @ (x @ x.mT @ g).flatten(0, 1) / 6
        right = right + x.flatten(0, 1).mT @ (g @ g.mT @ x).flatten(0, 1) / 6
    torch.testing.assert_close(memory["trace"].double(), left.trace(), rtol=1e-5, atol=0)
    for side, exact in (("left.", left), ("right.", right)):
        kept = {key.removeprefix(side): t for key, t in memory.items() if key.startswith(side)}
        stored = factor_stores.decode(kept).double()
        off, best = (stored - exact).norm(), torch.linalg.eigvalsh(exact)[:-2].norm()
        assert off <= kept["error"] < 3 * best, "a bound, and one that says something"
        if store == "diagonal":
            torch.testing.assert_close(stored.diagonal(), exact.diagonal(), rtol=1e-4, atol=1e-6)
        else:
            assert best <= off * 1.0001


def test_a_matrix_of_that_size_would_be_noticed() -> None:
    x, g = rows_of(0, 2, 2)
    with Narrow(), pytest.raises(AssertionError, match=f"makes \\({OUT}, {OUT}\\)"):
        measured(x, g, lambda n: None)


def test_of_more_tokens_than_the_other_side_is_wide_only_as_many_columns_are_made() -> None:
    x, g = draw(0, (1, 40, 3), (1, 40, 1100), dtype=torch.float32)
    found = Products(lambda n: 64 if n > 3 else None)
    found.calls = [(x, g)]
    found._add()
    mean = found.mean(1)
    assert isinstance(mean, CurvatureRoots)
    assert isinstance(mean.left, SymmetricRoot)
    assert mean.left.root.shape == (1100, 3)
    G = g[0].mT @ x[0]
    torch.testing.assert_close(mean.left.root @ mean.left.root.mT, G @ G.mT, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(mean.right, G.mT @ G, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("store", STORES)
def test_of_a_wide_module_without_evidence_nothing_is_remembered_in_the_same_bytes(store: FactorStore) -> None:
    part = KroneckerCurvature(store=store, store_rank=2)
    with Narrow():
        memory = part.remember(UPDATE, part.remember(UPDATE, {}))
    assert sum(t.nbytes for t in memory.values()) == part.memory_bytes(OUT, INTO, 1, 2)
    assert int(memory.pop("tasks")) == 2
    assert not any(t.any() for t in memory.values())


def test_a_run_measures_wide_factors_as_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one task the exact diagonal is that of the matrices; after two the run has gone on from what it stored."""
    tasks = tiny_runs.stream("tiny-bert")

    def remembered(out: str, some: Sequence[Task]) -> dict[str, dict[str, Tensor]]:
        learner = tiny_runs.train_sequence("tiny-bert", "kfac(store=diagonal, store_rank=1)", tmp_path / out, some)
        return learner.memory["kronecker_curvature"]

    dense = remembered("dense", tasks[:1])
    monkeypatch.setattr(factor_stores, "WIDE", 8)
    for name, mine in remembered("roots", tasks[:1]).items():
        torch.testing.assert_close(mine["trace"], dense[name]["trace"], rtol=1e-4, atol=0)
        for side in ("left.", "right."):
            one, other = (s[f"{side}root"].square().sum(1) + s[f"{side}diagonal"] for s in (mine, dense[name]))
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.max()))
    both = remembered("both", tasks)
    assert {int(state["tasks"]) for state in both.values()} == {2}
    assert any(not torch.equal(state["left.root"], dense[name]["left.root"]) for name, state in both.items())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), columns=st.integers(1, 12), steep=st.floats(0, 3), parts=st.lists(st.integers(0, 9)))
def test_whatever_is_appended_the_diagonal_is_exact_and_the_error_a_bound(
    seed: int, columns: int, steep: float, parts: list[int]
) -> None:
    (all_of_it,) = draw(seed, (10, sum(parts)))
    all_of_it = all_of_it * torch.arange(1, 11)[:, None] ** -steep
    found = SymmetricRoot(root=torch.zeros(10, 0).double(), diagonal=torch.zeros(10).double(), error=torch.zeros(()))
    for some in all_of_it.split(parts, 1) if parts else ():
        found = factor_stores.append(found, some, columns)
    assert found.root.shape[1] <= columns
    exact = all_of_it @ all_of_it.mT
    missing = exact - found.root @ found.root.mT
    torch.testing.assert_close(found.diagonal, missing.diagonal())
    assert (missing - found.diagonal.diag()).norm() <= found.error * 1.00001 + 1e-9 * exact.norm()
    if sum(parts) <= columns:
        assert not found.error
