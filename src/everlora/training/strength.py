"""How strong a penalty is: a number that was given, or one that is found while a task is learned."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from everlora.core.roles import AutoStrength, State, Strength

NOTHING = 1e-30
"""A penalty's gradient of at most this norm is none: divided by it, λ would become infinite in fp32."""


@dataclass
class StrengthController:
    """The strength of one penalty as it is now.

    Attributes:
        strength: the number, or the `AutoStrength` that finds it.
        task, pull: sums over the steps so far of the norms of the task's gradient and of the penalty's at strength
            1; scalars, or (L,) where every module finds its own.
    """

    strength: Strength
    task: Tensor = field(default_factory=lambda: torch.zeros(()))
    penalty: Tensor = field(default_factory=lambda: torch.zeros(()))

    def update(self, task: Tensor, pull: Tensor) -> None:
        """Take note of one more step."""
        self.task, self.penalty = self.task + task, self.penalty + pull

    @property
    def found(self) -> bool:
        """Whether this strength was found and not given."""
        return isinstance(self.strength, AutoStrength)

    @property
    def lam(self) -> Tensor:
        """λ now; 0 as long as the penalty has no gradient."""
        if not isinstance(self.strength, AutoStrength):
            return torch.full_like(self.penalty, self.strength)
        pulls = self.penalty > NOTHING
        return torch.where(pulls, self.strength.rho * self.task / torch.where(pulls, self.penalty, 1), 0)


def scaled(gradient: State, lam: Tensor) -> State:
    """λ times stacked gradients; λ a scalar or (L,)."""
    return {name: g * lam.to(g.device, g.dtype).view(-1, *[1] * (g.ndim - 1)) for name, g in gradient.items()}


def added(a: State, b: State) -> State:
    """The sum of two gradients of the same tensors."""
    return {name: g + b[name] for name, g in a.items()}


def norms(gradient: State) -> Tensor:
    """Norms (L,) of stacked gradients, all tensors of a place together."""
    squares = [g.float().square().flatten(1).sum(1) for g in gradient.values()]
    return torch.stack(squares).sum(0).sqrt()
