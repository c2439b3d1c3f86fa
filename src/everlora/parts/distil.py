"""Pulls answers towards those that the model gave when the task began (LwF's distillation)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import Needs, OutputPenalty


class _Divergence(torch.autograd.Function):
    """Computes τ² KL(p_old ‖ p_new) with its closed-form gradient, exactly 0 where nothing has changed.

    Autograd's own leaves a rounding error of 1e-8 there, of which AdamW makes a whole step.
    """

    @staticmethod
    def forward(ctx: Any, new: Tensor, old: Tensor, tau: float) -> Tensor:
        ctx.save_for_backward(new, old)
        ctx.tau = tau
        log_old, log_new = (old / tau).log_softmax(-1), (new / tau).log_softmax(-1)
        return tau**2 * (log_old.exp() * (log_old - log_new)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        new, old = ctx.saved_tensors
        difference = (new / ctx.tau).softmax(-1) - (old / ctx.tau).softmax(-1)
        return upstream[0].unsqueeze(-1) * ctx.tau * difference, None, None


def distillation(new: Tensor, old: Tensor, tau: float) -> Tensor:
    """Return τ² KL(p_old ‖ p_new), p = softmax(z / τ), (..., v) twice to (...); differentiable in ``new`` only.

    Its gradient with respect to ``new`` is τ (p_new − p_old): τ² keeps its size comparable for every τ.

    >>> distillation(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), tau=2.0)
    tensor(0.)
    """
    value: Tensor = _Divergence.apply(new, old, tau)  # type: ignore[no-untyped-call]
    return value


@dataclass(frozen=True, kw_only=True)
class Distil(OutputPenalty):
    """Adds LwF's term: β τ² KL(p_old ‖ p_new), mean over the answer's positions of the new task's rows.

    Attributes:
        beta: β.
        tau: τ; higher makes both distributions flatter, so that unlikely answers count, too.
    """

    name: ClassVar[str] = "distil"
    needs: ClassVar[Needs] = Needs(any_form=True)
    beta: float = 1.0
    tau: float = 2.0

    def __post_init__(self) -> None:
        if not (isfinite(self.beta) and self.beta >= 0):
            raise ConfigError(f"beta of {self.name!r} must be a finite number of at least 0, not {self.beta}")
        if not (isfinite(self.tau) and self.tau > 0):
            raise ConfigError(f"tau of {self.name!r} must be a finite number above 0, not {self.tau}")

    @property
    def strength(self) -> float:
        return self.beta

    @property
    def on(self) -> Literal["task", "rehearsed"]:
        return "task"

    def per_position(self, new: Tensor, old: Tensor) -> Tensor:
        return distillation(new, old, self.tau)
