"""Stores a symmetric matrix without negative eigenvalues, a factor of a curvature, from task to task.

    full        as it is, in fp32                                                    4 n²
    low-rank    its k largest eigenvectors, each times the root of its eigenvalue     4 k n + 4
    diagonal    the same, and the diagonal of what they leave: the trace stays exact  4 (k + 1) n + 4
    int8        a triangular root in 127 steps either way, each row of its own size   n² + 4 n + 4

Of a root whatever is rounded makes a matrix without negative eigenvalues. A factor that is rounded itself has some,
and along these an update would be rewarded.

All but ``full`` record ‖M − M̂‖_F of every time that they were rounded, summed, as ``error``; by the triangle
inequality it bounds the error of the running sum.

For ``low-rank`` and ``diagonal`` a wide factor is never made as the matrix that it is: it is summed in the columns of
a root, M = root rootᵀ. Whenever they are full, the largest directions stay, what the others have on the diagonal is
held exactly, and the norm of the rest, rounding to fp32 aside, is added to ``error``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from everlora.core.errors import TrainingError
from everlora.core.roles import State, SymmetricRoot
from everlora.core.updates import precise

FactorStore = Literal["full", "low-rank", "diagonal", "int8"]
STEPS = 127
WIDE = 1024
"""Up to this width a factor is summed as the matrix that it is: 4 MB, decomposed in a fraction of a second."""
COLUMNS = 8
"""Columns of a wide factor's root while it is summed, for each that is stored."""


def root_columns(store: FactorStore, n: int, rank: int) -> int | None:
    """Return in how many columns a factor (n, n) is summed; None where it is summed as the matrix that it is.

    >>> root_columns("diagonal", 11008, 32), root_columns("diagonal", 768, 32), root_columns("full", 11008, 32)
    (256, None, None)
    """
    columns = COLUMNS * rank
    return columns if store in ("low-rank", "diagonal") and n > max(columns, WIDE) else None


def nothing(n: int, columns: int | None) -> Tensor | SymmetricRoot:
    """Return a factor (n, n) of zeros, which is to be summed in so many columns."""
    if columns is None:
        return torch.zeros(n, n)
    return SymmetricRoot(root=torch.zeros(n, 0), diagonal=torch.zeros(n), error=torch.zeros(()))


def plus(factor: Tensor | SymmetricRoot, kept: State) -> Tensor | SymmetricRoot:
    """Return a factor and one that is stored, summed; the error of what is stored is not counted."""
    if isinstance(factor, Tensor):
        return factor + decode(kept)
    diagonal = factor.diagonal + kept["diagonal"] if "diagonal" in kept else factor.diagonal
    return replace(factor, root=torch.cat([factor.root, kept["root"]], 1), diagonal=diagonal)


