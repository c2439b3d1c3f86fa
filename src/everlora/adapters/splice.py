"""Inserts positions into the rows of a padded batch, and removes them again."""

from __future__ import annotations

import torch
from torch import Tensor


def text_start(mask: Tensor) -> Tensor:
    """Return where each row's text begins behind padding on the left, (b,), given a mask (b, s).

    >>> text_start(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))
    tensor([2, 0])
    """
    return (mask.cumsum(-1) == 0).sum(-1)


def insert_positions(x: Tensor, new: Tensor, at: Tensor) -> Tensor:
    """Return ``x`` (b, s, …) with ``new`` (b, m, …) before position ``at`` (b,) of each row: (b, s + m, …).

    >>> insert_positions(torch.tensor([[1, 2, 3]]), torch.tensor([[8, 9]]), at=torch.tensor([1]))
    tensor([[1, 8, 9, 2, 3]])
    """
    m, first = new.shape[1], at[:, None]
    j = torch.arange(x.shape[1] + m, device=x.device)[None]
    # `new` is at the front of the joined rows: its columns are read from 0 on, those of `x` from m on.
    source = torch.where(j < first, j + m, torch.where(j < first + m, j - first, j))
    joined = torch.cat([new, x], 1)
    return torch.take_along_dim(joined, source.view(*source.shape, *[1] * (x.ndim - 2)), 1)


def remove_positions(x: Tensor, m: int, at: Tensor, *, last: bool = False) -> Tensor:
    """Return ``x`` (b, s + m, …) without the ``m`` positions from ``at`` (b,) on: the inverse of `insert_positions`.

    >>> remove_positions(torch.tensor([[1, 8, 9, 2, 3]]), 2, at=torch.tensor([1]))
    tensor([[1, 2, 3]])

    With ``last``, the last of them replaces the position before them: where prompts follow a question, the first token
    of the answer is predicted there.
    """
    k = torch.arange(x.shape[1] - m, device=x.device)[None]
    source = torch.where(k < at[:, None] - int(last), k, k + m)
    return torch.take_along_dim(x, source.view(*source.shape, *[1] * (x.ndim - 2)), 1)
