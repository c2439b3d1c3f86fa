"""Takes parts of an update by size and by sign: its smallest entries, those along the past or those against it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, LowRankUpdates

Sign = Literal["same", "opposite"]


def smallest(update: Tensor, share: float) -> Tensor:
    """Return where the entries of least magnitude are, ⌊share · n⌋ of them, (o, i).

    >>> smallest(torch.tensor([[3.0, -1.0], [2.0, 4.0]]), 0.5)
    tensor([[False,  True],
            [ True, False]])
    """
    flat = update.abs().flatten()
    chosen = flat.topk(int(share * len(flat) + 1e-9), largest=False).indices
    return torch.zeros(len(flat), dtype=torch.bool).index_fill(0, chosen, True).view_as(update)


def subset(added: LowRankUpdates, past: UpdateHistory, share: float, sign: Sign) -> LowRankUpdates:
    """Return the smallest entries of an update that have the past's sign, or the other one; all else is 0.

    Args:
        added: the update of one task.
        past: of the tasks before it.
        share: of each matrix's entries, 0 to 1.
        sign: which of them.
    """
    found = {}
    for name, update in added.items():
        change = update.dense()
        met = change * past.total(name)
        along = met > 0 if sign == "same" else met < 0
        found[name] = exactly(torch.where(smallest(change, share) & along, change, 0))
    return found


def exactly(matrix: Tensor) -> LowRank:
    """Return a matrix (o, i) of any rank as an update.

    >>> exactly(torch.tensor([[1.0, 2.0, 3.0]])).dense()
    tensor([[1., 2., 3.]])
    """
    rows, columns = matrix.shape
    if rows <= columns:
        return LowRank(A=matrix, B=torch.eye(rows))
    return LowRank(A=torch.eye(columns), B=matrix)
