"""Counts the directions that a growing past uses, without decomposing it anew after every task.

Three matrices of a module are looked at: M, the earlier tasks' A (i, R) or B (o, R) one behind the other, and W, the
sum of their updates (o, i). Almost always each has as many independent directions as it can have, and a Cholesky
factor of a Gram matrix proves that. A task adds rows to the factors of MᵀM, so that it costs what its own columns
times the earlier ones cost, and nothing cubic in R. Where the proof fails, singular values are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import cholesky_ex, solve_triangular

from everlora.analysis.ranks import TOLERANCE, numerical_rank, rank_of
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank, State, precise
from everlora.parts.subspace import DEPENDENT, independent

MARGIN = 2.0
"""How far above its threshold a singular value is proved to be: more than what fp64 loses of one."""
CANCELLED = 0.5
"""Where the sum falls to this part of what it was, it is made anew: rounding of what it was stays in its square."""
SURE = 1e-3
"""From this part of what its factors could make, the sum is as sure as they are."""
SIDES = ("A", "B")


class Used(NamedTuple):
    """Holds the directions that updates of one module use, on output and input side, and the rank of their sum."""

    out: int
    into: int
    rank: int


@torch.no_grad()
def used_directions(past: UpdateHistory, site: str) -> Used:
    """Count what is used of one module as `everlora.parts.subspace.free` and `numerical_rank` do.

    What was found of the tasks before is held in ``past``.
    """
    state = past.grown("spans", [site], lambda held, update: _extend(past, site, held, update))
    assert state is not None, "the directions of nothing"
    return Used(_used(past, site, state, "B"), _used(past, site, state, "A"), _rank(past, site, state))


def _begin(update: LowRank) -> State:
    """Return what is held of one module before the first task.

    ``tasks``, how many; ``weights`` (R,), by which columns of A and B are multiplied in W; squared Frobenius norms.
    ``root`` (R, R), the Cholesky factor of MᵀM, and ``inverse``, Σ 1/σ² of M and of W, as long as columns are
    independent; of M with at least as many columns as rows ``least``, which its σ_min is not below; and of such a W
    ``W`` and ``square``, WWᵀ or WᵀW, whichever is smaller, and ``peak``, the largest that its squared norm was.
    """
    nothing = precise(update.A.new_zeros(()))
    state = {"tasks": torch.tensor(0), "weights": nothing.new_zeros(0), "norm of W": nothing, "inverse of W": nothing}
    for side in SIDES:
        state |= {f"norm of {side}": nothing, f"inverse of {side}": nothing, f"least of {side}": nothing}
        state[f"root of {side}"] = nothing.new_zeros(0, 0)
    return state


def _extend(past: UpdateHistory, site: str, held: State | None, update: LowRank) -> State:
    """Return what is held of one module after one more task."""
    state = _begin(update) if held is None else held
    old = [delta[site] for delta in past.deltas[: int(state["tasks"])]]
    new = {"A": precise(update.A[0].mT), "B": precise(update.B[0])}
    own = {side: X.mT @ X for side, X in new.items()}
    before, weights = state["weights"], _weights(update.map(lambda tensor: tensor[0]))
    found = {"tasks": state["tasks"] + 1, "weights": torch.cat([before, weights])}
    growing = [side for side, X in new.items() if len(state.get(f"root of {side}", X)) < len(X)]
    # The earlier tasks are read only where it takes them.
    cross = {
        side: precise(_columns(old, side)).mT @ new[side] if old else X.new_zeros(0, X.shape[1])
        for side, X in new.items()
        if "W" not in state or side in growing
    }

    if "W" in state:
        found |= _with_update(state, new, own, weights)
    else:
        # ‖W + ΔW‖² = ‖W‖² + 2⟨W, ΔW⟩ + ‖ΔW‖², all of it from Gram matrices.
        met = 2 * (cross["A"] * cross["B"] * torch.outer(before, weights)).sum()
        added = (own["A"] * own["B"] * torch.outer(weights, weights)).sum()
        found["norm of W"] = state["norm of W"] + met + added
    rows = {}
    for side in SIDES:
        found[f"norm of {side}"] = state[f"norm of {side}"] + own[side].trace()
        found[f"least of {side}"] = state[f"least of {side}"]  # columns that join never make it smaller
        grown = _with_rows(state[f"root of {side}"], cross[side], own[side]) if side in growing else None
        if grown:
            found[f"root of {side}"], rows[side] = grown
            found[f"inverse of {side}"] = state[f"inverse of {side}"] + rows[side].square().sum()
    if len(rows) == 2:
        # Σ 1/σ² of W is tr(D P_A D P_B), where P is (MᵀM)⁻¹, to which the rows V add VᵀV, and D divides by weights.
        V = {side: (each / found["weights"]).mT for side, each in rows.items()}
        more = solve_triangular(found["root of B"], V["A"], upper=False).square().sum()
        more += solve_triangular(state["root of A"], V["B"][: len(before)], upper=False).square().sum()
        found["inverse of W"] = state["inverse of W"] + more
    return found


def _with_update(state: State, new: State, own: State, weights: Tensor) -> State:
    """Return W and its square with one more update added, and its norm."""
    W = state["W"] + (new["B"] * weights) @ new["A"].mT
    norm = W.square().sum()
    found = {"norm of W": norm}
    if norm > CANCELLED**2 * state["peak of W"]:
        # For o ≤ i: (W + Y Xᵀ)(W + Y Xᵀ)ᵀ with X = A and Y = B · weights, and otherwise with the roles exchanged.
        near, far = _near_and_far((W.shape[0], W.shape[1]))
        Y = new[near] * weights
        E = (state["W"] if near == "B" else state["W"].mT) @ new[far] @ Y.mT
        found |= {"W": W, "square of W": state["square of W"] + E + E.mT + Y @ own[far] @ Y.mT}
        found["peak of W"] = torch.maximum(state["peak of W"], norm)
    return found


def _with_rows(L: Tensor, C: Tensor, G: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the Cholesky factor of [[L Lᵀ, C], [Cᵀ, G]] and the new rows of its inverse; None if it has none."""
    Y = solve_triangular(L, C, upper=False)
    S, failed = cholesky_ex(G - Y.mT @ Y)
    if failed:
        return None
    inverse = solve_triangular(S, torch.eye(len(S), dtype=S.dtype, device=S.device), upper=False)
    rows = torch.cat([-inverse @ solve_triangular(L.mT, Y, upper=True).mT, inverse], 1)
    return torch.cat([torch.cat([L, torch.zeros_like(C)], 1), torch.cat([Y.mT, S], 1)]), rows


