"""Measures the numerical rank of what a learner adds to its base model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from everlora.archive.records import SumRank
from everlora.core.updates import LowRank, precise

TOLERANCE = torch.finfo(torch.float32).eps
"""By numpy and torch, for factors in fp32: times the larger side and the largest singular value it is rounding."""


def over_modules(ranks: Sequence[int]) -> SumRank:
    """Return the smallest, the median and the largest of some ranks."""
    return SumRank(least=min(ranks), median=statistics.median(ranks), most=max(ranks))


def numerical_rank(update: LowRank) -> int:
    """Count the singular values of an update that are more than rounding in fp32, without a matrix of shape (o, i).

    >>> numerical_rank(LowRank(torch.eye(3, 5), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])))
    2
    """
    return rank_of(torch.linalg.qr(precise(update.up)).R @ torch.linalg.qr(precise(update.A).mT).R.mT, update.shape)


def rank_of(core: Tensor, shape: tuple[int, int]) -> int:
    """Count singular values of an update of some shape (o, i), which are those of ``core``, that are not rounding."""
    values = torch.linalg.svdvals(core)
    return int((values > values.max() * max(shape) * TOLERANCE).sum())
