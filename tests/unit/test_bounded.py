"""How much memory penalties take on a GPU: counted from the operations that they make, on tensors without numbers."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from everlora.core.roles import WeightPenalty
from everlora.core.updates import LowRank
from everlora.parts.penalties import EnergyOverlap
from everlora.parts.signs import SignConflict
from everlora.parts.sparsity import Sparsity
from everlora.training.group import DEVICE_BLOCK, by_blocks


class Held(TorchDispatchMode):
    """Counts the bytes of what operations have made and somebody still holds, and the most that these ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.holders: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(out) if isinstance(t, Tensor)):
            where = _storage(tensor)
            # Views and what is computed in place take no memory of their own, but hold that of others.
            if where not in given or where in self.holders:
                self._hold(tensor, where)
        return out

    def _hold(self, tensor: Tensor, where: int) -> None:
        size = tensor.untyped_storage().nbytes()
        self.now += 0 if self.holders[where] else size
        self.holders[where] += 1
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._drop, where, size)

    def _drop(self, where: int, size: int) -> None:
        self.holders[where] -= 1
        if not self.holders[where]:
            del self.holders[where]
            self.now -= size


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def at_most(part: WeightPenalty, count: int, size: int, *, start: bool, at_once: int | None = None) -> int:
    """The most bytes that a step's penalty holds of ``count`` square modules on a device that is no CPU."""
    draw = torch.empty
    live = LowRank(draw(count, 8, size, device="meta"), draw(count, size, 8, device="meta"))
    matrix = draw(1, 1, 1, device="meta").expand(count, size, size)  # of any size, and takes no memory
    rate = draw(count, 1, 1, device="meta")
    state = {"squared": matrix, "past": matrix, "sharpness": rate} | ({"start": matrix} if start else {})
    with Held() as held:
        by_blocks(part, live, state, at_once)
    return held.most


PENALTIES = [EnergyOverlap(), SignConflict(), SignConflict(detach_weight=True), Sparsity()]


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("part", PENALTIES, ids=repr)
def test_a_penalty_makes_as_many_matrices_as_it_says(part: WeightPenalty, start: bool) -> None:
    size = 4096
    made = at_most(part, 1, size, start=start) / (4 * size**2)
    assert made < part.matrices + 0.1  # the rest are factors and sums of rows
    if start and part != SignConflict(detach_weight=True):  # without a start, or detached, there is less to make
        assert made >= part.matrices


@pytest.mark.parametrize("part", PENALTIES, ids=repr)
@pytest.mark.parametrize(("count", "size"), [(64, 4096), (144, 1024), (32, 2048), (80, 5120), (40, 8192)])
def test_no_penalty_takes_more_than_the_bound_or_one_module(part: WeightPenalty, count: int, size: int) -> None:
    """Llama-7B's query and value, T5-large's, Llama-1B's width, 13B's and 70B's."""
    gradients = 4 * count * 2 * 8 * size
    of_one = part.matrices * 4 * size**2
    bound = max(DEVICE_BLOCK, of_one) + 3 * gradients  # of blocks, and of all together
    assert at_most(part, count, size, start=False) <= bound
    # Without blocks it would be more, wherever the stack is larger than the bound.
    if count * of_one > 2 * DEVICE_BLOCK:
        assert at_most(part, count, size, start=False, at_once=count) > bound


def test_what_is_counted_is_what_is_held() -> None:
    with Held() as held:
        a = torch.ones(1000, device="meta")
        b = a + 1
        view = b[:10]
        del b
        assert held.now == 8000  # the view holds all of it
        del view
        assert held.now == 4000
        a.add_(1)
        assert held.now == 4000
        c = (a * 2).sum()
        assert (held.now, held.most) == (4000 + c.nbytes, 8000 + c.nbytes)
