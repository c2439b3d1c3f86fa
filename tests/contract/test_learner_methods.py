"""Every verb is a method of a learner that is loaded, and what it answers with is what its folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from everlora import Learner, open_stream
from everlora.core.errors import ConfigError, TrainingError


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
    assert not learner.compact(2, dry_run=True).done
    assert learner.compact(2, discard=True).undone is None
    assert same(learner, tmp_path / "a")
    assert {"rollback", "forget", "compact"} <= {act.act for act in learner.history()}
    assert [task.name for task in learner.status().tasks] == ["reviews", "intent"]


def test_verify_export_push_and_doctor_are_methods_that_do_as_the_command_line(tmp_path: Path) -> None:
    first, second = open_stream("builtin", tasks=["news", "reviews"], max_train_samples=8, max_eval_samples=2)
    learner = Learner("tiny-llama", method="inclora", out=tmp_path / "a")
    learner.learn(first, keep_probe=2, train={"max_steps": 1})
    # No part of an update gains the 100 points that are asked for, so that it has to be forced.
    with pytest.raises(TrainingError, match="100"):
        learner.learn(second, may_lose=-100.0, train={"max_steps": 1})
    forced = learner.learn(second, may_lose=-100.0, force=True, train={"max_steps": 1})
    assert forced.spent is not None
    assert forced.spent.forced
    assert learner.verify("data").state == "sound"
    (tmp_path / "a/matrix.json").unlink()
    assert learner.verify().state == "damaged"
    repaired = learner.verify(repair=True)
    assert (repaired.state, repaired.repaired) == ("sound", ["matrix.json"])
    with pytest.raises(ConfigError, match="1 % are allowed"):
        learner.verify(parity=1.0)
    assert "restores any one of" in learner.verify("quick", parity=True).notes[-1]
    assert (tmp_path / "a/PARITY").is_file()

    done = learner.export(tmp_path / "out", to="vllm", rank=2)
    assert done.adapter is not None
    assert (done.to, done.adapter.rank, done.adapter.logits) == ("vllm", 2, None)
    assert done.serve == [f"vllm serve tiny-llama --enable-lora --max-lora-rank 8 --lora-modules a={tmp_path / 'out'}"]
    assert (tmp_path / "out/adapter_model.safetensors").is_file()
    sent = learner.push("me/helper", dry_run=True)
    assert (sent.repo, sent.url, "matrix.json" in sent.files) == ("me/helper", None, True)
    assert {"machine", "learner", "disk"} <= {finding.what for finding in learner.doctor().findings}
    assert learner.rollback("start", discard=True).undone is None
