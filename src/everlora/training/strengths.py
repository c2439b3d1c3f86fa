"""Finds the strength of a penalty while a task is trained: from gradients, or from what earlier tasks lose."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from everlora.core.roles import AutoStrength, Budget, PredictsRise, Strength, WeightPenalty

NOTHING = 1e-30
"""A penalty's gradient of at most this norm is none: divided by it, λ would become infinite in fp32."""
ASCENT = 0.02
"""η, the step of the dual ascent on a budget."""
OVERDRAWN = 4.0
"""The excess over a budget counts for at most this much in one step, so that one bad step does not stop learning."""


@dataclass
class StrengthController:
    """Holds the strength of one penalty as it is now.

    Attributes:
        strength: the number, or what finds it.
        predicts: whether the penalty itself predicts what a budget holds down.
        task, penalty: sums over the steps so far of the norms of the task's gradient and of the penalty's at strength
            1; scalars, or (L,) where every module finds its own.
        price: μ, the multiplier of a budget.
        allowed: nats that all earlier tasks together may lose, as far as they are predicted to.
    """

    strength: Strength
    predicts: bool = False
    task: Tensor = field(default_factory=lambda: torch.zeros(()))
    penalty: Tensor = field(default_factory=lambda: torch.zeros(()))
    price: float = 0.0
    allowed: float = 0.0

    @classmethod
    def of(cls, part: WeightPenalty) -> StrengthController:
        """Make the controller of a part."""
        return cls(part.strength, predicts=isinstance(part, PredictsRise))

    def update(self, task: Tensor, penalty: Tensor) -> None:
        """Take note of one more step."""
        # Sums over the task so far: the ratio of two single steps would jump with every batch.
        self.task, self.penalty = self.task + task, self.penalty + penalty

    def spend(self, predicted: float, tasks: int) -> None:
        """Take note of what the earlier tasks are predicted to lose, in nats per row, summed over them."""
        if isinstance(self.strength, Budget):
            self.allowed = self.strength.nats * tasks
            excess = min(predicted / self.allowed - 1, OVERDRAWN)
            # Never below 0: where less is lost than allowed, a negative price would reward forgetting.
            self.price = max(0.0, self.price + ASCENT * excess)

    @property
    def found(self) -> bool:
        """Return whether this strength is found and not given."""
        return isinstance(self.strength, AutoStrength | Budget)

    @property
    def lam(self) -> Tensor:
        """Return λ now; 0 as long as the penalty has no gradient."""
        if isinstance(self.strength, Budget):
            if self.predicts:
                return torch.full_like(self.penalty, self.price / self.allowed if self.allowed else 0.0)
            share = self.price
        elif isinstance(self.strength, AutoStrength):
            share = self.strength.rho
        else:
            return torch.full_like(self.penalty, self.strength)
        pulls = self.penalty > NOTHING
        # Both sides of `where` are computed, so the denominator is made harmless where nothing pulls.
        return torch.where(pulls, share * self.task / torch.where(pulls, self.penalty, 1), 0)


def acting(penalties: tuple[WeightPenalty, ...]) -> list[WeightPenalty]:
    """Return those penalties that are not switched off, and those that predict for the budget of another."""
    # Left out, not multiplied by 0: a method at strength 0 is the method without its penalty, bit for bit.
    held = any(isinstance(part.strength, Budget) for part in penalties)
    off = (0, AutoStrength(rho=0))
    return [p for p in penalties if p.strength not in off or (held and isinstance(p, PredictsRise))]
