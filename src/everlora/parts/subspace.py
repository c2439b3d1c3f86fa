"""Stays out of subspaces of past updates, measures what is left, and keeps triplets orthonormal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from everlora.core.roles import (
    GradientTransform,
    GrowsWithPast,
    HasCapacity,
    Needs,
    PenaltyGradient,
    State,
    Strength,
    TaskContext,
    WeightPenalty,
)
from everlora.core.updates import LowRank, precise
from everlora.parts.penalties import exact

DEPENDENT = 1e-6
"""A direction whose singular value is below this part of the largest is one of the others."""

ROUNDING = 1e-5
"""Of a column that lies in a span, fp32 leaves about 1e-6 behind."""


def basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of ``columns`` (..., n, R), as (..., n, min(n, R)).

    Columns beyond the rank are 0, so that matrices of different rank stay in one stack and Q Qᵀ projects all the same.
    """
    # By SVD and not by QR, which tells dependent columns apart only in the order in which they come.
    U, S, _ = torch.linalg.svd(precise(columns), full_matrices=False)
    live = independent(S)
    return (U * live.unsqueeze(-2)).to(torch.promote_types(columns.dtype, torch.float32))


@torch.no_grad()
def grown(Q: Tensor, columns: Tensor) -> Tensor:
    """Return an orthonormal basis of all that ``Q`` (..., n, q) spans and ``columns`` (..., n, r) span, in Q's type.

    By block Gram-Schmidt: what is new of the columns joins Q, which stays as it is. Columns of 0 are of directions
    that a module has not, and stand behind all others; there are no more of them than the fullest module needs.

    >>> grown(torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [3.0]])).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    flat, new = (each.reshape(-1, *each.shape[-2:]) for each in (Q, columns))
    joined = torch.stack([torch.cat([q, _new_directions(q, x)], -1) for q, x in zip(flat, new, strict=True)])
    used = joined.any(-2)
    width = int(used.sum(-1).max())
    if width < joined.shape[-1]:
        # In a stack one module may be full while another is not: what is used moves to the front.
        order = (~used).to(torch.uint8).argsort(dim=-1, stable=True)[:, :width]
        joined = joined.gather(-1, order.unsqueeze(-2).expand(-1, joined.shape[-2], -1))
    return joined.reshape(*Q.shape[:-1], width)


def _new_directions(Q: Tensor, columns: Tensor) -> Tensor:
    """Return an orthonormal basis of what ``columns`` (n, r) add to the span of ``Q`` (n, q), columns of 0 beyond."""
    span, X = precise(Q), precise(columns)
    left = X - span @ (span.mT @ X)
    # Twice: after the first time there is as much of Q left as rounding in fp32 has made Q less than orthonormal.
    left -= span @ (span.mT @ left)
    U, S, _ = torch.linalg.svd(left, full_matrices=False)
    # What is small beside the columns themselves lay in the span, up to their own rounding.
    whole = torch.linalg.matrix_norm(X, 2)
    return (U * (DEPENDENT * whole < S)).to(Q.dtype)


@torch.no_grad()
def project_out(columns: Tensor, Q: Tensor) -> Tensor:
    """Return (I − Q Qᵀ) X for X (..., n, m) and Q (..., n, R).

    A column of which no more than `ROUNDING` is left lay in the span, and what is left of it is noise: it becomes 0,
    since Adam would make a step of full size of it (as on the first step of a task that starts inside the old span).

    >>> project_out(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [0.0]]))
    tensor([[0.],
            [2.]])
    """
    left = columns - Q @ (Q.mT @ columns)
    return left * (left.norm(dim=-2, keepdim=True) > ROUNDING * columns.norm(dim=-2, keepdim=True))


@torch.no_grad()
def free(updates: Sequence[LowRank]) -> tuple[Tensor, Tensor]:
    """Return the directions that no past update uses, on output and input side: counts (...) out of o and of i.

    From all updates at once; `everlora.analysis.spans` counts the same from task to task.
    """
    out, into = updates[0].shape
    used_out, used_in = (
        independent(torch.linalg.svdvals(precise(columns))).sum(-1)
        for columns in (torch.cat([u.B for u in updates], -1), torch.cat([u.A.mT for u in updates], -1))
    )
    return out - used_out, into - used_in


def independent(S: Tensor) -> Tensor:
    """Return which singular values (..., R), largest first, are of directions and not of rounding."""
    return DEPENDENT * S[..., :1] < S


@dataclass(frozen=True, kw_only=True)
class ProjectOut(GradientTransform, HasCapacity, GrowsWithPast):
    """Projects as LB-CL: gradients of U and V (B and A) lose what lies in the span of earlier tasks' U and V.

    Attributes:
        acts_on: ``gradient`` as the paper says; Adam's elementwise scaling then leaves the complement again.
            ``update`` projects the step that was taken, which holds exactly (the option ``strict``).
        form: ``joint`` projects off the span of all earlier tasks together; ``literal`` subtracts the projections
            on each earlier task, as the slide writes it, and so turns around what two tasks share.
    """

    name: ClassVar[str] = "project_out"
    needs: ClassVar[Needs] = Needs(fresh_adapter=True)
    acts_on: Literal["gradient", "update"] = "gradient"
    form: Literal["joint", "literal"] = "joint"

    def prepare(self, before: TaskContext) -> State | None:
        state: State | None = None
        for update in before.updates:
            state = self.extend(state, update)
        return state

    def extend(self, state: State | None, update: LowRank) -> State:
        sides = {"U": update.B, "V": update.A.mT}
        if state is None:
            return {side: basis(columns) for side, columns in sides.items()}
        if self.form == "literal":
            return {side: torch.cat([state[side], basis(columns)], -1) for side, columns in sides.items()}
        return {side: grown(state[side], columns) for side, columns in sides.items()}

    def shape(self, gradient: State, state: State) -> State:
        A, B = project_out(gradient["A"].mT, state["V"]).mT, project_out(gradient["B"], state["U"])
        return {**gradient, "A": A, "B": B}

    def shape_each(self, gradients: Sequence[State], state: State) -> list[State]:
        # Columns are projected one by one, so those of all gradients go through the basis, which is large, together.
        joined = {
            "A": torch.cat([one["A"] for one in gradients], -2),
            "B": torch.cat([one["B"] for one in gradients], -1),
        }
        found, ranks = self.shape(joined, state), [one["A"].shape[-2] for one in gradients]
        A, B = torch.split(found["A"], ranks, -2), torch.split(found["B"], ranks, -1)
        return [{**one, "A": a, "B": b} for one, a, b in zip(gradients, A, B, strict=True)]

    def free(self, state: State) -> Tensor:
        """Return the directions left to learn in, of the narrower side, per module (L,)."""
        # A joint basis is orthonormal already; what stands of several tasks side by side need not be.
        spans = [Q if self.form == "joint" else basis(Q) for Q in (state["U"], state["V"])]
        return torch.minimum(*(Q.shape[-2] - Q.any(-2).sum(-1) for Q in spans))


@torch.no_grad()
def departure(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖XᵀX − I‖²_F for X (..., n, r), and its gradient 4 X (XᵀX − I).

    >>> departure(torch.eye(3)[:, :2])[0]
    tensor(0.)
    """
    (X,) = exact(columns)
    off = X.mT @ X - torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return off.square().sum((-2, -1)), 4 * X @ off


@dataclass(frozen=True, kw_only=True)
class OrthonormalTriplets(WeightPenalty):
    """Regularises SVD form: γ (‖UᵀU − I‖² + ‖VVᵀ − I‖²), on every task."""

    name: ClassVar[str] = "orthonormal_triplets"
    needs: ClassVar[Needs] = Needs(svd_form=True)
    lam: Strength = 0.1

    @property
    def strength(self) -> Strength:
        return self.lam

    def prepare(self, before: TaskContext) -> State | None:
        return {}

    def value_and_grad(self, live: LowRank, state: State) -> PenaltyGradient:
        u, on_U = departure(live.B)
        v, on_V = departure(live.A.mT)
        sigma = None if live.sigma is None else torch.zeros_like(live.sigma)
        still = {} if sigma is None else {"sigma": sigma}
        return PenaltyGradient(value=u + v, gradient={"A": on_V.mT, "B": on_U, **still})
