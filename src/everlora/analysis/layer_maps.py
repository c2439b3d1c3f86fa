"""Measures where in a model tasks meet: the sensitivity of earlier updates, and Fisher information, by module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from everlora.core.updates import LowRank, LowRankUpdates
from everlora.models.families import Family
from everlora.parts.blend import sensitivity
from everlora.training.evidence import weight_gradients
from everlora.training.evidence_rows import Rows


@dataclass(frozen=True)
class ModuleMap:
    """Holds what was measured of one module.

    Attributes:
        stack: ``encoder`` or ``decoder``; ``layers`` where a model has one stack.
        block: number of its transformer block, from 0.
        kind: what it is inside its block.
        sensitivity: mean over the earlier tasks' triplets of LB-CL's S, on rows of a new task.
        fisher: mean over rows and entries of (∂L/∂W)².
    """

    stack: str
    block: int
    kind: str
    sensitivity: float
    fisher: float


def placed(module: str) -> tuple[str, int, str]:
    """Return stack, block and kind of a module by its path.

    >>> placed("decoder.block.3.layer.0.SelfAttention.q"), placed("bert.encoder.layer.1.attention.self.query")
    (('decoder', 3, 'SelfAttention.q'), ('encoder', 1, 'attention.self.query'))
    """
    found = re.match(r"(.*?)\.(\d+)\.(.*)", module)
    if found is None:
        return "layers", 0, module
    stack = next((side for side in ("decoder", "encoder") if side in found[1]), "layers")
    return stack, int(found[2]), re.sub(r"^layer\.\d+\.", "", found[3])


def triplets(update: LowRank) -> LowRank:
    """Return an update in SVD form, which it may have already.

    >>> one = triplets(LowRank(A=torch.tensor([[3.0, 4.0]]), B=torch.tensor([[2.0], [0.0]])))
    >>> round(float(one.sigma[0, 0]), 4)
    10.0
    """
    if update.sigma is not None:
        return update
    (left, up), (right, down) = torch.linalg.qr(update.B), torch.linalg.qr(update.A.mT)
    U, sigma, V = torch.linalg.svd(up @ down.mT)
    return LowRank(V @ right.mT, left @ U, update.scale, sigma[:, None])


def module_maps(model: nn.Module, family: Family, updates: Sequence[LowRankUpdates], rows: Rows) -> list[ModuleMap]:
    """Measure every adapted module on rows of a new task, row by row.

    Args:
        model: with the updates of the earlier tasks in it.
        family: how it reads rows.
        updates: of the earlier tasks.
        rows: of the new one.
    """
    layers = {name: model.get_submodule(name) for name in updates[0]}
    sums = {name: torch.zeros(()) for name in layers}
    squares = dict.fromkeys(layers, 0.0)
    for row in rows:
        for name, gradient in weight_gradients(model, family, layers, [row], per_sample=False).items():
            sums[name] = sums[name] + gradient
            squares[name] += float(gradient.square().mean()) / len(rows)
    found = []
    for name in layers:
        mean = sums[name] / len(rows)
        scores = torch.stack([sensitivity(triplets(one[name]), mean) for one in updates])
        found.append(ModuleMap(*placed(name), float(scores.mean()), squares[name]))
    return found
