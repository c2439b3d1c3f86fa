"""Measures the numerical rank of what a learner adds to its base model."""

from __future__ import annotations

import statistics

import torch

from everlora.archive.records import SumRank
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, precise


def rank_of_sum(past: UpdateHistory) -> SumRank:
    """Measure the rank of the sum of updates, module by module."""
    ranks = [numerical_rank(past.factors(name)) for name in past.sites]
    return SumRank(least=min(ranks), median=statistics.median(ranks), most=max(ranks))


def numerical_rank(update: LowRank) -> int:
    """Count the singular values of an update that are more than rounding in fp32, without a matrix of shape (o, i).

    >>> numerical_rank(LowRank(torch.eye(3, 5), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])))
    2
    """
    core = torch.linalg.qr(precise(update.up)).R @ torch.linalg.qr(precise(update.A).mT).R.mT
    values = torch.linalg.svdvals(core)
    # The tolerance of numpy and torch, for factors in fp32.
    tolerance = values.max() * max(update.shape) * torch.finfo(torch.float32).eps
    return int((values > tolerance).sum())
