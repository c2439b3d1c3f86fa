"""Makes updates sparse: entries that are zero collide with nobody's.

The functions first, the part that carries its settings second; see `everlora.parts.penalties` for the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import Needs, PenaltyGradient, State, Strength, TaskContext, WeightPenalty
from everlora.core.updates import LowRank, precise
from everlora.kernels import RATE, solve, use_tiles
from everlora.parts import tiled
from everlora.parts.penalties import exact

L1Form = Literal["paper", "code"]


@torch.no_grad()
def sparsity(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ‖B A‖₁ = Σ |(B A)_jk|, and its gradient: with S = sign(B A), ∂/∂A = Bᵀ S and ∂/∂B = S Aᵀ.

    Args:
        A: (..., r, i).
        B: (..., o, r).

    Returns:
        The norm (...), ∂/∂A (..., r, i), ∂/∂B (..., o, r).
    """
    A, B = exact(A, B)
    D = B @ A
    value = precise(D.abs().sum(-1)).sum(-1).to(A.dtype)  # row sums first, as in `energy_overlap`
    S = D.sign_()
    return value, B.mT @ S, S @ A.mT


@dataclass(frozen=True, kw_only=True)
class Sparsity(WeightPenalty):
    """Pulls as N-LoRA: λ ‖B A‖₁ of the new update, on every task.

    Attributes:
        lam: λ, or the share of the gradient that finds it.
        form: ``paper``, or ``code`` for ‖A B‖₁, an (r, r) matrix that exists for square weights alone.
    """

    name: ClassVar[str] = "sparsity"
    by_module: ClassVar[bool] = True
    matrices: ClassVar[int] = 2
    needs: ClassVar[Needs] = Needs(fresh_adapter=True)
    lam: Strength = 0.4
    form: L1Form = "paper"

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if self.form == "paper" and use_tiles(before.device):
            return tiled.constants(replace(before, start=None), torch.ones(1), None)
        return {}

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        if RATE in state:
            of = replace(tiled.problem(live, state), scale=1.0)  # the norm of B A itself
            return PenaltyGradient.through(live, *solve("l1", of, lambda of: sparsity(of.A, of.B)))
        if self.form == "paper":
            value, on_A, on_B = sparsity(live.A, live.up)
            return PenaltyGradient.through(live, value, on_A, on_B)
        out, into = live.shape
        if out != into:
            raise ConfigError(
                f"form=code of {self.name!r} multiplies A by B: that needs square weights, and one is {out} x {into}: "
                f"take form=paper, or adapt square matrices only (--lora-target-modules)"
            )
        value, on_B, on_A = sparsity(live.up, live.A)
        return PenaltyGradient.through(live, value, on_A, on_B)
