"""Declares two adapters per layer under gates (DATA): the gates, what keeps components apart, and restoration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError
from everlora.core.roles import GradientTransform, Needs, PenaltyGradient, State, TaskContext, WeightPenalty
from everlora.core.updates import precise

Gate = Literal["cosine", "code"]
POOLS = ("K", "A", "W")


def masked_mean(h: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of hidden states (b, s, e) over the real tokens of each row, (b, e)."""
    weights = mask.float()
    weighted = (weights.unsqueeze(1) @ h.float()).squeeze(1)
    return weighted / weights.sum(1, keepdim=True).clamp_min(1)


def cosine_gate(h: Tensor, mask: Tensor, K: Tensor, A: Tensor, W: Tensor) -> Tensor:
    """Return σ(Σ_j cos(h̄ ⊙ A_j, K_j) · mean W_j), (b,), of hidden states (b, s, e) and pools (n, e).

    In fp64 where there is one: components that add nothing then leave the gate as it was, to the bit.
    """
    mean, K, A, W = precise(masked_mean(h, mask)), precise(K), precise(A), precise(W)
    product = mean @ (A * K).mT
    # As a product of matrices: norms of h̄ ⊙ A_j one by one would take a tensor (b, n, e).
    size = (mean.square() @ A.square().mT).clamp_min(1e-30).sqrt() * K.norm(dim=1).clamp_min(1e-15)
    return torch.sigmoid((product / size) @ W.mean(1))


def code_gate(h: Tensor, mask: Tensor, K: Tensor, A: Tensor, W: Tensor) -> Tensor:
    """Return σ(Σ_{l,j,b} q_lj (Σ_b' K̂_jb') W_jb / √e), q_l = ⟨h_l, A_j⟩ / ‖·‖_j, as published code indexes."""
    q = normalize(h.float() @ A.float().mT, dim=-1)  # (b, s, n)
    summed = (mask.float().unsqueeze(1) @ q).squeeze(1)
    keys = normalize(K.float(), dim=1).sum(1) / K.shape[1] ** 0.5
    return torch.sigmoid(summed @ (keys * W.float().sum(1)))


def orthonormal(old: Tensor | None, count: int, width: int, draw: torch.Generator, *, level: bool = False) -> Tensor:
    """Return ``count`` new unit rows, orthogonal to one another and to ``old`` (n, e), by Gram-Schmidt.

    Where fewer than ``count`` directions are left, the rows beyond them are random unit rows. With ``level`` they are
    also orthogonal to the row of ones, so that the mean of each is 0.
    """
    taken = [torch.ones(width, dtype=torch.float64)[None]] if level else []
    taken += [old.double().cpu()] if old is not None else []
    basis = _span(torch.cat(taken)) if taken else torch.zeros(0, width, dtype=torch.float64)
    # All drawn before any is made orthogonal: how many numbers are drawn does not depend on the room that is left.
    rows = torch.randn(count, width, generator=draw).double()
    room = width - len(basis)
    made: list[Tensor] = []
    for k, row in enumerate(rows):
        if k < room:
            for _ in range(2):  # once more: what rounding has left
                row = row - basis.mT @ (basis @ row)
        elif level:
            row = row - row.mean()
        made.append(row / row.norm())
        basis = torch.cat([basis, made[-1][None]])
    return torch.stack(made).float()


def _span(rows: Tensor) -> Tensor:
    """Return an orthonormal basis of the rows, (q, e)."""
    _, S, V = torch.linalg.svd(rows, full_matrices=False)
    return V[S / S[0] > 1e-6]


