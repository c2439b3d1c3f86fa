"""What stands below an adapter at one module: the past, folded into the weight or beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from everlora.adapters.base import PastAs
from everlora.core.errors import ModelError
from everlora.core.roles import Merge
from everlora.core.updates import LowRank, concatenate
from everlora.runtime.precision import keep_fp32

MERGED = 1 << 30
"""More updates than any past has: after a merge, the sum starts from the pristine weight."""


@dataclass
class FoldedBase:
    """What stands below the adapter at one module."""

    layer: nn.Module
    fold: bool
    n_folded: int = 0
    original: Tensor | None = None
    factors: LowRank | None = None
    dense: Tensor | None = None
    """The merged past, where it cannot be folded: it is full rank."""

    @classmethod
    def of(cls, layer: nn.Module, past_as: PastAs) -> FoldedBase:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        foldable = (
            isinstance(layer, nn.Linear) and type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point()
        )
        if past_as == "fold" and not foldable:
            raise ModelError("these weights are quantised, so the past cannot be folded into them; use past=factors")
        below = cls(layer=layer, fold=foldable and past_as != "factors")
        if below.fold:
            assert isinstance(layer, nn.Linear)
            keep_fp32(layer)
        else:
            layer.register_forward_hook(below._add)
        return below

    def _add(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if self.dense is not None:
            return (out + linear(args[0].to(self.dense.dtype), self.dense)).to(out.dtype)
        if self.factors is None:
            return out
        x = args[0].to(self.factors.A.dtype)
        return (out + linear(linear(x, self.factors.A), self.factors.B)).to(out.dtype)

    @torch.no_grad()
    def set_past(self, deltas: list[LowRank], merge: Merge | None = None) -> None:
        """Carry the sum of ``deltas``, or their merge; what is not the sum so far starts from the pristine weight."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        merged = merge.merge(d.dense() for d in deltas).to(weight.device) if merge and len(deltas) > 1 else None
        if not self.fold:
            whole = concatenate(deltas) if deltas and merged is None else None
            self.factors = whole and LowRank(whole.A.to(weight.device), whole.B.to(weight.device))
            self.dense = merged
            return
        if self.original is None and deltas:
            self.original = weight.detach().clone()
        if merged is not None:
            assert self.original is not None
            weight.copy_(self.original + merged)
            self.n_folded = MERGED
            return
        if len(deltas) < self.n_folded and self.original is not None:
            weight.copy_(self.original)
            self.n_folded = 0
        for delta in deltas[self.n_folded :]:
            weight.add_(delta.dense().to(weight.device))
        self.n_folded = len(deltas)
