"""Summarises how sensitive a task's loss is to later updates, so that what they will cost it is forecast without rows.

When a task ends, at most `ROWS` of its training rows pass through the model once more. What is written of them is a
quadratic model of the task's mean loss in each adapted matrix W, for an update D of it that comes later:

    q(D) = ⟨G, D⟩ + ½ tr(Dᵀ L D R) / tr L

with G the mean gradient, and L and R the Kronecker factors of the Fisher information (answers drawn from the model);
and from before the task's first step L once more, where its training began to push, and the loss at both times. The
matrices are of low rank. Sums over rows are all that is kept of any row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from everlora.core.errors import FolderError
from everlora.core.roles import State
from everlora.core.updates import LowRank, precise
from everlora.models.families import Family
from everlora.parts import factor_stores
from everlora.training.evidence_rows import Rows
from everlora.training.forecast_sums import Look, Sums, sums_over

FILE = "forecast.safetensors"
ROWS = 32
"""Training rows of a task that its summary is made of."""
BYTES = 2**22
"""That a summary takes at most, as long as its factors have rank 1 at least."""
OVERSAMPLED = 8
"""Directions by which a random search for the largest ones is wider than what it looks for."""


@dataclass(frozen=True)
class LossModel:
    """Holds the quadratic model of a task's loss in one adapted matrix (o, i).

    Attributes:
        gradient: G, of low rank.
        left, right: L and R as `everlora.parts.factor_stores` keeps them.
        begin: L before the task's first step, kept likewise.
        trace: tr L.
    """

    gradient: LowRank
    left: State
    right: State
    begin: State
    trace: Tensor

    @classmethod
    def of(cls, sums: Sums, before: Sums, rank: int, generator: torch.Generator) -> LossModel:
        """Keep the largest ``rank`` directions of what was summed; all of it where it has no more."""
        return cls(
            gradient=_largest(sums.gradient, rank, generator),
            left=_encoded(sums.left, rank, generator),
            right=_encoded(sums.right, rank, generator),
            begin=_encoded(before.left, rank, generator),
            trace=sums.left.diagonal().sum(),
        )

    def curved(self, update: LowRank) -> LowRank:
        """Return the curvature's product with an update, L D R / tr L, as a pair of its rank."""
        up, A = update.up.float() * update.scale, update.A.float()
        weight = 1 / self.trace.clamp_min(torch.finfo(torch.float32).tiny)
        return LowRank(factor_stores.times(self.right, A.mT).mT, factor_stores.times(self.left, up) * weight)

    def overlap(self, left: Tensor) -> float:
        """Return how alike another task's output gradients are, whose factor is L' (o, o); from 0 to 1.

        The mean of ⟨L, L'⟩ / ‖L‖ ‖L'‖ over L before the first step and L now.
        """
        tiny, found = torch.finfo(torch.float32).tiny, 0.0
        for mine in map(factor_stores.decode, (self.begin, self.left)):
            found += float((mine * left).sum() / (mine.norm() * left.norm()).clamp_min(tiny)) / 2
        return found

    def terms(self, update: LowRank, since: LowRank | None = None) -> tuple[float, float]:
        """Return what an update adds to the loss, ⟨G, D⟩ + ⟨L S R, D⟩ / tr L and ½ tr(Dᵀ L D R) / tr L, in nats.

        Args:
            update: D.
            since: S, what was added since the model was made; None for nothing.
        """
        curved = self.curved(update)
        slope = product(self.gradient, update) + (product(since, curved) if since is not None else 0.0)
        return slope, product(update, curved) / 2


@dataclass(frozen=True)
class TaskSummary:
    """Holds what is kept of a task, for forecasts of what later ones do to it.

    Attributes:
        models: by adapted module.
        before, after: mean loss of its rows before its first step and when it was learned, in nats.
    """

    models: Mapping[str, LossModel]
    before: float
    after: float


def product(one: LowRank, other: LowRank) -> float:
    """Return ⟨D, E⟩ = tr(Dᵀ E) of two updates of one shape, from their factors.

    >>> one = LowRank(torch.ones(1, 3), torch.ones(2, 1), scale=2.0)
    >>> product(one, one)
    24.0
    """
    ups, downs = precise(one.up).mT @ precise(other.up), precise(one.A) @ precise(other.A).mT
    return one.scale * other.scale * float((ups * downs).sum())


def descent(live: LowRank, gradient: Tensor) -> LowRank:
    """Return how one step of gradient descent moves s B A at rate 1, to first order: −s² (G Aᵀ A + B Bᵀ G).

    What is not trained of the pair does not move. Exact where one factor is trained alone.

    Args:
        live: the pair before the step; of triplets the middle factor stays.
        gradient: G, (o, i).
    """
    up, A = live.up.detach().cpu().float() * live.scale, live.A.detach().cpu().float() * live.scale
    on_up = -(gradient @ A.mT) if live.B.requires_grad else torch.zeros_like(up)
    on_A = -(up.mT @ gradient) if live.A.requires_grad else torch.zeros_like(A)
    return LowRank(torch.cat([A, on_A]), torch.cat([on_up, up], 1))


