"""Lets a rule for blocks of steps see what is trained as one vector, and move it when a block is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from everlora.core.roles import BlockStep, State, StepRule


@dataclass
class BlockRunner:
    """Runs the blocks of one task.

    Attributes:
        rule: what looks and moves.
        turns: the steps of one epoch.
        params: what is trained, but for a classification head.
        state: what the rule remembers of the block that it is in.
    """

    rule: StepRule
    turns: Sequence[BlockStep]
    params: Sequence[Tensor]
    state: State = field(default_factory=dict)

    def before(self, step: int) -> None:
        """Prepare for step number ``step``, from 0; the gradient is that of the task, without penalties."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        self.state = self.rule.before(self._turn(step), _flat(self.params), _flat(gradients), self.state)

    def after(self, step: int, *, last: bool) -> None:
        """Close the block that ends with the step just taken; one cut short only if it rehearsed rows."""
        turn = self._turn(step)
        if not (turn.closes or (last and turn.rehearsed)):
            return
        weights = self.rule.after(_flat(self.params), self.state)
        at = 0
        for p in self.params:
            # In place: the optimiser's moments belong to this tensor and go on with it.
            p.copy_(weights[at : at + p.numel()].view_as(p))
            at += p.numel()

    def _turn(self, step: int) -> BlockStep:
        return self.turns[step % len(self.turns)]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])
