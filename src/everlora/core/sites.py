"""Low-rank updates of weights, alone or stacked.

Letters for shapes everywhere: ``o`` out, ``i`` in, ``r`` rank of one task, ``R`` rank of all past tasks together,
``L`` modules of one shape stacked into one tensor, so that a penalty is one launch and not one per module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """An update ΔW = scale · B A of one weight, or of ``L`` weights of one shape.

    Attributes:
        A: down-projection, (r, i) or (L, r, i).
        B: up-projection, (o, r) or (L, o, r).
        scale: PEFT's ``scaling`` (alpha / r); always part of ΔW here.
    """

    A: Tensor
    B: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return int(self.A.shape[-2])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (o, i) of the weight that is updated."""
        return int(self.B.shape[-2]), int(self.A.shape[-1])

    @property
    def numel(self) -> int:
        return self.A.numel() + self.B.numel()

    def dense(self) -> Tensor:
        """ΔW in fp32, (o, i) or (L, o, i)."""
        return self.scale * (self.B.float() @ self.A.float())

    def absorb_scale(self) -> LowRank:
        """The same update with scale 1; B carries it."""
        return LowRank(self.A.float(), self.B.float() * self.scale)

    def norm(self) -> Tensor:
        """‖ΔW‖_F, () or (L,), from the factors: √⟨BᵀB, AAᵀ⟩, without a matrix of shape (o, i)."""
        A, B = precise(self.A), precise(self.B)
        return (self.scale**2 * ((B.mT @ B) * (A @ A.mT)).sum((-2, -1))).clamp_min(0).sqrt().float()


def precise(tensor: Tensor) -> Tensor:
    """The tensor in fp64, or in fp32 on devices that have no fp64 (Apple's)."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


Sites = Mapping[str, LowRank]
"""One update per adapted module, by the module's path in the base model."""


def concatenate(updates: Sequence[LowRank]) -> LowRank:
    """Return the sum of ``updates`` as one update of rank Σ r with scale 1.

    [s₁B₁ … s_tB_t][A₁; …; A_t] is exact; (ΣB)(ΣA) is not, its cross terms belong to no task.
    """
    whole = [update.absorb_scale() for update in updates]
    return LowRank(torch.cat([u.A for u in whole], dim=-2), torch.cat([u.B for u in whole], dim=-1))


def stack(sites: Sequence[LowRank]) -> LowRank:
    """Stack updates of one shape, rank and scale along a new first dimension ``L``."""
    if len({(s.A.shape, s.B.shape, s.scale) for s in sites}) != 1:
        raise ValueError("only updates of one shape, rank and scale can be stacked")
    return LowRank(torch.stack([s.A for s in sites]), torch.stack([s.B for s in sites]), sites[0].scale)


def groups(sites: Sites) -> list[tuple[str, ...]]:
    """Names of modules that share shape, rank and scale, in the order of their first appearance."""
    by_shape: dict[tuple[object, ...], list[str]] = {}
    for name, site in sites.items():
        by_shape.setdefault((site.A.shape, site.B.shape, site.scale), []).append(name)
    return [tuple(names) for names in by_shape.values()]
