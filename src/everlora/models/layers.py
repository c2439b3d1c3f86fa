"""Reads linear layers in both layouts: `nn.Linear` holds its weight as (o, i), and GPT-2's `Conv1D` as (i, o)."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def is_linear(layer: nn.Module | None) -> TypeGuard[nn.Linear | Conv1D]:
    """Return whether a layer computes W x + b from a plain weight."""
    return isinstance(layer, nn.Linear | Conv1D)


def shape_of(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return a layer's outputs and inputs, (o, i).

    >>> shape_of(nn.Linear(2, 3)), shape_of(Conv1D(nf=3, nx=2))
    ((3, 2), (3, 2))
    """
    return (layer.nf, layer.nx) if isinstance(layer, Conv1D) else (layer.out_features, layer.in_features)


def matrix_of(layer: nn.Module) -> Tensor:
    """Return a layer's weight as a matrix (o, i); of a `Conv1D` a view, so that what is added to it is added there.

    >>> matrix_of(Conv1D(nf=3, nx=2)).shape
    torch.Size([3, 2])
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(layer, Conv1D) else weight
