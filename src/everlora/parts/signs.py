"""Pulls back updates that flip sign against the past, or grow where it is still (PS-LoRA's stability loss).

The function first, the part that carries its settings second; see `everlora.parts.penalties` for the conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import PenaltyGradient, State, Strength, TaskContext, View, WeightPenalty
from everlora.core.updates import LowRank, precise
from everlora.kernels import RATE, Found, Problem, keep_factors, solve, use_tiles
from everlora.parts import tiled
from everlora.parts.merges import LargestMagnitude
from everlora.parts.penalties import exact

TILE = 3 * 2**18
"""Bytes of a matrix that a CPU computes on at once: five of them pass through a dozen operations in a core's cache."""


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
    (out, into), lead = (B.shape[-2], A.shape[-1]), B.shape[:-2].numel()
    rows = max(1, TILE // (lead * into * A.element_size())) if A.device.type == "cpu" else out
    found = [
        _conflict_of_rows(A, scale, detach_weight, *_rows((B, past, sharpness, start), first, rows))
        for first in range(0, out, rows)
    ]
    values, on_A, on_B = zip(*found, strict=True)
    return sum(values[1:], values[0]).to(A.dtype), sum(on_A[1:], on_A[0]), torch.cat(on_B, -2)


def _rows(tensors: Sequence[Tensor | None], first: int, count: int) -> list[Any]:
    """Return some rows of tensors (..., o, i); those that have one row for all of them, and None, as they are."""
    return [t if t is None or t.ndim < 2 or t.shape[-2] == 1 else t[..., first : first + count, :] for t in tensors]


def _conflict_of_rows(
    A: Tensor, scale: float, detach_weight: bool, B: Tensor, past: Tensor, sharpness: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what some rows of outputs add to Ψ, in fp64, and to its gradient by A, and their gradient by B."""
    # In place where it can be: what takes time are passes over matrices of shape (o, i), and new memory.
    D = (scale * B) @ A
    if start is not None:
        D -= start
    h = (sharpness * D).tanh_()
    weight = past * h
    if not detach_weight:
        # σ(1 − h²) = σ − (σh) h
        steep = torch.addcmul(past, weight, h, value=-1).mul_(D)
    torch.sub(torch.ones((), dtype=D.dtype, device=D.device), weight, out=weight)
    u = D.mul_(weight)
    value = precise(torch.linalg.vector_norm(u, dim=-1)).square().sum(-1)
    slope = weight if detach_weight else weight.addcmul_(steep, sharpness.expand_as(weight), value=-1)
    pi = u.mul_(slope)
    return value, 2 * scale * (B.mT @ pi), 2 * scale * (pi @ A.mT)


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
    matrices: ClassVar[int] = 4
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
        # In place: it is as large as all adapted matrices together.
        state = {"past": total.mul_(sharpness).tanh_(), "sharpness": sharpness}
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
