"""Mean pull: a weight penalty of one's own, in one file outside the package.

    L = L_task + λ Σ_modules ‖ΔW_t − M‖²_F,   M = (1 / (t − 1)) Σ_{k<t} ΔW_k

A new task's update is pulled towards the mean of the earlier tasks' updates; there is no pull on the first task. With
ΔW = s B A the gradient is, in closed form,

    ∂Ω/∂A = 2 s Bᵀ (ΔW − M),   ∂Ω/∂B = 2 s (ΔW − M) Aᵀ

    symbol   here          shape
    λ        lam
    s        live.scale
    M        state["mean"]  (L, o, i), for L modules of one shape at once

Default λ = ``auto``: the share of the task's gradient that the package takes where nothing is known.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from everlora import Method, method, parse
from everlora.parts import StrengthOption, read_strength
from everlora.roles import LowRank, PenaltyGradient, State, Strength, TaskContext, WeightPenalty


@dataclass(frozen=True, kw_only=True)
class MeanPull(WeightPenalty):
    """λ ‖ΔW − M‖², M the mean of the earlier tasks' updates.

    Attributes:
        lam: λ, or the share of the gradient that finds it; 0 switches the part off.
    """

    name: ClassVar[str] = "mean_pull"
    lam: Strength = 1.0

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        past = before.factors()  # all earlier updates, one behind the other; None on the first task
        return None if past is None else {"mean": past.dense() / len(before.updates)}

    @torch.no_grad()
    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        off = live.scale * (live.up @ live.A) - state["mean"]
        pi = 2 * live.scale * off
        return PenaltyGradient.through(live, off.square().sum((-2, -1)), live.up.mT @ pi, pi @ live.A.mT)


@method(
    "mean-pull",
    title="Pull towards the mean of earlier adapters",
    paper="an example",
    stores="r(o+i) per adapted matrix and task",
    cost="6oir + 3oi operations per adapted matrix",
)
def mean_pull(*, lam: StrengthOption = "auto", rho: float | None = None) -> Method:
    """Build it; ``rho`` is for ``lam=auto``."""
    return replace(parse("inclora"), penalties=(MeanPull(lam=read_strength(lam, rho)),)).named("mean-pull")
