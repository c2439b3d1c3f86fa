"""How strong a penalty is: a number that was given, or one that is found while a task is learned."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from everlora.core.roles import Pull, Share, Strength
from everlora.core.sites import LowRank

NOTHING = 1e-30
"""A penalty's gradient of at most this norm is none: divided by it, λ would become infinite in fp32."""


@dataclass
class Dial:
    """The strength of one penalty as it is now.

    Attributes:
        strength: the number, or the `Share` that finds it.
        task, pull: sums over the steps so far of the norms of the task's gradient and of the penalty's at strength
            1; scalars, or (L,) where every module finds its own.
    """

    strength: Strength
    task: Tensor = field(default_factory=lambda: torch.zeros(()))
    pull: Tensor = field(default_factory=lambda: torch.zeros(()))

    def turn(self, task: Tensor, pull: Tensor) -> None:
        """Take note of one more step."""
        self.task, self.pull = self.task + task, self.pull + pull

    @property
    def found(self) -> bool:
        """Whether this strength was found and not given."""
        return isinstance(self.strength, Share)

    @property
    def lam(self) -> Tensor:
        """λ now; 0 as long as the penalty has no gradient."""
        if not isinstance(self.strength, Share):
            return torch.full_like(self.pull, self.strength)
        pulls = self.pull > NOTHING
        return torch.where(pulls, self.strength.rho * self.task / torch.where(pulls, self.pull, 1), 0)


def scaled(pull: Pull, lam: Tensor) -> LowRank:
    """λ times the gradients of a pull; λ a scalar or (L,)."""
    lam = lam.to(pull.A.device, pull.A.dtype)
    sigma = None if pull.sigma is None else pull.sigma * lam[..., None, None]
    return LowRank(pull.A * lam[..., None, None], pull.B * lam[..., None, None], 1.0, sigma)


def added(a: LowRank, b: LowRank) -> LowRank:
    """The sum of two gradients."""
    sigma = None if a.sigma is None or b.sigma is None else a.sigma + b.sigma
    return LowRank(a.A + b.A, a.B + b.B, 1.0, sigma)


def norms(gradient: LowRank | Pull) -> Tensor:
    """Norms (L,) of stacked gradients of A, B and, in SVD form, σ together."""
    squares = gradient.A.float().square().sum((-2, -1)) + gradient.B.float().square().sum((-2, -1))
    if gradient.sigma is not None:
        squares = squares + gradient.sigma.float().square().sum((-2, -1))
    return squares.sqrt()
