from __future__ import annotations

import hashlib

import pytest
import torch

from everlora.runtime.seeds import seed_for, seeded


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
