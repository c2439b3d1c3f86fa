"""The penalty from Gram matrices of row-wise Khatri-Rao products: another road to it, without ΔW or W_past.

(B A) ⊙ (P Q) = C Dᵀ with C = B ∗ P and D = Aᵀ ∗ Qᵀ, so ‖ΔW ⊙ W_past‖² = s² ⟨CᵀC, DᵀD⟩.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from everlora.parts.penalties import energy_overlap


def rows(X: Tensor, Y: Tensor) -> Tensor:
    """Row-wise Khatri-Rao product: (n, a) and (n, b) to (n, a·b)."""
    return (X[:, :, None] * Y[:, None, :]).flatten(1)


def from_grams(B: Tensor, A: Tensor, s: float, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and gradients for A and B, from matrices of size (r R, r R)."""
    C, D = rows(B, P), rows(A.mT, Q.mT)
    H, M = C.mT @ C, D.mT @ D
    on_B = ((C @ M).view(len(B), B.shape[1], -1) * P[:, None, :]).sum(-1)
    on_A = ((D @ H).view(A.shape[1], A.shape[0], -1) * Q.mT[:, None, :]).sum(-1).mT
    return s**2 * (H * M).sum(), 2 * s**2 * on_A, 2 * s**2 * on_B


@pytest.mark.parametrize(("d", "k", "r", "R"), [(5, 7, 2, 3), (11, 6, 3, 4), (64, 48, 4, 12)])
@pytest.mark.parametrize("s", [1.0, 4.0])
def test_dense_and_grams_agree(d: int, k: int, r: int, R: int, s: float) -> None:
    draw = torch.Generator().manual_seed(d + k)
    A, B, P, Q = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((r, k), (d, r), (d, R), (R, k))
    )
    dense = energy_overlap(A, B, s, (P @ Q).square())
    for one, other in zip(dense, from_grams(B, A, s, P, Q), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_example_by_hand() -> None:
    """P = 1, Q = W_past: CᵀC = diag(1, 4), DᵀD = [[1, .5], [.5, 1.25]], 1 · 1 + 4 · 1.25 = 6."""
    B, A = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, -1.0]])
    P, Q = torch.eye(2), torch.tensor([[1.0, 0.0], [0.5, -1.0]])
    C, D = rows(B, P), rows(A.mT, Q.mT)
    assert (C.mT @ C).tolist() == [[1, 0], [0, 4]]
    assert (D.mT @ D).tolist() == [[1, 0.5], [0.5, 1.25]]
    assert float(from_grams(B, A, 1.0, P, Q)[0]) == 6
