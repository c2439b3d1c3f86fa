"""Places of one shape, stacked, so that a penalty or a transform is one launch and not one per module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from everlora.core.roles import GradientTransform, State, WeightPenalty
from everlora.core.updates import stack
from everlora.training.strength import StrengthController


@dataclass
class Group:
    """Places of one shape, their live parameters, and each part's constants for them."""

    names: tuple[str, ...]
    live: list[Any]
    penalties: list[tuple[WeightPenalty, State]] = field(default_factory=list)
    transforms: list[tuple[GradientTransform, State]] = field(default_factory=list)
    controllers: dict[str, StrengthController] = field(default_factory=dict)
    now: dict[str, State] = field(default_factory=dict)
    """Constants of this step, of transforms that have them."""

    @property
    def device(self) -> torch.device:
        return next(iter(self.live[0].tensors.values())).device

    def stacked(self) -> Any:
        return stacked([site.map(torch.Tensor.detach) for site in self.live])

    def gradient(self) -> State:
        """The gradients, stacked like the parameters; 0 where there is none."""
        return dict(stacked([site.map(_gradient) for site in self.live]).tensors)

    def shape(self, penalty: State | None) -> None:
        """Put the task's gradient and the penalties' through the transforms, and their sum into the parameters.

        Each by itself: transforms are linear, and a penalty that lies in a span which is projected out, however large,
        then leaves nothing behind, while in a sum its rounding would drown the task's gradient.
        """
        if self.acting("gradient"):
            self._write(self.shaped(self.gradient(), "gradient"), add=False)
        if penalty is not None:
            self._write(self.shaped(penalty, "gradient"), add=True)

    def acting(self, on: str) -> bool:
        """Whether a transform acts on the gradient, or on the update."""
        return any(transform.acts_on in (on, "both") for transform, _ in self.transforms)

    def shaped(self, change: State, on: str) -> State:
        """A gradient, or an update, after the transforms that act on it."""
        for transform, state in self.transforms:
            if transform.acts_on in (on, "both"):
                change = transform.shape(change, self.now.get(transform.name, state))
        return change

    def _write(self, gradient: State, *, add: bool) -> None:
        for k, site in enumerate(self.live):
            for key, p in site.tensors.items():
                if p.grad is not None and key in gradient:
                    new = gradient[key][k].to(p.grad.dtype)
                    p.grad.add_(new) if add else p.grad.copy_(new)


def _gradient(p: Tensor) -> Tensor:
    return torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float()


def stacked(sites: Sequence[Any]) -> Any:
    """`everlora.core.updates.stack` for places of whichever form."""
    return stack(sites)
