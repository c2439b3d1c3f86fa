"""Carries penalties on the entries of an update to where they are computed in tiles (`everlora.kernels`).

Such a penalty prepares other constants: the past as factors, or dense if its rank is large; the start as factors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from everlora.core.roles import State, TaskContext
from everlora.core.updates import LowRank
from everlora.kernels import RATE, Problem


def constants(before: TaskContext, rate: Tensor, past: LowRank | Tensor | None) -> State:
    """Return what a penalty holds for one task; ``rate`` (L,) and ``past`` are those of `Problem`."""
    state = {RATE: rate}
    if isinstance(past, LowRank):
        state |= {"past.A": past.A, "past.B": past.B}
    elif past is not None:
        state["past"] = past
    if before.start is not None:
        start = before.start.absorb_scale()
        state |= {"start.A": start.A, "start.B": start.B}
    return state


def problem(live: LowRank, state: State) -> Problem:
    """Return what is to be computed in a step."""
    pairs = {k: LowRank(state[f"{k}.A"], state[f"{k}.B"]) for k in ("past", "start") if f"{k}.A" in state}
    return Problem(
        A=live.A,
        B=live.up,
        scale=live.scale,
        past=pairs.get("past", state.get("past")),
        # One for all modules where nothing of the past is in it.
        rate=state[RATE].expand(len(live.A)),
        start=pairs.get("start"),
    )


def of_each(past: LowRank, number: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a number of the dense past of each module, (L,), from one matrix at a time."""
    found = [number(LowRank(past.A[k], past.B[k], past.scale).dense()) for k in range(len(past.A))]
    return torch.stack([one.reshape(()) for one in found])
