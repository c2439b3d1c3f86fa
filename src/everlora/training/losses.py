"""Computes the loss of a batch: the mean cross entropy of a task's rows, and what methods add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlora.core.roles import OutputPenalty
from everlora.models.families import Family
from everlora.models.families.base import IGNORE, Batch
from everlora.training.teacher import Teacher


def token_mean(logits: Tensor, targets: Tensor, total: Tensor | int, weights: Tensor | None = None) -> Tensor:
    """Sum the cross entropy over the local positions, (n, v) and (n,), and divide by their number in the global batch.

    ``weights`` (n,) multiply it first.
    """
    # Logits in fp32: bf16 has eight bits, and a logarithm of a sum over a vocabulary loses its small terms.
    if weights is not None:
        return (cross_entropy(logits.float(), targets, reduction="none") * weights).sum() / total
    return cross_entropy(logits.float(), targets, reduction="sum") / total


@dataclass(kw_only=True)
class ExtraLosses:
    """Adds terms to the task's own loss.

    Attributes:
        outputs: penalties that compare answers with those given when the task began.
        side: a term that belongs to the trained form itself, one value per row of the latest batch (b,), or None.
        teacher: the model as it was then; None where nothing was learned before.
    """

    outputs: Sequence[OutputPenalty] = ()
    side: Callable[[], Tensor | None] | None = None
    teacher: Teacher | None = None

    def loss(
        self,
        model: nn.Module,
        family: Family,
        batch: Batch,
        logits: Tensor,
        marks: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Sum the terms over the positions that carry loss, ().

        ``logits`` (n, u) are those to compare, ``marks`` (b,) tell rehearsed rows, ``weights`` (n,) are those of the
        task's loss, if it has any.
        """
        # A sum, like the task's: whoever calls divides both by the one number of positions in the global batch.
        total, rows = logits.new_zeros(()), rows_of(batch["labels"])
        side = None if self.side is None else self.side()
        if side is not None:
            total = total + side[rows].sum()
        if self.teacher is None or not self.outputs or not logits.shape[-1]:  # no label was known before
            return total
        # The hooks of a form run here, too, so the form's own term was taken before.
        old = self.teacher.logits(model, family, batch)
        rehearsed = torch.zeros_like(rows, dtype=torch.bool) if marks is None else marks[rows]
        for part in self.outputs:
            here = rehearsed if part.on == "rehearsed" else ~rehearsed
            if here.any():
                each = part.per_position(logits[here].float(), old[here].float())
                total = total + part.strength * (each if weights is None else each * weights[here]).sum()
        return total


def rows_of(labels: Tensor) -> Tensor:
    """Find the row of each position that carries loss, (n,): labels are (b, s), or (b,) where a head answers."""
    if labels.ndim == 1:
        return torch.arange(len(labels), device=labels.device)
    return (labels != IGNORE).nonzero()[:, 0]
