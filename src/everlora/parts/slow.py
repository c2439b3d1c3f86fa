"""Trains fast weights of one adapter on and on, while slow weights, their running merge, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from everlora.core.roles import NO_EVIDENCE, Evidence, HasMemory, Initialiser, Needs, PostProcesses, State
from everlora.core.updates import LowRank, precise


@torch.no_grad()
def orthonormal_rows(A: Tensor) -> Tensor:
    """Return Qᵀ of Aᵀ = Q R, signs making R's diagonal positive: rows that span those of A; (..., r, i)."""
    Q, R = torch.linalg.qr(precise(A).mT)
    # Q is unique only up to signs, which libraries choose otherwise; so fixed, B goes on with the rows that it was
    # trained on.
    sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q.dtype)
    return (Q * sign.unsqueeze(-2)).mT.to(A.dtype)


@torch.no_grad()
def towards(merged: Tensor, trained: Tensor, number: int) -> Tensor:
    """Return B_merge + (B_ft − B_merge) / √t after task t."""
    return merged + (trained - merged) / number**0.5


@dataclass(frozen=True, kw_only=True)
class SlowMerge(Initialiser, HasMemory, PostProcesses):
    """Starts, as SLAO, with orthonormal rows and the last trained B; answers with a B that follows slowly.

    The pair that answers is the adapter of record; beside it the trained B is remembered.
    """

    name: ClassVar[str] = "slow_merge"
    needs: ClassVar[Needs] = Needs(cumulative_memory=True)

    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(sites)

    def start(
        self,
        fresh: LowRank,
        updates: Sequence[LowRank],
        evidence: Evidence = NO_EVIDENCE,
        memory: State | None = None,
    ) -> LowRank:
        last = updates[-1]
        return replace(last, A=orthonormal_rows(last.A), B=last.B if memory is None else memory["B"])

    def remember(self, update: LowRank, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        return {"B": update.B.clone()}

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        return 4 * out * rank

    def finish(self, update: LowRank, answered: LowRank | None, number: int) -> LowRank:
        return update if answered is None else replace(update, B=towards(answered.B, update.B, number))
