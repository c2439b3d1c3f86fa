"""Holds what earlier tasks have left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from everlora.core.stacked import StackedPast
from everlora.core.updates import LowRank, LowRankUpdates, concatenate


@dataclass(frozen=True)
class UpdateHistory:
    """Holds the updates of all earlier tasks, oldest first, as factors: exact, and smaller than dense matrices.

    A part chooses a view: `factors` (what each task added, one behind the other) or `total` (their plain sum). Dense
    views are made per group of modules, on demand, and are dropped when the task ends.

    >>> import torch
    >>> task = {"layer": LowRank(torch.ones(1, 3), torch.ones(2, 1))}
    >>> history = UpdateHistory().append(task).append(task)
    >>> len(history), history.factors("layer").rank, float(history.total("layer")[0, 0])
    (2, 2, 2.0)
    """

    deltas: tuple[LowRankUpdates, ...] = ()

    def __len__(self) -> int:
        return len(self.deltas)

    def __iter__(self) -> Iterator[LowRankUpdates]:
        return iter(self.deltas)

    def append(self, delta: LowRankUpdates) -> UpdateHistory:
        """Return the history with the updates of one more task; this one stays as it is."""
        return UpdateHistory((*self.deltas, delta))

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the paths of the adapted modules."""
        return tuple(self.deltas[0]) if self.deltas else ()

    def factors(self, site: str) -> LowRank:
        """Return all past updates of one module as one update of rank R = Σ r and scale 1."""
        return concatenate([delta[site] for delta in self.deltas])

    def total(self, site: str) -> Tensor:
        """Return W_past = Σ ΔW of one module, dense, (o, i), fp32."""
        return self.factors(site).dense()

    def stacked(self, sites: Sequence[str]) -> Sequence[LowRank]:
        """Return the tasks' updates of modules of one shape, each stacked to (L, r, i) and (L, o, r), oldest first."""
        return StackedPast(self.deltas, sites) if self.deltas else ()

    @property
    def numel(self) -> int:
        return sum(site.numel for delta in self.deltas for site in delta.values())
