"""Prompts are put into a sequence, and their places taken out of it again, row by row."""

from __future__ import annotations

import torch
from torch import Tensor


def text_start(mask: Tensor) -> Tensor:
    """Where each row's text begins behind padding on the left, (b,), of a mask (b, s)."""
    return (mask.cumsum(-1) == 0).sum(-1)


def insert_positions(x: Tensor, new: Tensor, at: Tensor) -> Tensor:
    """``x`` (b, s, …) with ``new`` (b, m, …) in front of position ``at`` (b,) of each row: (b, s + m, …)."""
    m, place = new.shape[1], at[:, None]
    j = torch.arange(x.shape[1] + m, device=x.device)[None]
    source = torch.where(j < place, j + m, torch.where(j < place + m, j - place, j))
    whole = torch.cat([new, x], 1)
    return torch.take_along_dim(whole, source.view(*source.shape, *[1] * (x.ndim - 2)), 1)


def remove_positions(x: Tensor, m: int, at: Tensor, *, last: bool = False) -> Tensor:
    """Return ``x`` (b, s + m, …) without the ``m`` positions from ``at`` (b,) on: the inverse of `insert_positions`.

    With ``last``, the position in front of them gives way to the last of them: where they stand behind a question, it
    is there that the answer begins.
    """
    k = torch.arange(x.shape[1] - m, device=x.device)[None]
    source = torch.where(k < at[:, None] - int(last), k, k + m)
    return torch.take_along_dim(x, source.view(*source.shape, *[1] * (x.ndim - 2)), 1)
