"""Holds what earlier tasks have left behind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from everlora.core.stacked import StackedPast
from everlora.core.updates import LowRank, LowRankUpdates, State, concatenate, stack

if TYPE_CHECKING:
    from everlora.core.roles import Merge


@dataclass(frozen=True)
class Grown:
    """Holds what was made of the first ``count`` tasks, the last of which is ``last``."""

    count: int
    last: LowRankUpdates
    state: State


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
    made: dict[Hashable, Grown] = field(default_factory=dict, compare=False, repr=False)
    """What `grown` has made, which a history and those that follow it share."""

    def __len__(self) -> int:
        return len(self.deltas)

    def __iter__(self) -> Iterator[LowRankUpdates]:
        return iter(self.deltas)

    def append(self, delta: LowRankUpdates) -> UpdateHistory:
        """Return the history with the updates of one more task; this one stays as it is."""
        return UpdateHistory((*self.deltas, delta), self.made)

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

    def grown(
        self, key: Hashable, sites: Sequence[str], extend: Callable[[State | None, LowRank], State]
    ) -> State | None:
        """Return what ``extend`` makes of the tasks' updates one after the other; None where there are none.

        What it made of the tasks before is held, so that it is called for new ones alone.

        Args:
            key: of what is made, by all that it depends on besides the updates.
            sites: modules of one shape, whose updates are stacked.
            extend: is given what it made so far (None at first), and the updates of one more task.
        """
        held = self.made.get((key, *sites))
        # The same tasks, and not only as many: two histories may go on from one.
        known = held if held and held.count <= len(self) and self.deltas[held.count - 1] is held.last else None
        state = known.state if known else None
        for delta in self.deltas[known.count if known else 0 :]:
            state = extend(state, stack([delta[site] for site in sites]))
        if state is not None:
            self.made[key, *sites] = Grown(len(self), self.deltas[-1], state)
        return state

    def merged(self, site: str, merge: Merge) -> Tensor:
        """Return what ``merge`` makes of all past updates of one module, dense, (o, i), fp32.

        One that is associative merges what is new with what it made before; that is held, and not to be written to.
        """
        if not merge.associative:
            return merge.merge(delta[site].dense() for delta in self.deltas)

        def extend(state: State | None, update: LowRank) -> State:
            one = update.map(lambda tensor: tensor[0]).dense()
            return {"merged": merge.merge([one] if state is None else [state["merged"], one])}

        found = self.grown(merge, [site], extend)
        assert found is not None, "a merge of nothing"
        return found["merged"]

    @property
    def numel(self) -> int:
        return sum(site.numel for delta in self.deltas for site in delta.values())
