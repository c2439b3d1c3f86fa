"""The memory law: what a method says it keeps after T tasks is what it keeps, for T up to fifty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny_runs
from everlora import parse
from everlora.adapters import files as adapters
from everlora.core.adapter import Consolidator
from plan import case
from tiny_runs import TRAINED

over = pytest.mark.parametrize("number", [5, pytest.param(12, marks=pytest.mark.full)])
"""How many tasks."""
WHOLE, OUT = 2 * (64 * 64 + 32 * 64), 2 * (64 + 32)
"""Entries and rows of all adapted matrices of tiny-llama."""
P = 2 * 4 * (64 + 64 + 64 + 32)
"""Elements of one adapter of tiny-llama: two layers, rank 4, query 64 x 64 and value 32 x 64."""


@over
@pytest.mark.parametrize("method", TRAINED)
def test_kept_over_many_tasks(method, number, tmp_path):
    composed = parse(method)
    rule, joint = composed.consolidator, composed.regime == "joint"
    size = P + (4 * 4 if composed.adapter.form == "svd" else 0)  # a σ per triplet: four matrices of rank four
    claimed, weights = [], []

    def note(_):
        claimed.append(learner.storage().stored_elements)
        weights.append(sum(t.numel() for t in (b.original for b in learner.backend._folded.values()) if t is not None))
        assert all(below.factors is None for below in learner.backend._folded.values())

    tasks = tuple(task.take(2, 1) for task in tiny_runs.stream("tiny-llama", number))
    train = {"max_steps": 1, "per_device_train_batch_size": 2}
    learner = tiny_runs.begin(
        "tiny-llama", method, tmp_path / "run", train=train, progress=tiny_runs.Watch(learning=note)
    )
    learner.follow(tasks)
    claimed.append(learner.storage().stored_elements)
    assert claimed[0] == 0
    assert claimed[1:] == [rule.stored_elements(t, size) for t in range(1, 2 if joint else number + 1)]
    # Beside the factors there is at most one copy of the adapted matrices, however many tasks there are.
    assert max(weights) <= 2 * (64 * 64 + 64 * 32)
    stored = [sum(s.numel for s in adapters.read(stage.path)[0].values()) for stage in learner.folder.stages()]
    assert set(stored) == {size}
    if rule.rule == "sum" and composed.merge is None:
        assert sum(s.numel for s in adapters.read(tmp_path / "run")[0].values()) == number * P


LAWS = [
    ("ella", lambda t: 4 * t * P),
    ("ella(store=dense)", lambda t: 4 * t * P + 4 * WHOLE),
    ("ella(store=int8)", lambda t: 4 * t * P + WHOLE + 4 * OUT),
    ("ella(store=svd,store_rank=6)", lambda t: 4 * t * P + 2 * sum(4 * min(6, 4 * t) * n + 4 for n in (128, 96))),
    ("ella(policy=continue,store=svd)", lambda t: 4 * P + 2 * sum(4 * 4 * n + 4 for n in (128, 96))),
    ("ps-lora", lambda t: 4 * t * P),
    ("lb-cl", lambda t: 4 * t * (P + 16)),
    ("seqlora", lambda t: 4 * P),
]


@pytest.mark.parametrize(
    ("method", "law", "number"),
    [case((method, law, number), everyday=number < 50) for method, law in LAWS for number in (5, 50)],
)
def test_bytes_over_fifty_tasks(method, law, number, tmp_path):
    """Bytes kept when a task begins, over up to fifty tasks, and what is on disk beside the adapters in the end."""
    seen = []
    tasks = tuple(task.take(2, 1) for task in tiny_runs.stream("tiny-llama", number))
    train = {"max_steps": 1, "per_device_train_batch_size": 2}
    note = tiny_runs.Watch(learning=lambda _: seen.append(learner.storage().memory_bytes))
    learner = tiny_runs.begin("tiny-llama", method, tmp_path / "run", train=train, progress=note)
    learner.follow(tasks)
    assert seen == [0, *(law(t) for t in range(1, number))]
    last = learner.folder.stages()[-1].path
    held = load_file(last / "memory.safetensors") if (last / "memory.safetensors").exists() else {}
    adapters_kept = 4 * parse(method).consolidator.stored_elements(number, learner.storage().adapter_elements)
    assert sum(tensor.nbytes for tensor in held.values()) == law(number) - adapters_kept


E = 64  # width of tiny-llama
FORMS = [
    ("ewc", lambda t: 4 * 2 * P),
    ("ewc(form=per-task)", lambda t: 4 * 3 * P),
    ("lwf", lambda t: 4 * P),
    ("kfac", lambda t: 4 * t * P + 2 * (2 * 8 + 4 * (3 * 64**2 + 32**2))),  # two factors, a trace and a count a matrix
    ("kfac(store=int8)", lambda t: 4 * t * P + 2 * (2 * 8 + 3 * (64**2 + 4 * 64 + 4) + 32**2 + 4 * 32 + 4)),
    ("migu", lambda t: 4 * P),
    ("slao", lambda t: 4 * (P + 4 * OUT)),
    ("n-lora", lambda t: 4 * t * P),
    ("data(low=2,high=3)", lambda t: 4 * (5 * (P // 4) + 6 * 8 * E * t)),  # two blocks are one group
    ("sd-lora", lambda t: 4 * (t * P + t * 4 + t)),
    ("osf", lambda t: 4 * WHOLE),
    ("l2p", lambda t: 4 * 10 * (5 + 1) * E),
    ("progprompt(mlp=8)", lambda t: 4 * t * 10 * E),
    ("lfpt5(length=8,tries=1)", lambda t: 4 * 8 * E),
]


@over
@pytest.mark.parametrize(("method", "law"), FORMS, ids=[method for method, _ in FORMS])
def test_the_cards_law_in_bytes(method, law, number, tmp_path):
    """Of every form that a task may train: what its card says is stored, what is counted, and what is on disk."""
    seen = []
    tasks = tuple(task.take(2, 1) for task in tiny_runs.stream("tiny-llama", number))
    train = {"max_steps": 1, "per_device_train_batch_size": 2}
    note = tiny_runs.Watch(learning=lambda _: seen.append(learner.storage().memory_bytes))
    learner = tiny_runs.begin("tiny-llama", method, tmp_path / "run", train=train, progress=note)
    learner.follow(tasks)
    assert [*seen, learner.storage().memory_bytes] == [0, *(law(t) for t in range(1, number + 1))]
    folders = [stage.path for stage in learner.folder.stages()]
    sizes = [sum(4 * site.numel for site in learner.backend.load(folder)[0].values()) for folder in folders]
    held = load_file(folders[-1] / "memory.safetensors") if (folders[-1] / "memory.safetensors").exists() else {}
    needed = sizes[-1] if parse(method).consolidator.rule == "continue" else sum(sizes)
    assert needed + sum(tensor.nbytes for tensor in held.values()) == law(number)


@given(st.sampled_from(["sum", "keep", "continue"]), st.integers(1, 500), st.integers(1, 10**9))
def test_the_declaration_is_linear_or_constant(rule, tasks, adapter):
    kept = Consolidator(rule=rule).stored_elements
    assert kept(1, adapter) == adapter
    assert kept(tasks + 1, adapter) - kept(tasks, adapter) == (0 if rule == "continue" else adapter)
