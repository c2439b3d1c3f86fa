"""Orders the rows that are trained on, where they are not simply shuffled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle, islice

import torch
from torch.utils.data import Sampler

from everlora.core.roles import BlockStep, plan
from everlora.runtime.seeds import seed_for


class Order(Sampler[int], ABC):
    """Yields indices of rows, epoch after epoch, from a seed of its own: nothing else's randomness is touched."""

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take note of the epoch that begins; the Trainer calls this."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[int]: ...

    def shuffled(self, start: int, size: int, purpose: str) -> Iterator[int]:
        """Return the rows from ``start`` on, again and again, shuffled afresh each time."""
        # From the number of the epoch and no running state: every process draws the same order and takes its share of
        # it.
        draw = torch.Generator().manual_seed(seed_for(self.seed, purpose, self.epoch))
        while True:
            yield from (start + torch.randperm(size, generator=draw)).tolist()


class EqualShares(Order):
    """Shows every task equally often: a row of each in turn, smaller sets from their beginning again, shuffled anew.

    A batch as large as the number of tasks, or a multiple of it, then holds equally many rows of each.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        super().__init__(seed)
        self.sizes = list(sizes)

    def __len__(self) -> int:
        return len(self.sizes) * max(self.sizes)

    def __iter__(self) -> Iterator[int]:
        starts = [0, *accumulate(self.sizes)]
        tasks = [self.shuffled(starts[k], size, f"task {k}") for k, size in enumerate(self.sizes)]
        return (next(rows) for rows in islice(cycle(tasks), len(self)))


class Blocks(Order):
    """Shows rows in blocks of steps, ``inner`` on new and then ``outer`` on rehearsed ones, of ``batch`` rows each.

    An epoch is a pass over the new rows. Every step has its full number of rows, so that blocks stay in step with the
    optimiser: rows that are missing at the end are taken from the same new rows, shuffled again. The last block of an
    epoch may have fewer inner steps. Rehearsed rows are passed through again and again.

    Args:
        fresh, rehearsed: numbers of new rows, and of rehearsed rows, which stand behind them.
        batch: rows of one optimiser step, over all micro-batches and processes.
        inner, outer: steps.
        seed: of the task.
    """

    def __init__(self, fresh: int, rehearsed: int, *, batch: int, inner: int, outer: int, seed: int) -> None:
        super().__init__(seed)
        self.fresh, self.rehearsed, self.batch = fresh, rehearsed, batch
        self.turns: tuple[BlockStep, ...] = plan(-(-fresh // batch), inner, outer)
        """The steps of one epoch."""

    def __len__(self) -> int:
        return len(self.turns) * self.batch

    def __iter__(self) -> Iterator[int]:
        new = self.shuffled(0, self.fresh, "new")
        old = self.shuffled(self.fresh, self.rehearsed, "rehearsed")
        for turn in self.turns:
            yield from islice(old if turn.rehearsed else new, self.batch)