def _columns(updates: Sequence[LowRank], side: str) -> Tensor:
    """Return M, (i, R) or (o, R)."""
    if side == "A":
        return torch.cat([one.A for one in updates], -2).mT
    return torch.cat([one.B for one in updates], -1)


def _weights(update: LowRank) -> Tensor:
    """Return scale · σ of each direction of an update, (r,)."""
    sigma = update.A.new_ones(update.rank) if update.sigma is None else update.sigma[:, 0]
    return update.scale * precise(sigma)


def _near_and_far(shape: tuple[int, int]) -> tuple[str, str]:
    """Return the factor whose columns are as long as the shorter side of W, and the other."""
    return ("B", "A") if shape[0] <= shape[1] else ("A", "B")


def _proves(inverse: Tensor, squared_norm: Tensor, tolerance: float) -> bool:
    """Return whether σ_min, at least 1/√inverse, is above ``tolerance`` times σ_max, which a norm bounds."""
    # σ_max is at least σ_min, so that a product below 1 is rounding. What is NaN, after a division by 0, is False.
    return 0.5 < float(inverse * squared_norm) < (MARGIN * tolerance) ** -2


def _is_full(state: State, side: str) -> bool:
    """Return whether M is known to have as many directions as it has columns, or as there are."""
    if f"root of {side}" in state:
        return _proves(state[f"inverse of {side}"], state[f"norm of {side}"], DEPENDENT)
    return _proves(state[f"least of {side}"] ** -2, state[f"norm of {side}"], DEPENDENT)


def _is_exact(state: State) -> bool:
    """Return whether what is held of a W of fewer columns is accurate, as long as it is counted by its own size.

    What a Gram matrix loses of nearly dependent columns, or of updates that cancel, is rounding of larger numbers.
    """
    most = state["norm of A"] * state["norm of B"] * state["weights"].square().max()
    return all(_is_full(state, side) for side in SIDES) and bool(state["norm of W"] > SURE**2 * most)


def _used(past: UpdateHistory, site: str, state: State, side: str) -> int:
    """Return how many independent columns M has."""
    out, into = past.deltas[0][site].shape
    height = into if side == "A" else out
    if _is_full(state, side):
        return min(height, len(state["weights"]))
    values = torch.linalg.svdvals(precise(_columns([delta[site] for delta in past], side)))
    used = int(independent(values).sum())
    if used == height:
        state[f"least of {side}"] = values[-1]
    return used


def _rank(past: UpdateHistory, site: str, state: State) -> int:
    """Return the numerical rank of W."""
    shape, total = past.deltas[0][site].shape, len(state["weights"])
    least, tolerance = min(shape), max(shape) * TOLERANCE
    if total < least:
        if not _is_exact(state):
            return numerical_rank(past.factors(site))
        if _proves(state["inverse of W"], state["norm of W"], tolerance):
            return total
        # W = Q_B (L_Bᵀ D L_A) Q_Aᵀ with orthonormal Q.
        return rank_of(state["root of B"].mT @ (state["weights"][:, None] * state["root of A"]), shape)
    if "W" not in state:
        W = state["W"] = past.factors(site).map(precise).dense()
        state["norm of W"] = state["peak of W"] = W.square().sum()
        state["square of W"] = W @ W.mT if _near_and_far(shape)[0] == "B" else W.mT @ W
    square = state["square of W"]
    bound = (MARGIN * tolerance) ** 2 * square.norm()  # which is at least the square of σ_max
    # Positive definite even so: no eigenvalue, a squared singular value of W, is below the bound.
    failed = cholesky_ex(square - bound * torch.eye(least, dtype=square.dtype, device=square.device))[1]
    if not failed and bound > 0:
        return least
    values = torch.linalg.eigvalsh(square).clamp_min(0).sqrt()
    return int((values > values.max() * tolerance).sum())
