"""Recurrent-KIF inside the Trainer: which rows each step has, and what a block ends with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

import tiny_runs
from everlora import parse
from everlora.adapters import files as adapters
from everlora.core.errors import ConfigError
from everlora.models.families import packed
from everlora.parts.fusion import Fusion, fused, hard, important
from everlora.parts.penalties import FactorNorm
from everlora.training.trainer import ExtraLosses

KIF = "kif(inner=2,outer=1,ratio=0.5,quantile=0.5)"
EPOCHS = {"max_steps": -1, "num_train_epochs": 2}


@dataclass(frozen=True, kw_only=True)
class Noting(Fusion):
    """The rule, with a note of what it was shown and what it answered."""

    notes: list[Any] = field(default_factory=list, compare=False)

    def before(self, turn, weights, gradient, state):
        state = super().before(turn, weights, gradient, state)
        self.notes.append((turn, weights.clone(), gradient.clone(), state))
        return state

    def after(self, weights, state):
        out = super().after(weights, state)
        self.notes.append((None, weights.clone(), out.clone(), state))
        return out


def noted(model, method, folder, tasks=None, **options):
    """A run, and what its rule saw."""
    composed = parse(method) if isinstance(method, str) else method
    rule = Noting(**{n: getattr(composed.rule, n) for n in ("inner", "outer", "quantile", "reset_outer")})
    learner = tiny_runs.train_sequence(model, replace(composed, rule=rule), folder, tasks, **options)
    return learner, rule.notes


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_the_first_task_and_ratio_zero_are_sequential_lora(model, tmp_path):
    tasks = tiny_runs.stream(model)
    plain, kif, zero = (
        tiny_runs.train_sequence(model, method, tmp_path / str(k), tasks, train=EPOCHS)
        for k, method in enumerate(("seqlora", KIF, "kif(inner=2,outer=1,ratio=0)"))
    )
    first = [adapters.read(learner.folder.stages()[0].path)[0] for learner in (plain, kif)]
    assert adapters.equal(*first)
    assert tiny_runs.largest_difference(tiny_runs.adapter(plain), tiny_runs.adapter(zero)) == 0
    assert tiny_runs.largest_difference(tiny_runs.adapter(plain), tiny_runs.adapter(kif)) > 0


@pytest.mark.parametrize(("split", "rows"), [((8, 1), 24), ((8, 1), 21), ((4, 2), 21)])  # 21: the last batch is short
def test_steps_have_the_rows_that_their_turns_say(split, rows, tmp_path, monkeypatch):
    marked, loss = [], ExtraLosses.loss

    def note(self, model, family, batch, logits, marks, weights=None):
        marked.append(None if marks is None else marks.tolist())
        return loss(self, model, family, batch, logits, marks, weights)

    monkeypatch.setattr(ExtraLosses, "loss", note)
    first, second = tiny_runs.stream("tiny-bert")
    size, micro = split
    train = {**EPOCHS, "per_device_train_batch_size": size, "gradient_accumulation_steps": micro}
    learner, notes = noted("tiny-bert", KIF, tmp_path / "run", (first, second.take(rows)), train=train)
    turns = [turn for turn, *_ in notes if turn is not None]
    batches = [mark for mark in marked if mark is not None]
    assert {mark for mark in map(str, marked)} > {"None"}  # the first task has none
    assert len(turns) == 2 * (3 + 2)  # epochs of three new batches: blocks of 2 + 1 and of 1 + 1 steps
    assert len(batches) == len(turns) * micro
    for k, turn in enumerate(turns):
        held = [one for mark in batches[k * micro : (k + 1) * micro] for one in mark]
        assert held == [turn.rehearsed] * 8
    assert [turn.rehearsed for turn in turns] == [False, False, True, False, True] * 2
    assert sum(turn is None for turn, *_ in notes) == 4
    assert learner.storage().stored_rows == 24 // 2 + rows // 2


def test_a_block_ends_with_the_fusion_of_its_displacements(tmp_path):
    """Each block begins where the fusion of the one before has put the weights; the last one is what is learned."""
    learner, notes = noted("tiny-llama", KIF, tmp_path / "run", train=EPOCHS)
    fusions, begin, middle = [], None, None
    for turn, weights, other, state in notes:
        if turn is None:
            new, old = (important(state[side] * state[f"{side}_spread"], 0.5) for side in ("new", "old"))
            fusions.append(fused(begin, middle, weights, hard(new, old)))
            torch.testing.assert_close(other, fusions[-1])
            assert not torch.equal(other, weights)
        elif turn.opens:
            assert not fusions or torch.equal(weights, fusions[-1])
            begin = weights
        elif turn.turns:
            middle = weights
    assert len(fusions) == 4
    sites = [site.tensors for site in learner.newest.values()]
    learned = torch.cat([tensor.flatten() for tensors in sites for tensor in tensors.values()])
    assert torch.equal(learned.sort().values, fusions[-1].sort().values)  # places stand in another order


@pytest.mark.parametrize(("steps", "closed"), [(2, 0), (3, 1), (4, 1), (5, 1), (6, 2)])
def test_blocks_that_training_cuts_short(steps, closed, tmp_path):
    """Inner 2, outer 2: a block is fused as soon as it has had one outer step."""
    method = "kif(inner=2,outer=2,ratio=0.5)"
    # Epochs of three new batches: turns are i i o o i o o.
    _, notes = noted("tiny-llama", method, tmp_path / "run", train={"max_steps": steps})
    assert sum(turn is not None for turn, *_ in notes) == steps
    assert sum(turn is None for turn, *_ in notes) == closed


def test_the_split_of_a_batch_has_no_meaning(tmp_path):
    size, micro = 2, 4
    train = {**EPOCHS, "optim": "sgd", "num_train_epochs": 1}
    parts = {**train, "per_device_train_batch_size": size, "gradient_accumulation_steps": micro}
    _, seen = noted("tiny-t5", KIF, tmp_path / "whole", train=train)
    _, seen_cut = noted("tiny-t5", KIF, tmp_path / "cut", train=parts)
    assert [turn for turn, *_ in seen] == [turn for turn, *_ in seen_cut]
    for (_, weights, other, _), (_, same, same_other, _) in zip(seen[:3], seen_cut[:3], strict=True):
        torch.testing.assert_close(weights, same, rtol=0, atol=1e-6)
        torch.testing.assert_close(other, same_other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("model", "soft"), [("tiny-bert", ""), ("tiny-vit", ",soft=true,reset_outer=true")])
def test_resumed_is_uninterrupted(model, soft, tmp_path):
    method, tasks = f"kif(inner=1,outer=1,ratio=0.5{soft})", tiny_runs.stream(model, 3)
    whole = tiny_runs.train_sequence(model, method, tmp_path / "whole", tasks)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence(model, method, tmp_path / "cut", tasks, progress=tiny_runs.Cut("third"))
    again = tiny_runs.train_sequence(model, method, tmp_path / "cut", tasks, resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), tiny_runs.adapter(whole)) == 0


def test_importance_is_of_the_gradient_before_clipping(tmp_path):
    """At rate 0 nothing moves, so both see the gradient at the same weights."""
    clipped, loose = (
        noted("tiny-llama", KIF, tmp_path / str(norm), train={"max_grad_norm": norm, "learning_rate": 0.0})[1]
        for norm in (1e-3, 0.0)
    )
    assert clipped[0][2].norm() > 1e-2
    assert all(torch.equal(a[2], b[2]) for a, b in zip(clipped, loose, strict=True))


def test_importance_is_of_the_gradient_of_the_task_alone(tmp_path, monkeypatch):
    """Before MIGU's mask, and before the pull of a penalty, which at rate 0 stays what it was at the first step."""
    monkeypatch.setattr(packed, "SAVED", 10**9)  # rows are not packed under MIGU, which looks at inner layers
    host, masked, pulled = (
        noted("tiny-llama", method, tmp_path / str(k), train={"learning_rate": 0.0})[1]
        for k, method in enumerate((KIF, f"{KIF}+migu", replace(parse(KIF), penalties=(FactorNorm(lam=10.0),))))
    )
    assert host[0][2].norm() > 1e-2
    for other in (masked, pulled):
        assert all(torch.equal(a[2], b[2]) for a, b in zip(host, other, strict=True))


def test_every_class_is_kept(tmp_path):
    learner = tiny_runs.train_sequence("tiny-bert", "kif", tmp_path / "run")
    for held, task in zip(learner.stored_rows, tiny_runs.stream("tiny-bert"), strict=True):
        assert sorted(row.target for row in held.train) == sorted(task.labels)  # ⌊0.02 · 24⌋ = 0, but one of each


def test_another_order_of_rows_is_refused_before_anything_is_learned(tmp_path):
    with pytest.raises(ConfigError, match="train_sampling_strategy=sequential"):
        tiny_runs.train_sequence("tiny-llama", KIF, tmp_path / "run", train={"train_sampling_strategy": "sequential"})
    assert not list((tmp_path / "run" / "tasks").iterdir())
