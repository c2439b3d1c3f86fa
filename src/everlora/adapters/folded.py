"""Puts earlier tasks' updates below an adapter, at one module: folded into its weight, or as a term of its output.

Folding makes a step cost the same at every task, and is exact: W = W0 + ΔW_1 + … is one matrix in fp32, also in a bf16
model. With ``fold-bf16`` it is two in bf16, W rounded and what rounding lost: off by at most 2⁻¹⁷ of each entry, and
as large, but multiplied in bf16. Quantised weights cannot take a small update, so there the past is one frozen
low-rank term, (o, R) times (R, i), in a forward hook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from everlora.adapters.base import PastAs
from everlora.core.errors import ModelError
from everlora.core.updates import LowRank, concatenate
from everlora.models.layers import is_linear, matrix_of
from everlora.runtime.precision import keep_fp32

MERGED = 1 << 30
"""Counts as more updates than any past has: after a merge, a sum starts again from the original weight."""


@dataclass
class FoldedBase:
    """Is the base layer of one adapted module, with earlier updates folded in or added.

    Attributes:
        layer: the base layer, whose weight is the matrix (o, i).
        fold: whether updates are added to its weight.
        split: whether the weight stays in bf16, and what rounding the sum loses is a second matrix.
        n_folded: updates in the weight now.
        original: the matrix before the first update was folded in, on the CPU, in the type in which it was loaded;
            None while there is none.
        rest: what the weight has lost by rounding, (o, i), in its type; None while nothing is folded in.
        summed: the weight before a merge took its place, and of how many updates; None where it is not needed.
        factors: the sum of the updates as one frozen low-rank term, where they are not folded.
        dense: their merge (o, i), where they are not folded: a merge has full rank.
        loaded: the type in which the weight was loaded.
    """

    layer: nn.Module
    fold: bool
    split: bool = False
    n_folded: int = 0
    original: Tensor | None = None
    summed: tuple[Tensor, int] | None = None
    rest: Tensor | None = None
    factors: LowRank | None = None
    dense: Tensor | None = None
    loaded: torch.dtype = torch.float32

    @classmethod
    def of(cls, layer: nn.Module, past_as: PastAs) -> FoldedBase:
        """Prepare a layer for earlier updates.

        Raises:
            ModelError: ``past_as`` folds and the weight is quantised, or is to be in bf16 and is not.
        """
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # Libraries keep quantised weights in subclasses of Parameter or in integers: neither can be added to.
        foldable = is_linear(layer) and type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point()
        split = past_as == "fold-bf16"
        if (past_as == "fold" or split) and not foldable:
            raise ModelError("these weights are quantised, so the past cannot be folded into them; use past=factors")
        if split and weight.dtype != torch.bfloat16:
            kind = str(weight.dtype).removeprefix("torch.")
            raise ModelError(
                f"past=fold-bf16 is for bf16 weights, and these are {kind}; use past=fold, or dtype=bfloat16"
            )
        below = cls(layer=layer, fold=foldable and past_as != "factors", split=split, loaded=weight.dtype)
        if below.fold and not split:
            # In bf16 an update of 1e-4 on a weight of 0.05 would mostly be rounded away.
            keep_fp32(layer)
        else:
            # A hook and no wrapper: PEFT and transformers look for the layer by its class and its name.
            layer.register_forward_hook(below._add)
        return below

    def _add(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if self.rest is not None:
            return out + linear(args[0], self.rest)
        if self.dense is not None:
            return (out + linear(args[0].to(self.dense.dtype), self.dense)).to(out.dtype)
        if self.factors is None:
            return out
        # In the factors' fp32, and rounded to the layer's type once, at the end.
        x = args[0].to(self.factors.A.dtype)
        return (out + linear(linear(x, self.factors.A), self.factors.B)).to(out.dtype)

    @torch.no_grad()
    def set_past(self, deltas: list[LowRank], merged: Tensor | None = None, *, sum_again: bool = False) -> None:
        """Let the layer compute with W0 plus the sum of ``deltas``, oldest first, or plus what they are merged into.

        Only what is new is added, in order, so that the floating-point sum is the same whether a run went through or
        was resumed. A shorter past, or a sum after a merge, starts again from the original weight: subtracting an
        update would not give back the same bits.

        Args:
            deltas: the updates.
            merged: what they are merged into, (o, i); None for their sum.
            sum_again: the sum will be needed after this merge, so that it is held and not made again.
        """
        weight = matrix_of(self.layer) if self.fold else self.layer.weight
        assert isinstance(weight, Tensor)
        if not self.fold:
            joined = concatenate(deltas) if deltas and merged is None else None
            self.factors = joined and LowRank(joined.A.to(weight.device), joined.B.to(weight.device))
            self.dense = None if merged is None else merged.to(weight.device)
            return
        # Only now: a run without a past holds no second copy of the weight. It is needed once a task, so no device has
        # to hold it, and what was loaded in bf16 is one exactly.
        if self.original is None and deltas:
            self.original = weight.detach().to("cpu", self.loaded, copy=True)
        if self.split:
            self._split(weight, deltas, merged)
            return
        if merged is not None:
            assert self.original is not None
            if sum_again and self.n_folded != MERGED:
                self.summed = weight.detach().cpu().clone(), self.n_folded
            torch.add(self.original.to(weight.device), merged.to(weight.device), out=weight)
            self.n_folded = MERGED
            return
        if len(deltas) < self.n_folded and self.original is not None:
            start, self.n_folded = self.summed or (self.original, 0)
            if len(deltas) < self.n_folded:
                start, self.n_folded = self.original, 0
            weight.copy_(start)
            self.summed = None
        for delta in deltas[self.n_folded :]:
            weight.add_(delta.dense().to(weight.device))
        self.n_folded = len(deltas)

    def _split(self, weight: Tensor, deltas: list[LowRank], merged: Tensor | None) -> None:
        """Make the weight the sum, rounded, and keep what that has lost."""
        if self.original is None:
            return
        if not deltas:
            weight.copy_(self.original)
            self.rest = None
            return
        # From the original and all updates each time: sums of rounded sums would drift with every task.
        added = concatenate(deltas).dense().to(weight.device) if merged is None else merged.to(weight.device)
        total = self.original.to(weight.device).float() + added
        weight.copy_(total)
        self.rest = (total - weight.float()).to(weight.dtype)
