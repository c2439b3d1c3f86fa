"""Gives views of a long past that are made when they are asked for, so that it is held once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch

from everlora.core.updates import LowRank, LowRankUpdates, check_alike, stack

if TYPE_CHECKING:
    from everlora.core.history import UpdateHistory


@dataclass(frozen=True)
class StackedPast(Sequence[LowRank]):
    """Holds what every earlier task added to modules of one shape, oldest first, each stacked when it is asked for.

    Attributes:
        deltas: by task and module.
        sites: the modules, in the order of the stack.
    """

    deltas: Sequence[LowRankUpdates]
    sites: Sequence[str]

    def __post_init__(self) -> None:
        for delta in self.deltas:
            check_alike([delta[site] for site in self.sites])

    def __len__(self) -> int:
        return len(self.deltas)

    @overload
    def __getitem__(self, task: int) -> LowRank: ...

    @overload
    def __getitem__(self, task: slice) -> StackedPast: ...

    def __getitem__(self, task: int | slice) -> LowRank | StackedPast:
        """Return one task's update of the modules, A (L, r, i) and B (L, o, r), or some tasks."""
        if isinstance(task, slice):
            return StackedPast(self.deltas[task], self.sites)
        return stack([self.deltas[task][site] for site in self.sites])

    def joined(self) -> LowRank:
        """Return all of it as one update of rank R = Σ r and scale 1, (L, R, i) and (L, o, R)."""
        # Filled in place: stacked and joined, a long past would be held three times.
        rank, first = sum(delta[self.sites[0]].rank for delta in self.deltas), self.deltas[0][self.sites[0]]
        (out, into), device, at = first.shape, first.A.device, 0
        A = torch.empty(len(self.sites), rank, into, device=device)
        B = torch.empty(len(self.sites), out, rank, device=device)
        for delta in self.deltas:
            for k, site in enumerate(self.sites):
                one = delta[site].absorb_scale()
                A[k, at : at + one.rank], B[k, :, at : at + one.rank] = one.A, one.B
            at += one.rank
        return LowRank(A, B)


class SummedPast(Mapping[str, LowRank]):
    """Gives the sum of a past by module, each as one update of rank Σ r that is made when it is asked for."""

    def __init__(self, past: UpdateHistory) -> None:
        self._past = past
        self._latest: tuple[str, LowRank] | None = None  # both factors of a module are asked for in turn

    def __getitem__(self, site: str) -> LowRank:
        if self._latest is None or self._latest[0] != site:
            self._latest = site, self._past.factors(site)
        return self._latest[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._past.sites)

    def __len__(self) -> int:
        return len(self._past.sites)
