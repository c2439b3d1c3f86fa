"""Starts new triplets as a blend of the old ones, weighted by what the new task's data make of them (LB-CL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import NO_EVIDENCE, Evidence, EvidenceKind, Initialiser, Needs, NeedsEvidence, State
from everlora.core.updates import LowRank, precise, stack, top_blocks


def triplet_gradients(update: LowRank, G: Tensor) -> State:
    """Return ∂L/∂U, ∂L/∂V and ∂L/∂σ of one past update from G = ∂L/∂W.

        ∂U = s G Vᵀ Σ,   ∂V = s Σ Uᵀ G,   ∂σ_j = s u_jᵀ G v_jᵀ

    Args:
        update: U (o, r), V (r, i), σ (r, 1), scale s.
        G: (..., o, i).

    Returns:
        B (..., o, r), A (..., r, i), sigma (..., r, 1).
    """
    assert update.sigma is not None
    right, left = G @ update.A.mT, update.B.mT @ G
    return {
        "B": update.scale * right * update.sigma.mT,
        "A": update.scale * update.sigma * left,
        "sigma": update.scale * (update.B * right).sum(-2).unsqueeze(-1),
    }


@torch.no_grad()
def sensitivity(update: LowRank, G: Tensor) -> Tensor:
    """Return S_j = S(σ_j) + mean_a S(U_aj) + mean_b S(V_jb) with S(w) = |w ∂L/∂w|, mean over samples; (r,).

    Args:
        update: one past task's triplets.
        G: ∂L/∂W, (n, o, i).
    """
    g = triplet_gradients(update, G)
    assert update.sigma is not None
    # σ one by one, U and V as means over their entries: sums would weigh a wide matrix above its singular value.
    each = (
        (update.sigma * g["sigma"]).abs().squeeze(-1)
        + (update.B * g["B"]).abs().mean(-2)
        + (update.A * g["A"]).abs().mean(-1)
    )
    return each.mean(0)


def sensitivities(updates: Sequence[LowRank], G: Tensor) -> Tensor:
    """Return S of each of n past tasks' triplets, of one shape and scale, (n, r); see `sensitivity`."""
    # A triplet's sensitivity is its own alone, so all of them are those of one wide update: two products, not 2n.
    A, B = torch.cat([u.A for u in updates]), torch.cat([u.B for u in updates], -1)
    sigma = torch.cat([u.sigma for u in updates if u.sigma is not None])
    return sensitivity(LowRank(A, B, updates[0].scale, sigma), G).view(len(updates), -1)


@torch.no_grad()
def blend(updates: Sequence[LowRank], scores: Tensor) -> LowRank:
    """Blend triplet j of the new task: Σ_i α_j^i (u_j^i, σ_j^i, v_j^i), α_j^i = S_j^i / Σ_i' S_j^i'.

    Args:
        updates: n past tasks' triplets, of one shape and scale.
        scores: S, (n, r); a column of zeros (nothing is sensitive) weighs all tasks alike.
    """
    if len(scores) != len(updates):
        raise ValueError(f"{len(scores)} rows of scores for {len(updates)} tasks")
    # In fp64, in which products of three small numbers are not yet 0.
    total = precise(scores).sum(0)
    alpha = torch.where(total > 0, precise(scores) / total.clamp_min(1e-300), 1 / len(updates)).to(scores.dtype)
    every = stack(updates)
    assert every.sigma is not None
    B, rows = (alpha.unsqueeze(1) * every.B).sum(0), alpha.unsqueeze(2)
    return LowRank((rows * every.A).sum(0), B, every.scale, (rows * every.sigma).sum(0))


@dataclass(frozen=True, kw_only=True)
class SensitivityBlend(Initialiser, NeedsEvidence):
    """Starts new triplets as a blend of earlier ones: LB-CL's injection.

    Attributes:
        samples: rows of the new task that are looked at.
        sigma: ``with`` transfers σ too, so the function moves at once; ``without`` starts σ at 0 and leaves it.
        top_layers: score and inject in the last so many blocks only; None for all.
        per_sample: average |w ∂L/∂w| over rows instead of taking it of the mean loss.
    """

    name: ClassVar[str] = "sensitivity_blend"
    needs: ClassVar[Needs] = Needs(fresh_adapter=True, svd_form=True)
    evidence: ClassVar[EvidenceKind] = "gradients"
    samples: int = 8
    sigma: Literal["with", "without"] = "with"
    top_layers: int | None = None
    per_sample: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"{self.name!r} needs at least one sample to look at, not {self.samples}")
        if self.top_layers is not None and self.top_layers < 1:
            raise ConfigError(f"top_layers of {self.name!r} counts blocks from the top, not {self.top_layers}")

    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(sites) if self.top_layers is None else top_blocks(sites, self.top_layers)

    def start(
        self,
        fresh: LowRank,
        updates: Sequence[LowRank],
        evidence: Evidence = NO_EVIDENCE,
        memory: State | None = None,
    ) -> LowRank:
        if evidence.gradients is None:
            raise ConfigError(f"{self.name!r} looks at training rows of the new task, and it has none")
        blended = blend(updates, sensitivities(updates, evidence.gradients))
        assert blended.sigma is not None
        # With σ = 0 the model answers as before the task, and only the directions are inherited.
        sigma = blended.sigma if self.sigma == "with" else torch.zeros_like(blended.sigma)
        return LowRank(blended.A, blended.B, fresh.scale, sigma)