def departure(frozen: Tensor | None, live: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean((M Mᵀ − I)²) of M = [frozen; live], (L,), and its gradient for ``live`` (L, p, e).

    With G = M Mᵀ − I of n rows: ∂/∂M = 4 G M / n².
    """
    M = live if frozen is None else torch.cat([frozen, live], dim=-2)
    n = M.shape[-2]
    G = M @ M.mT - torch.eye(n, dtype=M.dtype, device=M.device)
    gradient = 4 * (G[..., n - live.shape[-2] :, :] @ M) / n**2
    return G.square().mean((-2, -1)), gradient


@dataclass(frozen=True, kw_only=True)
class DualAdapter(Adapter):
    """Trains W0 x + g₁(h) B₁A₁x + g₂(h) B₂A₂x, no scale; gates of pools K, A, W that grow with every task.

    Attributes:
        low, high: the ranks r₁ and r₂.
        components: rows p that each task adds to every pool.
        blocks: how many consecutive blocks share their gates.
        gate: ``cosine`` or ``code``.
    """

    loads_with_peft: ClassVar[bool] = False

    policy: Literal["new", "continue"] = "continue"
    form: str = "dual"
    low: int = 4
    high: int = 16
    components: int = 8
    blocks: int = 4
    gate: Gate = "cosine"

    def __post_init__(self) -> None:
        for name in ("low", "high", "components", "blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def weigh(self, h: Tensor, mask: Tensor, pools: Mapping[str, Tensor]) -> Tensor:
        """Return one gate, (b,), of hidden states (b, s, e) at the real positions ``mask`` (b, s)."""
        gate = cosine_gate if self.gate == "cosine" else code_gate
        return gate(h, mask, **pools)

    def grow(self, name: str, old: Tensor | None, width: int, draw: torch.Generator) -> Tensor:
        """Return the rows that a new task adds to a pool, (p, e); those of W have mean 0, and so add nothing yet."""
        return orthonormal(old, self.components, width, draw, level=name == "W")


@dataclass(frozen=True, kw_only=True)
class Orthonormality(WeightPenalty):
    """Adds lam · mean((M Mᵀ − I)²), the mean of a gate's pools K, A and W, and of all gates.

    Components of earlier tasks stand in M, and only those of the new task are pulled on.
    """

    name: ClassVar[str] = "gate_orthonormality"
    needs: ClassVar[Needs] = Needs(any_form=True, tensors=POOLS)
    lam: float = 1.0

    @property
    def strength(self) -> float:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        if before.start is None:
            return {}
        return {name: before.start.tensors[name].float() for name in POOLS}

    def value_and_grad(self, live: Any, state: State) -> PenaltyGradient:
        found = {name: departure(state.get(name), live.tensors[name].float()) for name in POOLS}
        share = 1 / (len(POOLS) * len(live.tensors["K"]))
        value = torch.stack([value for value, _ in found.values()]).sum(0) * share
        return PenaltyGradient(value=value, gradient={name: gradient * share for name, (_, gradient) in found.items()})


@dataclass(frozen=True, kw_only=True)
class Restoration(GradientTransform):
    """Returns each weight, every so many steps and with a small probability, to where it stood as the task began.

    Attributes:
        rate: the probability.
        every: steps between.
    """

    name: ClassVar[str] = "restoration"
    needs: ClassVar[Needs] = Needs(any_form=True)
    acts_on: ClassVar[Literal["gradient", "update"]] = "update"
    rate: float = 1e-5
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"rate of {self.name!r} is a probability, not {self.rate}")
        if self.every < 1:
            raise ConfigError(f"every of {self.name!r} counts steps, not {self.every}")

    def prepare(self, before: TaskContext) -> State | None:
        # Counted and summed in here as the task goes on: a state lives as long as its task.
        return {"step": torch.zeros((), dtype=torch.int64), "seed": torch.tensor(before.seed)} if self.rate else None

    def shape(self, gradient: State, state: State) -> State:
        state["step"] = state["step"] + 1
        moved = {name: state.get(f"moved/{name}", torch.zeros_like(step)) for name, step in gradient.items()}
        shaped = dict(gradient)
        if int(state["step"]) % self.every == 0:
            # From the number of the step, on the CPU: the same weights return on every process and device.
            draw = torch.Generator().manual_seed((int(state["seed"]) + int(state["step"])) % 2**31)
            for name, step in gradient.items():
                back = (torch.rand(step.shape, generator=draw) < self.rate).to(step.device)
                shaped[name] = torch.where(back, -moved[name], step)
        state.update({f"moved/{name}": moved[name] + step for name, step in shaped.items()})
        return shaped
