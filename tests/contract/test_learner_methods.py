"""Every verb is a method of a learner that is loaded, and what it answers with is what its folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from everlora import Learner, Task, open_stream
from everlora.core.errors import ConfigError, DataError, TrainingError
from everlora.learner.learned import stored_tests


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


def task(name: str) -> Task:
    (found,) = open_stream("builtin", tasks=[name], max_train_samples=8, max_eval_samples=4)
    return found


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return Learner("tiny-bert", method="inclora", out=tmp_path_factory.mktemp("untaught") / "run")


NO_TEACHING = [
    ("may_lose", "5"),
    ("may_lose", True),
    ("may_lose", 10**400),
    ("may_lose", float("inf")),
    ("may_lose", float("-inf")),
    ("may_lose", float("nan")),
    ("keep_probe", -1),
    ("keep_probe", 2.5),
    ("keep_probe", "3"),
    ("train", [1]),
    ("train", "x"),
    ("train", 0),
    ("by", 3),
    ("because", ["a reason"]),
    ("force", "no"),
    ("forecast", "no"),
]


@pytest.mark.parametrize(("name", "given"), NO_TEACHING)
def test_what_is_no_teaching_is_refused_in_a_line_before_a_step_is_taken(
    name: str, given: Any, untaught: Learner
) -> None:
    with pytest.raises(ConfigError, match=f"^{name} ") as caught:
        untaught.learn(task("news"), **{name: given})
    assert repr(given) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not untaught._learner.folder.stages()


@pytest.mark.parametrize("keep", [-1, 2.5, "3"])
def test_an_evaluation_keeps_a_whole_number_of_rows(keep: Any, untaught: Learner) -> None:
    with pytest.raises(ConfigError, match=r"^keep_probe is a whole number of test rows, 0 or more, not "):
        untaught.evaluate(keep_probe=keep)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "run")
    learner.learn(task("news"), keep_probe=np.int64(2), may_lose=np.float32(2.0), train={"max_steps": 1})  # type: ignore[arg-type]
    (stored,) = stored_tests(learner._learner.folder.stages()[0]).values()
    assert len(stored) == 2


@pytest.mark.parametrize("method", [7, None, ["ella"]])
def test_a_method_is_an_expression_or_composed(method: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method is an expression such as 'ella', or a composed Method, not "):
        Learner("tiny-bert", method=method, out=tmp_path / "run")


@pytest.mark.parametrize("given", [[], [1], "", "x", 0])
def test_training_arguments_are_a_mapping(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="setting 'train' must be a mapping of names to values"):
        Learner("tiny-bert", train=given, out=tmp_path / "run")


VERBS: dict[str, Callable[..., object]] = {
    "rollback": lambda learner, **how: learner.rollback("news", **how),
    "forget": lambda learner, **how: learner.forget("news", **how),
    "compact": lambda learner, **how: learner.compact(2, **how),
    "learn": lambda learner, **how: learner.learn(task("reviews"), **how),
}
CHOICES = {"rollback": "discard", "forget": "rebuild", "compact": "discard", "learn": "force"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    learner = Learner("tiny-llama", method="inclora", out=tmp_path_factory.mktemp("taught") / "run")
    for name in ("news", "intent"):
        learner.learn(task(name), train={"max_steps": 1})
    return learner


@pytest.mark.parametrize("verb", VERBS)
def test_what_history_could_not_hold_is_refused_before_anything_is_done(verb: str, taught: Learner) -> None:
    """Written behind the act, it ended the act in a traceback and left what was prepared."""
    for how, said in (
        ({"by": 3}, "by is a text, not 3"),
        ({"because": "\ud800"}, "because is a text in UTF-8"),
        ({CHOICES[verb]: "no"}, f"{CHOICES[verb]} is True or False, not 'no'"),
    ):
        with pytest.raises(ConfigError, match=f"^{said}"):
            VERBS[verb](taught, **how)
    assert [act.act for act in taught.history()] == ["learn", "learn"]
    assert taught.verify().state == "sound"


@pytest.mark.parametrize("rank", ["2", 2.5, True, 0])
def test_a_rank_is_a_whole_number(rank: Any, taught: Learner) -> None:
    with pytest.raises(ConfigError, match="the rank must be a whole number, at least 1, not "):
        taught.compact(rank)


@pytest.mark.parametrize("given", [None, 5, "news", ["news"], {"news": 1}])
def test_what_is_no_task_is_refused_in_a_line(given: Any, untaught: Learner) -> None:
    for verb in (untaught.learn, untaught.follow):
        with pytest.raises(DataError, match=r"everlora\.Task") as caught:
            verb(given)
        assert "\n" not in str(caught.value)