def append(factor: SymmetricRoot, more: Tensor, columns: int) -> SymmetricRoot:
    """Return M + more moreᵀ, ``more`` (n, m), in at most so many columns; half of them stay whenever they are full."""
    while more.shape[1]:
        if factor.root.shape[1] == columns:
            factor = compress(factor, columns // 2)
        fits = columns - factor.root.shape[1]
        factor = replace(factor, root=torch.cat([factor.root, more[:, :fits]], 1))
        more = more[:, fits:]
    return factor


def compress(factor: SymmetricRoot, columns: int) -> SymmetricRoot:
    """Return the best root of so many columns, and on the diagonal what it leaves there.

    Of the rest, which has no diagonal, the norm is added to ``error``.
    """
    if factor.root.shape[1] <= columns:
        return factor
    root = precise(factor.root)
    # With V of the small matrix rootᵀ root = V Λ Vᵀ, the columns of root V are those of M, each of length √λ.
    values, vectors = torch.linalg.eigh(root.mT @ root)
    lost = root.shape[1] - columns
    largest = root @ vectors[:, lost:]
    diagonal = (root.square().sum(1) - largest.square().sum(1)).clamp_min(0)
    rest = values[:lost].square().sum() - diagonal.square().sum()
    return SymmetricRoot(
        root=largest.to(factor.root.dtype),
        diagonal=factor.diagonal + diagonal.to(factor.diagonal.dtype),
        error=factor.error + rest.clamp_min(0).sqrt().to(factor.error.dtype),
    )


def encode(matrix: Tensor | SymmetricRoot, store: FactorStore, rank: int) -> State:
    """Return what is stored of a factor (n, n), of which ``low-rank`` and ``diagonal`` may be given a root.

    >>> sorted(encode(torch.eye(3), "low-rank", rank=2))
    ['error', 'root']
    >>> float(encode(torch.eye(3), "low-rank", rank=2)["error"])
    1.0
    """
    if isinstance(matrix, SymmetricRoot):
        one = compress(matrix, rank)
        kept = {"root": pad(one.root.float(), (0, rank - one.root.shape[1]))}
        if store == "diagonal":
            return {**kept, "diagonal": one.diagonal, "error": one.error.reshape(1)}
        # The diagonal is known, and at right angles to the rest, which has none.
        return {**kept, "error": torch.hypot(one.error, one.diagonal.norm()).reshape(1)}
    if store == "full":
        return {"full": matrix.float()}
    exact = precise(matrix)
    if store == "int8":
        kept = _rounded(_triangle(exact), exact.diagonal())
    else:
        values, vectors = torch.linalg.eigh(exact)
        k = min(rank, len(values))
        # Rounding may leave an eigenvalue of 0 a little below it.
        root = vectors[:, -k:] * values[-k:].clamp_min(0).sqrt()
        kept = {"root": root.float().contiguous()}
        if store == "diagonal":
            left = exact.diagonal() - root.square().sum(1)
            kept["diagonal"] = left.clamp_min(0).float()
    return {**kept, "error": (exact - precise(decode(kept))).norm().float().reshape(1)}


def _triangle(matrix: Tensor) -> Tensor:
    """Return the lower triangular root of a matrix (n, n), lifted by what rounding to fp32 may have taken from it.

    Raises:
        TrainingError: there is none, since the matrix is not finite.
    """
    lift = matrix.trace() * torch.finfo(torch.float32).eps + torch.finfo(matrix.dtype).tiny
    for power in range(5):
        root, failed = torch.linalg.cholesky_ex(matrix + torch.eye(len(matrix), dtype=matrix.dtype) * lift * 10**power)
        if not failed:
            return root
    raise TrainingError("the curvature that was measured is not finite; lower --learning-rate")


def _rounded(root: Tensor, diagonal: Tensor) -> State:
    """Return a root (n, n) in steps of int8, of each row its own, so that the matrix has this diagonal (n,)."""
    rows = (root / root.abs().amax(1, keepdim=True).clamp_min(torch.finfo(root.dtype).tiny) * STEPS).round()
    # Rows keep their lengths: what rounding adds to the diagonal would else grow from task to task.
    step = diagonal.clamp_min(0).sqrt() / rows.norm(dim=1).clamp_min(1)
    return {"root8": rows.to(torch.int8), "step": step.unsqueeze(1).float()}


def decode(kept: State) -> Tensor:
    """Return the factor that is stored, dense, (..., n, n), fp32."""
    if "full" in kept:
        return kept["full"]
    if "int8" in kept:  # the factor itself, rounded row by row, as the first version stored it
        rounded = kept["int8"].float() * kept["step"]
        return (rounded + rounded.mT) / 2
    root = _root(kept)
    dense = root @ root.mT
    return dense + torch.diag_embed(kept["diagonal"]) if "diagonal" in kept else dense


def norm(kept: State) -> float:
    """Return ‖M̂‖_F of the factor that is stored, without a dense matrix where none is.

    >>> round(norm(encode(torch.diag(torch.tensor([3.0, 4.0])), "diagonal", rank=1)), 4)
    5.0
    """
    if "full" in kept or "int8" in kept:
        return float(precise(decode(kept)).norm())
    root = precise(_root({key: precise(t) if t.is_floating_point() else t for key, t in kept.items()}))
    square = (root.mT @ root).square().sum()
    if "diagonal" in kept:
        diagonal = precise(kept["diagonal"])
        square = square + 2 * diagonal @ root.square().sum(1) + diagonal.square().sum()
    return float(square.sqrt())


def times(kept: State, columns: Tensor) -> Tensor:
    """Return the factor times columns, (..., n, k), without a dense matrix where none is stored."""
    if "full" in kept or "int8" in kept:
        return decode(kept).to(columns.dtype) @ columns
    kept = {key: tensor.to(columns.dtype) for key, tensor in kept.items()}
    root = _root(kept)
    # From the right, so that no product of shape (n, n) is made.
    out = root @ (root.mT @ columns)
    return out + kept["diagonal"].unsqueeze(-1) * columns if "diagonal" in kept else out


def _root(kept: State) -> Tensor:
    """Return the root that is stored, (..., n, k), in the type of its numbers that are no steps."""
    return kept["root"] if "root" in kept else kept["root8"].to(kept["step"].dtype) * kept["step"]


def size(store: FactorStore, n: int, rank: int) -> int:
    """Return how many bytes one factor (n, n) takes."""
    k = min(rank, n)
    return {"full": 4 * n * n, "low-rank": 4 * k * n + 4, "diagonal": 4 * (k + 1) * n + 4, "int8": n * n + 4 * n + 4}[
        store
    ]
