"""Pulls back updates that flip sign against the past, or grow where it is still (PS-LoRA's stability loss).

The function first, the part that carries its settings second; see `everlora.parts.penalties` for the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import PenaltyGradient, State, Strength, TaskContext, View, WeightPenalty
from everlora.core.updates import LowRank, precise
from everlora.kernels import RATE, Found, Problem, keep_factors, solve, use_tiles
from everlora.parts import tiled
from everlora.parts.merges import LargestMagnitude
from everlora.parts.penalties import exact


@torch.no_grad()
def sign_conflict(
    A: Tensor,
    B: Tensor,
    scale: float,
    past: Tensor,
    sharpness: Tensor,
    *,
    detach_weight: bool = False,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ψ = ‖(1 − tanh(ηΔW) ⊙ σ) ⊙ ΔW‖²_F with ΔW = scale · B A − start, and its gradient.

    With D = ΔW, h = tanh(ηD), u = (1 − σh) D:

        ∂Ψ/∂D = 2u ⊙ [(1 − σh) − ησ(1 − h²) D],   detached  2 (1 − σh)² D
        Π = scale · ∂Ψ/∂D,   ∂Ψ/∂B = Π Aᵀ,   ∂Ψ/∂A = Bᵀ Π

    >>> A, B, same = torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 2)
    >>> agree, _, _ = sign_conflict(A, B, 1.0, past=same, sharpness=torch.tensor(1.0))
    >>> oppose, _, _ = sign_conflict(A, B, 1.0, past=-same, sharpness=torch.tensor(1.0))
    >>> bool(agree < oppose)
    True

    Args:
        A: (..., r, i).
        B: (..., o, r).
        scale: part of ΔW.
        past: σ = tanh(η ΔW_{<t}), (..., o, i), or anything that broadcasts to it.
        sharpness: η, broadcasts to (..., o, i).
        detach_weight: treat 1 − σh as a constant, so that the pull always shrinks.
        start: the adapter's matrix when the task began (policy ``continue``); None for 0.

    Returns:
        Ψ (...), ∂Ψ/∂A (..., r, i), ∂Ψ/∂B (..., o, r).
    """
    A, B, past, sharpness = exact(A, B, past, sharpness)
    D = scale * (B @ A)
    if start is not None:
        D -= start
    h = torch.tanh(sharpness * D)
    weight = 1 - past * h
    u = weight * D
    value = precise(u.square().sum(-1)).sum(-1).to(A.dtype)
    slope = weight if detach_weight else weight - sharpness * past * (1 - h.square()) * D
    pi = (2 * scale) * u * slope
    return value, B.mT @ pi, pi @ A.mT


@dataclass(frozen=True, kw_only=True)
class SignConflict(WeightPenalty):
    """Pulls as PS-LoRA: λ Ψ against the sum (or the merge) of the past.

    Attributes:
        lam: λ, or the share of the gradient that finds it.
        sharpness: η, or ``rms`` for 1 / rms(ΔW_{<t}) per module, fixed when the task starts.
        detach_weight: leave the weight 1 − σh out of the gradient.
        past: which view of the past signs are compared with.
        first_task_decay: pull on the first task too, where σ = 0 and Ψ = ‖ΔW_1‖².
    """

    name: ClassVar[str] = "sign_conflict"
    by_module: ClassVar[bool] = True
    matrices: ClassVar[int] = 7
    lam: Strength = 1.0
    sharpness: float | Literal["rms"] = "rms"
    detach_weight: bool = False
    past: View = "sum"
    first_task_decay: bool = False

    def __post_init__(self) -> None:
        if self.sharpness != "rms" and not 0 <= self.sharpness < float("inf"):  # NaN fails here too
            raise ConfigError(f"the sharpness must be rms or a finite number of at least 0, not {self.sharpness}")

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        factors = before.factors()
        if use_tiles(before.device):
            return self._prepare_tiles(before, factors)
        if factors is None:
            return {"past": torch.zeros(1, 1, 1), "sharpness": torch.ones(1, 1, 1)} if self.first_task_decay else None
        total = self._total(before, factors)
        sharpness = self._sharpness(total)
        state = {"past": torch.tanh(sharpness * total), "sharpness": sharpness}
        return state if before.start is None else {**state, "start": before.start.dense()}

    def _total(self, before: TaskContext, factors: LowRank) -> Tensor:
        """Return the view of the past that signs are compared with, (L, o, i)."""
        if self.past == "sum":
            return factors.dense()
        return LargestMagnitude().merge(update.dense() for update in before.updates)

    def _sharpness(self, total: Tensor) -> Tensor:
        """Return η of each module, (..., o, i) to (..., 1, 1)."""
        if self.sharpness != "rms":
            return torch.full_like(total[..., :1, :1], self.sharpness)
        # η in units of the past itself: tanh tells signs apart only where its argument is about 1, and updates are of
        # 1e-3.
        rms = total.square().mean((-2, -1), keepdim=True).sqrt()
        return 1 / rms.clamp_min(torch.finfo(rms.dtype).tiny)

    def _prepare_tiles(self, before: TaskContext, factors: LowRank | None) -> State | None:
        """Return constants for computing in tiles: W_past, or σ where its rank is large or it is a merge."""
        if factors is None:
            return tiled.constants(before, torch.ones(1), None) if self.first_task_decay else None
        if self.past == "sum" and keep_factors(factors.rank):
            return tiled.constants(before, tiled.of_each(factors, self._sharpness), factors)
        total = self._total(before, factors)
        sharpness = self._sharpness(total)
        return tiled.constants(before, sharpness.flatten(), torch.tanh(sharpness * total))

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        if RATE in state:
            of = tiled.problem(live, state)
            found = solve("sign_detached", of, _detached) if self.detach_weight else solve("sign", of, _plain)
            return PenaltyGradient.through(live, *found)
        value, A, B = sign_conflict(
            live.A,
            live.up,
            live.scale,
            state["past"],
            state["sharpness"],
            detach_weight=self.detach_weight,
            start=state.get("start"),
        )
        return PenaltyGradient.through(live, value, A, B)


def _plain(of: Problem, detach_weight: bool = False) -> Found:
    """Compute in plain torch what is meant for tiles."""
    sigma = of.past if isinstance(of.past, Tensor) else torch.tanh(of.W)
    start, rate = None if of.start is None else of.start.dense(), of.rate.view(-1, 1, 1)
    return sign_conflict(of.A, of.B, of.scale, sigma, rate, detach_weight=detach_weight, start=start)


def _detached(of: Problem) -> Found:
    """Compute the same, with 1 − σh left out of the gradient."""
    return _plain(of, detach_weight=True)
