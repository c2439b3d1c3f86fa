"""The memory law: what a method says it keeps after T tasks is what it keeps, for T up to twelve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lives
from everlora import parse
from everlora.core.roles import Consolidator
from everlora.engine import adapters
from lives import TRAINED

T = 12
P = 2 * 4 * (64 + 64 + 64 + 32)
"""Elements of one adapter of tiny-llama: two layers, rank 4, query 64 x 64 and value 32 x 64."""


@pytest.mark.parametrize("method", TRAINED)
def test_kept_over_twelve_tasks(method, tmp_path):
    rule, joint = parse(method).consolidator, parse(method).regime == "joint"
    claimed, weights = [], []

    def note(_):
        claimed.append(life.kept()["kept_elements"])
        weights.append(sum(t.numel() for t in (b.pristine for b in life.mount._below.values()) if t is not None))
        assert all(below.factors is None for below in life.mount._below.values())

    tasks = tuple(task.take(2, 1) for task in lives.stream("tiny-llama", T))
    train = {"max_steps": 1, "per_device_train_batch_size": 2}
    life = lives.begin("tiny-llama", method, tmp_path / "run", train=train, progress=lives.Watch(learning=note))
    life.follow(tasks)
    claimed.append(life.kept()["kept_elements"])
    assert claimed[0] == 0
    assert claimed[1:] == [rule.kept(t, P) for t in range(1, 2 if joint else T + 1)]
    # Beside the factors there is at most one copy of the adapted matrices, however many tasks there are.
    assert max(weights) <= 2 * (64 * 64 + 64 * 32)
    stored = [sum(s.numel for s in adapters.read(stage.path)[0].values()) for stage in life.folder.stages()]
    assert set(stored) == {P}
    if rule.rule == "sum":
        assert sum(s.numel for s in adapters.read(tmp_path / "run")[0].values()) == rule.kept(T, P)


@given(st.sampled_from(["sum", "keep", "continue"]), st.integers(1, 500), st.integers(1, 10**9))
def test_the_declaration_is_linear_or_constant(rule, tasks, adapter):
    kept = Consolidator(rule=rule).kept
    assert kept(1, adapter) == adapter
    assert kept(tasks + 1, adapter) - kept(tasks, adapter) == (0 if rule == "continue" else adapter)
