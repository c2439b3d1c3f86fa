"""Finds directions of a layer's features: those of earlier tasks are left alone, a new task learns in its own.

Pure functions first, in fp64; the part that carries its settings second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import ClassVar, Literal, ParamSpec

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import (
    NO_EVIDENCE,
    Evidence,
    EvidenceKind,
    HasMemory,
    Initialiser,
    Needs,
    NeedsEvidence,
    State,
)
from everlora.core.updates import LowRank, precise

ROW = 3**-0.5
"""Norm of a row of A, as PEFT's Kaiming start has it on average."""
NOTHING = 1e-12
"""A direction with less than this part of the energy is rounding."""
OVERSAMPLED, LAPS, RESIDUAL = 24, 30, 1e-9
"""Of `leading`: directions more than are looked for, most steps, and how far off an eigenvector is at most."""

Measure = Literal["features", "moment"]
P = ParamSpec("P")


def same_again(act: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let a function return what it did the last time, if it is given equal tensors and values once more.

    Query, key and value read the same features, so that what is made of them is made once for each block. What is
    returned is not to be written to.
    """
    last: tuple[tuple[object, ...], Tensor] | None = None

    @wraps(act)
    def once(*args: P.args, **named: P.kwargs) -> Tensor:
        nonlocal last
        given = (*args, *named.items())
        if last is None or len(last[0]) != len(given) or not all(map(_equal, last[0], given)):
            # Copies: whoever owns them may write to them before the next call.
            last = tuple(one.clone() if isinstance(one, Tensor) else one for one in given), act(*args, **named)
        return last[1]

    return once


def _equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


@torch.no_grad()
def project_off(columns: Tensor, basis: Tensor, dual: bool = False) -> Tensor:
    """Return (I − F Fᵀ) X for X (..., i, m) and F = ``basis`` (..., i, q), whose columns are orthonormal.

    With ``dual``, ``basis`` spans the complement of F instead.

    >>> project_off(torch.tensor([[3.0], [4.0]]), basis=torch.tensor([[1.0], [0.0]]))
    tensor([[0.],
            [4.]])
    """
    inside = basis @ (basis.mT @ columns)
    return inside if dual else columns - inside


@torch.no_grad()
def leading(act: Callable[[Tensor], Tensor], count: int, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the largest eigenvalues (count) of a positive matrix M (n, n), and their vectors (n, count).

    By subspace iteration from a draw of a fixed seed: a decomposition of the whole of M takes several times as long.
    ‖M v − λ v‖ is at most `RESIDUAL` of λ for each of them; None where that is not reached, and where M is small.

    Args:
        act: X (n, m) to M X.
        count: how many.
        like: (n, n), of the type and on the device that is computed in.
    """
    size, width = len(like), count + OVERSAMPLED
    if 4 * width > size:
        return None
    drawn = torch.randn(size, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Q = torch.linalg.qr(act(drawn.to(like)))[0]
    off = torch.inf
    for lap in range(LAPS):
        Y = act(Q)
        if lap % 2:  # values and vectors cost as much as a step
            values, vectors = torch.linalg.eigh(Q.mT @ Y)
            values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
            V, before = Q @ vectors, off
            off = float(((Y @ vectors - V * values).norm(dim=0) / values.abs()).max())
            if off <= RESIDUAL:
                return values, V
            # Where the spectrum is flat, each step leaves about the same part of what is off; NaN goes on to the end.
            if off * (off / before) ** ((LAPS - lap) // 2) > RESIDUAL:
                return None
        Q = torch.linalg.qr(Y)[0]
    return None


@same_again
@torch.no_grad()
def extend_basis(moment: Tensor, basis: Tensor, share: float, measure: Measure = "features") -> Tensor:
    """Return F, orthonormal (i, q), extended by as few directions as hold ``share`` of the energy of the features.

    With C = (1/n) Σ x xᵀ the energy that F holds is tr(Fᵀ C F), and new directions are the largest eigenvectors of
    (I − FFᵀ) C (I − FFᵀ). ``moment`` squares C first, as the published code does: it takes the energy of C's own
    singular values, and so stops much earlier.

    >>> moment = torch.diag(torch.tensor([6.0, 3.0, 1.0]))
    >>> [extend_basis(moment, torch.zeros(3, 0), share).shape[1] for share in (0.5, 0.8, 1.0)]
    [1, 2, 3]

    Args:
        moment: C, (i, i).
        basis: F so far, (i, q).
        share: ε, from 0 to 1.
        measure: whose energy.
    """
    # Eigenvalues of squares, and of squares of squares, span the range of fp64; in fp32 the small ones would be noise.
    C = precise(moment)
    C = C @ C if measure == "moment" else C
    F = precise(basis)
    total = C.trace()
    if total <= 0:
        return F
    held = (F * (C @ F)).sum() / total
    # From both sides, which keeps the matrix symmetric: `eigh` reads one triangle of it.
    values, vectors = torch.linalg.eigh(project_off(project_off(C, F).mT, F))
    values, vectors = values.flip(0).clamp_min(0) / total, vectors.flip(1)
    before = held + torch.cat([values.new_zeros(1), values.cumsum(0)[:-1]])
    new = vectors[:, (before < share) & (values > NOTHING)][:, : F.shape[0] - F.shape[1]]
    # Eigenvectors are orthogonal to F up to rounding, which would add up over tasks.
    return torch.linalg.qr(torch.cat([F, project_off(new, F)], 1))[0]


@same_again
@torch.no_grad()
def complement(basis: Tensor) -> Tensor:
    """Return an orthonormal basis (i, i − q) of all that is orthogonal to ``basis`` (i, q).

    >>> complement(torch.tensor([[1.0], [0.0], [0.0]])).shape
    torch.Size([3, 2])
    """
    complete = torch.linalg.qr(basis, mode="complete")[0]
    return complete[:, basis.shape[1] :]


@same_again
@torch.no_grad()
def design_down_projection(moment: Tensor, basis: Tensor, dual: bool, rank: int) -> Tensor:
    """Return A, (r, i): top singular vectors of (I − FFᵀ) C, of norm 1/√3; 0 where no direction is left."""
    C = precise(moment)
    # Left singular vectors of (I − FFᵀ) C, and squares of its singular values.
    found = leading(lambda X: project_off(C @ (C @ project_off(X, basis, dual)), basis, dual), rank, C)
    if found and found[0][-1] > NOTHING * found[0][0]:
        U = found[1]
    else:
        U, S, _ = torch.linalg.svd(project_off(C, basis, dual), full_matrices=False)
        U = U * (NOTHING**0.5 * S[:1] < S)
    rows = project_off(U, basis, dual).mT[:rank] * ROW
    # Rows of 0 instead of fewer: the adapter's rank is one number, and a row of 0 adds and learns nothing.
    return torch.cat([rows, rows.new_zeros(rank - rows.shape[0], rows.shape[1])])


@torch.no_grad()
def keep_components(A: Tensor, basis: Tensor, dual: bool) -> Tensor:
    """Return rows of A (r, i) without what lies in F, brought to norm 1/√3; 0 where nothing is left."""
    rows = project_off(precise(A).mT, basis, dual).mT
    norm, full = rows.norm(dim=1, keepdim=True), precise(A).norm(dim=1, keepdim=True)
    return torch.where(norm > NOTHING**0.5 * full, rows * ROW / norm.clamp_min(torch.finfo(rows.dtype).tiny), 0)


@dataclass(frozen=True, kw_only=True)
class FeatureStart(Initialiser, HasMemory, NeedsEvidence):
    """Starts InfLoRA's A in the span of the new task's features, off that of earlier tasks'; A is never trained.

    Attributes:
        samples: rows of a task that are looked at, before it for A and after it for F.
        design: ``features``, or ``keep_components`` for PEFT's own draw off F.
        energy: ε of the first task.
        tasks: how many tasks are planned, T: ε_t = ε + (1 − ε)(t − 1) / T; without it ε stays.
        measure: whose energy, see `extend_basis`.
    """

    name: ClassVar[str] = "feature_start"
    needs: ClassVar[Needs] = Needs(fresh_adapter=True, first_task=True, memory_at_most=True)
    evidence: ClassVar[EvidenceKind] = "moment"
    samples: int = 256
    design: Literal["features", "projected"] = "features"
    energy: float = 0.995
    tasks: int | None = None
    measure: Measure = "moment"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples of {self.name!r} must be at least 1, not {self.samples}")
        if not 0 < self.energy <= 1:
            raise ConfigError(f"energy is a share of the features' energy, above 0 and at most 1, not {self.energy}")
        if self.tasks is not None and self.tasks < 1:
            raise ConfigError(f"tasks is how many tasks are planned, at least 1, not {self.tasks}")

    def covers(self, sites: Sequence[str]) -> tuple[str, ...]:
        return tuple(sites)

    def share(self, number: int) -> float:
        """Return ε_t of task ``number``."""
        if self.tasks is None:
            return self.energy
        return min(1.0, self.energy + (1 - self.energy) * (number - 1) / self.tasks)

    def start(
        self,
        fresh: LowRank,
        updates: Sequence[LowRank],
        evidence: Evidence = NO_EVIDENCE,
        memory: State | None = None,
    ) -> LowRank:
        into = fresh.shape[1]
        dual = bool(memory["dual"]) if memory else False
        basis = precise(memory["basis"]) if memory else precise(fresh.A.new_zeros(into, 0))
        if self.design == "projected":
            rows = keep_components(fresh.A, basis, dual)
        elif evidence.moment is None:
            raise ConfigError(f"{self.name!r} looks at training rows of the new task, and it has none")
        else:
            rows = design_down_projection(evidence.moment, basis, dual, fresh.rank)
        return replace(fresh, A=rows.to(fresh.A.dtype).contiguous())

    def remember(self, update: LowRank, memory: State, evidence: Evidence = NO_EVIDENCE) -> State:
        """Return F, or where that is smaller the basis of its complement; and of how many tasks."""
        into = update.shape[1]
        number = int(memory["tasks"]) + 1 if memory else 1
        basis = precise(memory["basis"]) if memory else precise(update.A.new_zeros(into, 0))
        # Extended as F itself: the energy that is held is counted by its directions.
        basis = complement(basis) if memory and bool(memory["dual"]) else basis
        if evidence.moment is not None:
            basis = extend_basis(evidence.moment, basis, self.share(number), self.measure)
        # Of a space more than half full the free part is the smaller description, so that what is stored grows to half
        # of it and shrinks again.
        dual = 2 * basis.shape[1] > into
        kept = complement(basis) if dual else basis
        return {
            "basis": kept.float().contiguous(),
            "dual": torch.tensor([dual], dtype=torch.uint8),
            "tasks": torch.tensor([number], dtype=torch.int32),
        }

    def memory_bytes(self, out: int, into: int, rank: int, tasks: int) -> int:
        """Return the bytes of at most half of all directions: how many depends on the data."""
        return 4 * into * (into // 2) + 5
