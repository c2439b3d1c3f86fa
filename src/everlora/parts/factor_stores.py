"""Stores a symmetric matrix without negative eigenvalues, a factor of a curvature, from task to task.

    full        as it is, in fp32                                                    4 n²
    low-rank    its k largest eigenvectors, each times the root of its eigenvalue     4 k n + 4
    diagonal    the same, and the diagonal of what they leave: the trace stays exact  4 (k + 1) n + 4
    int8        127 steps on either side of 0 per row, scaled by the row's maximum    n² + 4 n + 4

All but ``full`` record ‖M − M̂‖_F of every time that they were rounded, summed, as ``error``; by the triangle
inequality it bounds the error of the running sum.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from everlora.core.roles import State
from everlora.core.updates import precise

FactorStore = Literal["full", "low-rank", "diagonal", "int8"]
STEPS = 127


def encode(matrix: Tensor, store: FactorStore, rank: int) -> State:
    """Return what is stored of a factor (n, n).

    >>> sorted(encode(torch.eye(3), "low-rank", rank=2))
    ['error', 'root']
    >>> float(encode(torch.eye(3), "low-rank", rank=2)["error"])
    1.0
    """
    if store == "full":
        return {"full": matrix.float()}
    if store == "int8":
        # A step per row: one for all would round the rows of quiet features to 0.
        step = (matrix.abs().amax(1, keepdim=True) / STEPS).clamp_min(torch.finfo(torch.float32).tiny)
        kept: State = {"int8": (matrix / step).round().to(torch.int8), "step": step.float()}
    else:
        values, vectors = torch.linalg.eigh(precise(matrix))
        k = min(rank, len(values))
        # Rounding may leave an eigenvalue of 0 a little below it.
        root = vectors[:, -k:] * values[-k:].clamp_min(0).sqrt()
        kept = {"root": root.float().contiguous()}
        if store == "diagonal":
            left = precise(matrix).diagonal() - root.square().sum(1)
            kept["diagonal"] = left.clamp_min(0).float()
    return {**kept, "error": (precise(matrix) - precise(decode(kept))).norm().float().reshape(1)}


def decode(kept: State) -> Tensor:
    """Return the factor that is stored, dense, (..., n, n), fp32."""
    if "full" in kept:
        return kept["full"]
    if "int8" in kept:
        rounded = kept["int8"].float() * kept["step"]
        # Rounded row by row it is no longer symmetric, and the gradient would not be that of the value.
        return (rounded + rounded.mT) / 2
    dense = kept["root"] @ kept["root"].mT
    return dense + torch.diag_embed(kept["diagonal"]) if "diagonal" in kept else dense


def times(kept: State, columns: Tensor) -> Tensor:
    """Return the factor times columns, (..., n, k), without a dense matrix where none is stored."""
    kept = {key: tensor.to(columns.dtype) if tensor.is_floating_point() else tensor for key, tensor in kept.items()}
    if "root" not in kept:
        return decode(kept).to(columns.dtype) @ columns
    # From the right, so that no product of shape (n, n) is made.
    out = kept["root"] @ (kept["root"].mT @ columns)
    return out + kept["diagonal"].unsqueeze(-1) * columns if "diagonal" in kept else out


def size(store: FactorStore, n: int, rank: int) -> int:
    """Return how many bytes one factor (n, n) takes."""
    k = min(rank, n)
    return {"full": 4 * n * n, "low-rank": 4 * k * n + 4, "diagonal": 4 * (k + 1) * n + 4, "int8": n * n + 4 * n + 4}[
        store
    ]
