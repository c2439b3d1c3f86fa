"""Makes one weight of the updates of all tasks, by several rules.

Pure functions of dense updates (..., o, i), oldest first. A merge draws them one at a time where its rule allows, so
that two of them are in memory and not all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import Merge, View


def larger(new: Tensor, old: Tensor) -> Tensor:
    """Take entry by entry the one of larger magnitude; of two equally large ones the new (PS-LoRA, merging).

    >>> larger(torch.tensor([1.0, -3.0]), torch.tensor([2.0, 2.0]))
    tensor([ 2., -3.])
    """
    return torch.where(new.abs() >= old.abs(), new, old)


def trim(update: Tensor, density: float) -> Tensor:
    """Keep the ⌊density · n⌋ entries of largest magnitude of each matrix (..., o, i), zero the rest.

    >>> trim(torch.tensor([[1.0, -4.0, 2.0, 0.5]]), density=0.5)
    tensor([[ 0., -4.,  2.,  0.]])
    """
    flat = update.flatten(-2)
    count = int(density * flat.shape[-1] + 1e-9)  # 0.29 * 100 is 28.999…
    kept = flat.abs().topk(count, dim=-1).indices
    return torch.zeros_like(flat).scatter(-1, kept, flat.gather(-1, kept)).view_as(update)


def ties(updates: Iterable[Tensor], density: float) -> Tensor:
    """Merge updates by TIES: trim each, elect a sign per entry, and average what agrees with it; (..., o, i).

    Source: Yadav et al. 2023, arXiv:2306.01708. The sign is that of the sum, and 0 counts as +.

    >>> ties([torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 1.0]])], density=1.0)
    tensor([[ 2., -2.]])
    """
    trimmed = torch.stack([trim(update, density) for update in updates])
    sign = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agree = trimmed * sign > 0
    return (trimmed * agree).sum(0) / agree.sum(0).clamp_min(1)


def drop(update: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Drop entries with probability 1 − density, divide by density: DARE (Yu et al. 2024, arXiv:2311.03099).

    >>> left = drop(torch.ones(1, 1000), density=0.5, generator=torch.Generator().manual_seed(0))
    >>> left.unique()
    tensor([0., 2.])
    """
    keep = torch.rand(update.shape, generator=generator).to(update.device) < density
    return update * keep / density


@dataclass(frozen=True, kw_only=True)
class _Views:
    train: View = "sum"
    infer: View = "merged"


@dataclass(frozen=True, kw_only=True)
class LargestMagnitude(_Views, Merge):
    """Merges as PS-LoRA: M_t = larger(ΔW_t, M_{t−1}), the entry of largest magnitude over all tasks.

    >>> LargestMagnitude().merge([torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 2.0]])])
    tensor([[ 2., -3.]])
    """

    name: ClassVar[str] = "largest_magnitude"
    associative: ClassVar[bool] = True

    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        merged: Tensor | None = None
        for update in updates:
            merged = update if merged is None else larger(update, merged)
        assert merged is not None
        return merged


@dataclass(frozen=True, kw_only=True)
class Mean(_Views, Merge):
    """Merges into the mean of the updates.

    >>> Mean().merge([torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 2.0]])])
    tensor([[ 1.5000, -0.5000]])
    """

    name: ClassVar[str] = "mean_merge"

    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        count, total = 0, None
        for update in updates:
            count, total = count + 1, update if total is None else total + update
        assert total is not None
        return total / count


@dataclass(frozen=True, kw_only=True)
class Ties(_Views, Merge):
    """Merges by TIES, see `ties`."""

    name: ClassVar[str] = "ties_merge"
    density: float = 0.2

    def __post_init__(self) -> None:
        _check(self.name, self.density)

    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        return ties(updates, self.density)


@dataclass(frozen=True, kw_only=True)
class Dare(_Views, Merge):
    """Merges by DARE, see `drop`: the sum, or TIES without trimming. Masks depend on seed, task and shape alone."""

    name: ClassVar[str] = "dare_merge"
    density: float = 0.5
    elect: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.name, self.density)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"the seed of {self.name!r} must be at least 0 and below 2**63, not {self.seed}")

    def merge(self, updates: Iterable[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        dropped = [drop(update, self.density, generator) for update in updates]
        return ties(dropped, 1.0) if self.elect else torch.stack(dropped).sum(0)


def _check(name: str, density: float) -> None:
    if not 0 < density <= 1:
        raise ConfigError(f"the density of {name!r} must be above 0 and at most 1, not {density}")
