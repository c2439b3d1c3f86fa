"""Fuses what a block of steps learned of the new task and of the rehearsed rows, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from typing import ClassVar

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import BlockStep, Needs, State, StepRule


def smoothed(mean: Tensor, spread: Tensor, sensitivity: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Return Ī ← β1 Ī + (1−β1) I, then Ū ← β2 Ū + (1−β2) |I − Ī|, all (P,)."""
    mean = beta1 * mean + (1 - beta1) * sensitivity
    return mean, beta2 * spread + (1 - beta2) * (sensitivity - mean).abs()


def important(score: Tensor, quantile: float) -> Tensor:
    """Return where ``score`` (P,) exceeds its q-quantile over all weights, (P,) of bool.

    The order statistic below the quantile does as well as the quantile that is interpolated between two of them: no
    score lies strictly between these. Unlike `torch.quantile`, it takes more than 16 million weights.
    """
    rank = floor(quantile * (score.numel() - 1) + 1e-9)
    return score > score.kthvalue(rank + 1).values


def hard(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Return shares (P,) of the displacements, by whether new or rehearsed rows find a weight important (P,).

    (1, 0) if only new rows do, (0, 1) if only rehearsed ones do, (0.4, 0.6) if both do, (0.5, 0.5) if neither does.
    """
    new_share, old_share, level = new.float(), old.float(), 0.5 - 0.1 * new.float()
    return torch.where(new ^ old, new_share, level), torch.where(new ^ old, old_share, 1 - level)


def soft(new: Tensor, old: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return shares (P,) of sum 1: softmax over both scores (P,), each min–max-normalised over all weights."""
    share = torch.sigmoid((_unit(new) - _unit(old)) / temperature)
    return share, 1 - share


def _unit(score: Tensor) -> Tensor:
    low, high = score.aminmax()
    return (score - low) / (high - low) if high > low else torch.zeros_like(score)


def fused(start: Tensor, middle: Tensor, end: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
    """Return θ_b + c_in ⊙ (θ_k − θ_b) + c_out ⊙ (θ_M − θ_k), all (P,)."""
    return start + shares[0] * (middle - start) + shares[1] * (end - middle)


@dataclass(frozen=True, kw_only=True)
class Fusion(StepRule):
    """Is the `StepRule` of Recurrent-KIF, see `everlora.methods.kif`.

    Attributes:
        inner, outer: steps of a block on new rows, and on rehearsed rows.
        quantile: a weight is important above this quantile of Ī Ū.
        beta1, beta2: of the two moving averages.
        soft: shares by a softmax of the scores at ``temperature`` instead of by masks.
        reset_outer: forget the importance for rehearsed rows, too, when a block begins.
    """

    name: ClassVar[str] = "fusion"
    needs: ClassVar[Needs] = Needs(any_form=True)

    inner: int = 8
    outer: int = 4
    quantile: float = 0.8
    beta1: float = 0.85
    beta2: float = 0.85
    soft: bool = False
    temperature: float = 1.0
    reset_outer: bool = False

    def __post_init__(self) -> None:
        for name in ("inner", "outer"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a block needs at least one {name} step, not {getattr(self, name)}")
        for name in ("quantile", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if not 0 < self.temperature < inf:
            raise ConfigError(f"the temperature must be a number above 0, not {self.temperature}")

    def before(self, block: BlockStep, weights: Tensor, gradient: Tensor, state: State) -> State:
        state = dict(state)
        if block.opens:
            state["start"] = weights.clone()
            state |= dict.fromkeys(("new", "new_spread"), torch.zeros_like(weights))
        if block.turns:
            state["middle"] = weights.clone()
        if "old" not in state or (block.opens and self.reset_outer):
            state |= dict.fromkeys(("old", "old_spread"), torch.zeros_like(weights))
        side = "old" if block.rehearsed else "new"
        state[side], state[f"{side}_spread"] = smoothed(
            state[side], state[f"{side}_spread"], (weights * gradient).abs(), self.beta1, self.beta2
        )
        return state

    def after(self, weights: Tensor, state: State) -> Tensor:
        new, old = (state[side] * state[f"{side}_spread"] for side in ("new", "old"))
        if self.soft:
            shares = soft(new, old, self.temperature)
        else:
            shares = hard(important(new, self.quantile), important(old, self.quantile))
        return fused(state["start"], state["middle"], weights, shares)