def rank_for(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the rank at which summaries of matrices (o, i) take no more than `BYTES`; at most that of `ROWS` rows.

    >>> rank_for([(384, 384)] * 4), rank_for([(4096, 4096)] * 64)
    (32, 1)
    """
    width = sum(out + into for out, into in shapes)
    return min(ROWS, max(1, (BYTES // 4 // max(1, width) - 2) // 3))


def summarise(
    model: nn.Module, family: Family, layers: Mapping[str, nn.Module], rows: Rows, before: Look, seed: int
) -> TaskSummary:
    """Return the summary of a task that has just been learned.

    Args:
        model: as it answers from now on, with the task's adapter on it.
        family: how it reads rows.
        layers: the adapted layers, by path.
        rows: of the task, from which `ROWS` are drawn.
        before: what rows of it have shown before its first step.
        seed: of the draws.
    """
    chosen = random.Random(seed).sample(rows, min(ROWS, len(rows)))
    generator = torch.Generator().manual_seed(seed)
    now = sums_over(model, family, layers, chosen, generator)
    both = {name: one for name, one in now.sums.items() if name in before.sums}
    rank = rank_for([(len(one.left), len(one.right)) for one in both.values()])
    models = {name: LossModel.of(one, before.sums[name], rank, generator) for name, one in both.items()}
    return TaskSummary(models, before.loss, now.loss)


def write(folder: Path, summary: TaskSummary | None) -> None:
    """Write the summary of a task to its folder; nothing if there is none."""
    if summary is None:
        return
    flat = {"/losses": torch.tensor([summary.before, summary.after])}
    for name, one in summary.models.items():
        found = {"gradient.A": one.gradient.A, "gradient.B": one.gradient.up * one.gradient.scale}
        found["trace"] = one.trace.reshape(1)
        for side, kept in (("left", one.left), ("right", one.right), ("begin", one.begin)):
            found |= {f"{side}.{key}": tensor for key, tensor in kept.items()}
        flat |= {f"{name}/{key}": tensor.contiguous() for key, tensor in found.items()}
    save_file(flat, folder / FILE)


def read(folder: Path) -> TaskSummary | None:
    """Read the summary of a committed task; None where it has none.

    Raises:
        FolderError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        flat = load_file(folder / FILE)
        before, after = flat.pop("/losses").tolist()
        by_module: dict[str, State] = {}
        for key, tensor in flat.items():
            name, _, what = key.partition("/")
            by_module.setdefault(name, {})[what] = tensor
        models = {
            name: LossModel(
                gradient=LowRank(found["gradient.A"], found["gradient.B"]),
                left=_side(found, "left"),
                right=_side(found, "right"),
                begin=_side(found, "begin"),
                trace=found["trace"].reshape(()),
            )
            for name, found in by_module.items()
        }
        return TaskSummary(models, before, after)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise FolderError(f"{folder / FILE} cannot be read: {error}; restore the folder from a copy") from error


def _side(found: State, side: str) -> State:
    """Return what is kept of one factor."""
    return {key.removeprefix(f"{side}."): tensor for key, tensor in found.items() if key.startswith(f"{side}.")}


def _largest(matrix: Tensor, rank: int, generator: torch.Generator) -> LowRank:
    """Return a matrix (o, i) as a pair of ``rank``: its largest directions, as a random search finds them.

    Exact where the matrix has no higher rank.
    """
    M = precise(matrix)
    Q = M @ torch.randn(M.shape[1], min(rank + OVERSAMPLED, *M.shape), generator=generator, dtype=M.dtype)
    for _ in range(2):
        Q = M @ (M.mT @ torch.linalg.qr(Q).Q)
    Q = torch.linalg.qr(Q).Q
    U, S, V = torch.linalg.svd(Q.mT @ M, full_matrices=False)
    return LowRank((S[:rank, None] * V[:rank]).float(), (Q @ U[:, :rank]).float())


def _encoded(matrix: Tensor, rank: int, generator: torch.Generator) -> State:
    """Return a symmetric matrix as `factor_stores` keeps ``diagonal``, by a random search for its largest part."""
    M, n = precise(matrix), len(matrix)
    Q = M @ torch.randn(n, min(rank + OVERSAMPLED, n), generator=generator, dtype=M.dtype)
    for _ in range(2):
        Q = M @ torch.linalg.qr(Q).Q
    Q = torch.linalg.qr(Q).Q
    values, vectors = torch.linalg.eigh(Q.mT @ M @ Q)
    root = (Q @ vectors[:, -rank:]) * values[-rank:].clamp_min(0).sqrt()
    left = M.diagonal() - root.square().sum(1)
    return {"root": root.float().contiguous(), "diagonal": left.clamp_min(0).float()}
