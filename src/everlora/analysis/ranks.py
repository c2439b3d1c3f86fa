"""Measures the rank of what a learner adds to its base model, from the adapter at the root of its folder."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from everlora.archive.schema import Record

WEIGHTS = "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class SumRank(Record):
    """Holds the numerical rank of the sum of all updates, over the adapted modules."""

    least: int
    median: float
    most: int


def rank_of_sum(path: Path) -> SumRank | None:
    """Measure the rank of the sum of all updates; None where there is no adapter, or none of low rank."""
    try:
        tensors = load_file(path / WEIGHTS)
    except (OSError, SafetensorError):
        return None
    names = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    ranks = [numerical_rank(tensors[name + DOWN], tensors[name + UP]) for name in names]
    return SumRank(least=min(ranks), median=statistics.median(ranks), most=max(ranks)) if ranks else None


def numerical_rank(A: Tensor, B: Tensor) -> int:
    """Count the singular values of B A that are more than rounding in fp32, without a matrix of shape (o, i).

    Args:
        A: down-projection, (r, i).
        B: up-projection, (o, r).

    >>> numerical_rank(torch.eye(3, 5), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    2
    """
    core = torch.linalg.qr(B.double()).R @ torch.linalg.qr(A.double().mT).R.mT
    values = torch.linalg.svdvals(core)
    # What of fp32 factors is no more than rounding, by the rule of numpy and torch.
    tolerance = values.max() * max(B.shape[0], A.shape[1]) * torch.finfo(torch.float32).eps
    return int((values > tolerance).sum())
