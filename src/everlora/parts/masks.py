"""Masks gradients: rows that answer little to the new task stay as they are.

The functions first, the part that carries its settings second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import ActivationSource, GradientTransform, Needs, NeedsActivations, State, TaskContext


def dropped(n: int, tau: float) -> int:
    """Return how many of ``n`` distinct values are below their τ-quantile (linear interpolation): ⌈τ (n − 1)⌉."""
    return math.ceil(tau * (n - 1) - 1e-9)  # 0.7 * 10 is 7.000…1 in some roundings


def strongest(size: Tensor, tau: float) -> Tensor:
    """Return 1 where a row's magnitude is at least the τ-quantile of all, else 0; (..., n) to the same shape.

    Of distinct values n − ⌈τ (n − 1)⌉ are kept: the quantile lies between the last one dropped and the first one kept,
    so that one needs no interpolation to compare with it. Equal values stay or go together.

    >>> strongest(torch.tensor([1.0, 4.0, 2.0, 3.0]), tau=0.5)
    tensor([0., 1., 0., 1.])
    """
    edge = size.sort(dim=-1).values[..., dropped(size.shape[-1], tau), None]
    return (size >= edge).float()


@dataclass(frozen=True, kw_only=True)
class MagnitudeMask(GradientTransform, NeedsActivations):
    """Masks as MIGU does: rows whose outputs are below the τ-quantile get no gradient, and no step.

    Attributes:
        tau: τ, the share of rows that is masked; 0 switches the part off.
        outputs: whose magnitude counts for B, the layer's or the update's; or random rows, as a control.
        mask_update: mask the step as well; Adam's momentum moves a row without a gradient on.
    """

    name: ClassVar[str] = "magnitude_mask"
    needs: ClassVar[Needs] = Needs(any_form=True, order=0)
    tau: float = 0.7
    outputs: ActivationSource = "combined"
    mask_update: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1:
            raise ConfigError(f"tau is the share of rows that are masked, from 0 to 1, not {self.tau}")

    @property
    def acts_on(self) -> Literal["gradient", "update", "both"]:
        return "both" if self.mask_update else "gradient"

    @property
    def probe(self) -> ActivationSource:
        return self.outputs

    def prepare(self, before: TaskContext) -> State | None:
        """Return None on the first task, when there is nothing to protect."""
        return None if self.tau == 0 or (not before.updates and before.start is None) else {}

    @torch.no_grad()
    def look(self, magnitudes: State, state: State) -> State:
        """Return masks by live tensor, (L, n, 1). A triplet's σ goes with its row of A."""
        masks = {key: strongest(size, self.tau).unsqueeze(-1) for key, size in magnitudes.items()}
        return {**masks, "sigma": masks["A"]} if "A" in masks else masks

    def shape(self, gradient: State, state: State) -> State:
        return {key: change * state[key] if key in state else change for key, change in gradient.items()}
