"""Every verb is a method of a learner that is loaded, and what it answers with is what its folder holds."""

from __future__ import annotations

from pathlib import Path

import torch

from everlora import Learner, open_stream


def parameters(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}


def same(one: Learner, place: Path) -> bool:
    """Whether a learner in memory answers with the weights of one that is opened from its folder."""
    here, there = parameters(one), parameters(Learner.open(place))
    return here.keys() == there.keys() and all(torch.equal(tensor, there[name]) for name, tensor in here.items())


def test_a_learner_that_is_loaded_follows_what_is_done_to_it(tmp_path: Path) -> None:
    stream = open_stream("builtin", tasks=["news", "reviews", "intent"], max_train_samples=8, max_eval_samples=2)
    learner, steps = Learner("tiny-llama", method="inclora", out=tmp_path / "a"), {"max_steps": 2}
    for task in stream:
        learner.learn(task, train=steps)
    assert same(learner, tmp_path / "a")
    three = parameters(learner)
    changed = learner.diff(f"{tmp_path / 'a'}@news")
    assert changed.relative is not None

    assert learner.rollback("reviews", because="wrong labels").removed == ["intent"]
    assert same(learner, tmp_path / "a")
    assert any(not torch.equal(tensor, three[name]) for name, tensor in parameters(learner).items())
    learner.learn(list(stream)[2], train=steps)
    assert all(torch.equal(tensor, three[name]) for name, tensor in parameters(learner).items()), "as if never undone"

    assert learner.forget("news").remaining == ["reviews", "intent"]
    assert same(learner, tmp_path / "a")
    assert learner.compact(2).rank == 2
    assert same(learner, tmp_path / "a")
    assert {"rollback", "forget", "compact"} <= {act.act for act in learner.history()}
    assert [task.name for task in learner.status().tasks] == ["reviews", "intent"]
