"""Defines low-rank updates of weights, single or stacked, and gradients with respect to them.

Letters for shapes everywhere: ``o`` out, ``i`` in, ``r`` rank of one task, ``R`` rank of all past tasks together,
``L`` modules of one shape stacked into one tensor, so that a penalty is one launch and not one per module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

OVERSAMPLED, POWERS = 16, 2
"""Directions and passes by which `sketched` looks further than what it returns."""
State = dict[str, Tensor]
"""Tensors by name: a gradient, or what a part holds of modules of one shape."""


@dataclass(frozen=True)
class LowRank:
    """Holds an update ΔW = scale · B A (SVD form: scale · B diag(σ) A) of one weight or of ``L`` of one shape.

    >>> update = LowRank(A=torch.tensor([[1.0, 2.0]]), B=torch.tensor([[3.0], [0.0]]), scale=0.5)
    >>> update.rank, update.shape
    (1, (2, 2))
    >>> update.dense()
    tensor([[1.5000, 3.0000],
            [0.0000, 0.0000]])

    Attributes:
        A: down-projection, (r, i) or (L, r, i); V in SVD form.
        B: up-projection, (o, r) or (L, o, r); U in SVD form.
        scale: PEFT's ``scaling`` (alpha / r); always part of ΔW here.
        sigma: the diagonal of Σ in SVD form as a column, (r, 1) or (L, r, 1); None in plain form.
    """

    A: Tensor
    B: Tensor
    scale: float = 1.0
    sigma: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.A.shape[-2])

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape (o, i) of the weight that is updated."""
        return int(self.B.shape[-2]), int(self.A.shape[-1])

    @property
    def numel(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name: A, B and, in SVD form, sigma."""
        named = {"A": self.A, "B": self.B}
        return named if self.sigma is None else {**named, "sigma": self.sigma}

    @property
    def up(self) -> Tensor:
        """Return B, in SVD form with σ in it: B diag(σ)."""
        return self.B if self.sigma is None else self.B * self.sigma.mT

    def map(self, change: Callable[[Tensor], Tensor]) -> LowRank:
        """Return the update with every tensor changed in the same way (detached, moved, copied)."""
        sigma = None if self.sigma is None else change(self.sigma)
        return LowRank(change(self.A), change(self.B), self.scale, sigma)

    def holding(self, tensors: Mapping[str, Tensor]) -> LowRank:
        """Return an update of the same scale and form with other tensors."""
        return LowRank(tensors["A"], tensors["B"], self.scale, tensors.get("sigma"))

    def dense(self) -> Tensor:
        """Return ΔW, (o, i) or (L, o, i), in fp32; of tensors in fp64, as checks of gradients have them, in fp64."""
        up, A = (t if t.dtype == torch.float64 else t.float() for t in (self.up, self.A))
        return self.scale * (up @ A)

    def absorb_scale(self) -> LowRank:
        """Return the same update as a pair with scale 1; B carries scale and σ."""
        return LowRank(self.A.float(), self.up.float() * self.scale)

    def norm(self) -> Tensor:
        """Return ‖ΔW‖_F, () or (L,), from the factors: √⟨BᵀB, AAᵀ⟩, without a matrix of shape (o, i)."""
        # Two (r, r) matrices instead of one (o, i). In fp64, as both are squares, and what is left of a cancelled sum
        # is the norm of a small update.
        A, B = precise(self.A), precise(self.up)
        return (self.scale**2 * ((B.mT @ B) * (A @ A.mT)).sum((-2, -1))).clamp_min(0).sqrt().float()


def precise(tensor: Tensor) -> Tensor:
    """Return the tensor in fp64, or in fp32 on devices that have no fp64 (Apple's)."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


@dataclass(frozen=True, kw_only=True)
class PenaltyGradient:
    """Holds value and gradient of a weight penalty at strength 1, for ``L`` stacked modules.

    >>> A, B = torch.ones(2, 1, 3), torch.zeros(2, 4, 1)
    >>> found = PenaltyGradient(value=A.square().sum((-2, -1)), gradient={"A": 2 * A, "B": B})
    >>> found.value
    tensor([3., 3.])

    Attributes:
        value: penalty per module, (L,).
        gradient: with respect to the live tensors, by their names: A (L, r, i), B (L, o, r), in SVD form sigma
            (L, r, 1).
    """

    value: Tensor
    gradient: State

    @property
    def A(self) -> Tensor:
        return self.gradient["A"]

    @property
    def B(self) -> Tensor:
        return self.gradient["B"]

    @property
    def sigma(self) -> Tensor | None:
        return self.gradient.get("sigma")

    @classmethod
    @torch.no_grad()
    def through(cls, live: LowRank, value: Tensor, A: Tensor, B: Tensor) -> PenaltyGradient:
        """Return the gradient with respect to ``live`` itself, from that with respect to its plain pair (A, B diag σ).

        A penalty that is written for pairs thereby works on triplets U Σ V, too.

        Args:
            live: the update in either form.
            value: the penalty per module, (L,).
            A: its gradient with respect to A, (L, r, i).
            B: its gradient with respect to B diag σ, which is ``live.up``, (L, o, r).
        """
        if live.sigma is None:
            return cls(value=value, gradient={"A": A, "B": B})
        sigma = (B * live.B).sum(-2).unsqueeze(-1)
        return cls(value=value, gradient={"A": A, "B": B * live.sigma.mT, "sigma": sigma})


@dataclass(frozen=True)
class Weights:
    """Holds what is trained at one place where it is no low-rank update: full weights, prompts, gates.

    >>> Weights({"weight": torch.full((2, 2), 3.0)}).norm()
    tensor(6.)

    Attributes:
        tensors: by name; of one place, or of ``L`` places stacked along a first dimension.
    """

    tensors: dict[str, Tensor]

    @property
    def numel(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    def map(self, change: Callable[[Tensor], Tensor]) -> Weights:
        """Return the same with every tensor changed in the same way (detached, moved, copied)."""
        return Weights({name: change(tensor) for name, tensor in self.tensors.items()})

    def holding(self, tensors: Mapping[str, Tensor]) -> Weights:
        """Return the same with other tensors."""
        return Weights(dict(tensors))

    def norm(self) -> Tensor:
        """Return the Frobenius norm of all tensors together, ()."""
        return torch.stack([tensor.float().norm() for tensor in self.tensors.values()]).norm()


ModuleUpdate = LowRank | Weights
LowRankUpdates = Mapping[str, LowRank]
"""One low-rank update per adapted module, by the module's path in the base model."""
Updates = Mapping[str, ModuleUpdate]
"""What is trained, whatever its form, by place."""


def concatenate(updates: Sequence[LowRank]) -> LowRank:
    """Return the sum of ``updates`` as one update of rank Σ r with scale 1.

    [s₁B₁ … s_tB_t][A₁; …; A_t] is exact; (ΣB)(ΣA) is not, its cross terms belong to no task.

    >>> one = LowRank(torch.ones(1, 3), torch.ones(2, 1), scale=2.0)
    >>> both = concatenate([one, one])
    >>> both.rank, both.scale, float(both.dense()[0, 0])
    (2, 1.0, 4.0)
    """
    absorbed = [update.absorb_scale() for update in updates]
    return LowRank(torch.cat([u.A for u in absorbed], dim=-2), torch.cat([u.B for u in absorbed], dim=-1))


def difference(new: LowRank, old: LowRank) -> LowRank:
    """Return what one adapter that was trained on has changed: ``new`` − ``old``, of rank r + r."""
    return concatenate([new, LowRank(old.A, old.B, -old.scale, old.sigma)])


def nearest(matrix: Tensor, rank: int) -> LowRank:
    """Return the update of at most ``rank`` nearest to ``matrix`` (o, i) in the Frobenius norm, by SVD, in fp32."""
    U, S, V = torch.linalg.svd(precise(matrix), full_matrices=False)
    root = S[:rank].sqrt()
    return LowRank((root[:, None] * V[:rank]).float().contiguous(), (U[:, :rank] * root).float().contiguous())


def sketched(matrix: Tensor, rank: int) -> LowRank:
    """Return an update of at most ``rank`` that is about as near to ``matrix`` (o, i) as can be, without its SVD.

    A random search for the largest directions, in fp32 and of a fixed seed (Halko, Martinsson, Tropp 2011, algorithm
    4.4); from half of the full rank on the matrix itself, as a product with the identity, which is exact.

    >>> matrix = torch.arange(12.0).view(3, 4)
    >>> torch.equal(sketched(matrix, 2).dense(), matrix)
    True
    """
    matrix = matrix.float()
    out, into = matrix.shape
    if 2 * rank >= min(out, into):
        same = torch.eye(min(out, into), device=matrix.device)
        return LowRank(matrix.contiguous(), same) if out <= into else LowRank(same, matrix.contiguous())
    drawn = torch.randn(into, min(rank + OVERSAMPLED, into), generator=torch.Generator().manual_seed(0))
    Q = torch.linalg.qr(matrix @ drawn.to(matrix.device))[0]
    for _ in range(POWERS):
        Q = torch.linalg.qr(matrix @ (matrix.mT @ Q))[0]
    # The largest directions of what was found, by the small matrix's squares: no SVD of (rank, i).
    found = Q.mT @ matrix
    squares, U = torch.linalg.eigh(precise(found) @ precise(found).mT)
    U, root = U.flip(1)[:, :rank].float(), squares.flip(0)[:rank].clamp_min(0).float() ** 0.25
    A = (U.mT @ found) * torch.where(root > 0, 1 / root, 0)[:, None]
    return LowRank(A.contiguous(), (Q @ U * root).contiguous())


def truncated(update: LowRank, rank: int) -> tuple[LowRank, float]:
    """Return the nearest update of at most ``rank``, and ‖ΔW − ΔŴ‖_F; no matrix of shape (o, i) is made."""
    left, core_left = torch.linalg.qr(precise(update.up) * update.scale)
    right, core_right = torch.linalg.qr(precise(update.A).mT)
    U, S, V = torch.linalg.svd(core_left @ core_right.mT, full_matrices=False)
    root = S[:rank].sqrt()
    A = (root[:, None] * V[:rank]) @ right.mT
    return LowRank(A.float(), ((left @ U[:, :rank]) * root).float()), float(S[rank:].norm())


S = TypeVar("S", LowRank, Weights)


def stack(sites: Sequence[S]) -> S:
    """Stack updates of one shape, rank and scale along a new first dimension ``L``.

    >>> one = LowRank(torch.ones(1, 3), torch.ones(2, 1))
    >>> stack([one, one]).A.shape
    torch.Size([2, 1, 3])
    """
    check_alike(sites)
    return sites[0].holding({name: torch.stack([site.tensors[name] for site in sites]) for name in sites[0].tensors})


def check_alike(sites: Sequence[ModuleUpdate]) -> None:
    """Refuse updates that cannot be stacked.

    Raises:
        ValueError: they differ in shape, rank, scale or form.
    """
    if len({_kind(site) for site in sites}) != 1:
        raise ValueError("only updates of one shape, rank, scale and form can be stacked")


def top_blocks(sites: Iterable[str], count: int) -> tuple[str, ...]:
    """Return the modules in the last ``count`` transformer blocks; of an encoder-decoder, in the last of the decoder.

    A module's block is the first number in its path, its stack what stands before it: ``decoder.block.3.layer.0``.
    """
    placed = {}
    for name in sites:
        found = re.match(r"(.*?)\.(\d+)\.", name)
        if found:
            placed[name] = (found[1], int(found[2]))
    last = next((stack for stack, _ in placed.values() if "decoder" in stack), None)
    stacks = {stack for stack, _ in placed.values()} if last is None else {last}
    blocks = sorted({place for place in placed.values() if place[0] in stacks})[-count:]
    return tuple(name for name, place in placed.items() if place in blocks)


def groups(sites: Updates) -> list[tuple[str, ...]]:
    """Return the names of modules that share shape, rank, scale and form, in the order of their first appearance."""
    by_kind: dict[tuple[object, ...], list[str]] = {}
    for name, site in sites.items():
        by_kind.setdefault(_kind(site), []).append(name)
    return [tuple(names) for names in by_kind.values()]


def _kind(site: ModuleUpdate) -> tuple[object, ...]:
    scale = site.scale if isinstance(site, LowRank) else None
    return scale, *((name, tensor.shape) for name, tensor in site.tensors.items())
