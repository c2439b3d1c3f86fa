"""Stores the sum of past updates from task to task, in addition to the updates or instead of them.

    factors   the tasks' own factors, exact; nothing is kept twice               0 bytes more
    dense     Σ ΔW in fp32, exact, constant in the number of tasks                4 o i
    svd       the nearest matrix of rank ρ to the running sum, after each task    4 ρ (o + i) + 4
    int8      127 steps on either side of 0 per row, scaled by the row's maximum  o i + 4 o

``svd`` records ‖W_past − Ŵ‖_F, errors of earlier truncations included, as ``error``: then
|‖D ⊙ W_past‖ − ‖D ⊙ Ŵ‖| ≤ max|D| · error. ``int8`` is off by at most half a step per task: 0.4 % of a row's maximum.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from everlora.core.roles import State
from everlora.core.updates import LowRank, concatenate, truncated

Store = Literal["factors", "dense", "svd", "int8"]
STEPS = 127


def add(memory: State, update: LowRank, store: Store, rank: int) -> State:
    """Return the memory of one module after ``update``; ``memory`` is empty after the first task."""
    if store == "factors":
        return {}
    if store == "svd":
        before = [LowRank(memory["A"], memory["B"])] if memory else []
        # What was truncated before is lost, so errors add up, and the sum of them is a bound.
        kept, error = truncated(concatenate([*before, update]), rank)
        return {"A": kept.A, "B": kept.B, "error": memory.get("error", torch.zeros(1)) + error}
    total = update.dense() + (decode(memory) if memory else 0)
    if store == "dense":
        return {"dense": total}
    # A step per row: outputs differ in scale, and one step for all would round the small ones to 0.
    step = (total.abs().amax(-1, keepdim=True) / STEPS).clamp_min(torch.finfo(total.dtype).tiny)
    return {"int8": (total / step).round().to(torch.int8), "step": step}


def decode(memory: State) -> Tensor:
    """Return the sum of past updates, dense, (..., o, i), fp32."""
    if "dense" in memory:
        return memory["dense"]
    if "int8" in memory:
        return memory["int8"].float() * memory["step"]
    return LowRank(memory["A"], memory["B"]).dense()


def size(store: Store, out: int, into: int, rank: int) -> int:
    """Return the bytes that one module of shape (out, into) takes; ``rank`` counts for ``svd`` only."""
    return {
        "factors": 0,
        "dense": 4 * out * into,
        "svd": 4 * min(rank, out, into) * (out + into) + 4,
        "int8": out * into + 4 * out,
    }[store]
