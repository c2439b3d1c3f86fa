from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from everlora import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import State, TaskContext
from everlora.core.updates import LowRank
from everlora.parts.penalties import EnergyOverlap
from everlora.runtime.seeds import seed_for, seeded
from everlora.training.chain import Chain


def test_seeds_are_written_in_stone() -> None:
    """A change here changes every run of every user: it belongs into the changelog."""
    assert seed_for(0, 1, "adapter") == int(hashlib.sha256(b"0/1/adapter").hexdigest()[:8], 16) >> 1
    assert [seed_for(0, 1, "adapter"), seed_for(0, 1, "data"), seed_for(1)] == [2113642641, 1784623542, 901994809]


def test_seeds_differ_by_run_task_and_purpose() -> None:
    found = {seed_for(run, task, what) for run in range(20) for task in range(20) for what in ("adapter", "data")}
    assert len(found) == 800
    assert all(0 <= seed < 2**31 for seed in found)
    # Numbers that read alike when run together are kept apart.
    assert seed_for(1, 11) != seed_for(11, 1)
    assert seed_for(1, 1, 1) != seed_for(1, 11)


def test_drawing_inside_leaves_the_stream_outside_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    first = torch.rand(2)
    with seeded(7):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), inside)
    with seeded(8):
        assert not torch.equal(torch.rand(3), inside)


def test_the_stream_is_restored_after_an_error() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()

    def fail() -> None:
        with seeded(7):
            torch.rand(1)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


class Noting(EnergyOverlap):
    """Writes down the seed that it is given."""

    name: ClassVar[str] = "noting"
    seeds: ClassVar[list[int]] = []

    def prepare(self, before: TaskContext) -> State | None:
        self.seeds.append(before.seed)
        return None


class Other(Noting):
    """The same under another name."""

    name: ClassVar[str] = "other"


def seeds_of(part: Noting, *, run: int = 0, task: str = "first", modules: tuple[str, ...] = ("q",)) -> tuple[int, ...]:
    """What the chain of one task gives a part, one seed per group of modules of one shape."""
    live = {name: LowRank(torch.zeros(2, 5), torch.zeros(4, 2)) for name in modules}
    live["wide"] = LowRank(torch.zeros(2, 9), torch.zeros(4, 2))
    Noting.seeds.clear()
    method = replace(parse("inclora"), penalties=(part,))
    Chain.build([], live, UpdateHistory(()), method, task=task, max_norm=0.0, every=1, seed=run)
    return tuple(Noting.seeds)


def test_a_part_draws_anew_for_every_run_task_part_and_group() -> None:
    first = seeds_of(Noting())
    assert seeds_of(Noting()) == first
    assert first == (seed_for(0, "first", "noting", "q"), seed_for(0, "first", "noting", "wide"))
    others = [
        seeds_of(Noting(), run=1),
        seeds_of(Noting(), task="second"),
        seeds_of(Other()),
        seeds_of(Noting(), modules=("q", "v")),
    ]
    found = {seed for seeds in (first, *others) for seed in seeds}
    assert len(found) == 5 * 2 - 1, "all differ, but that of the group that stays as it was"
