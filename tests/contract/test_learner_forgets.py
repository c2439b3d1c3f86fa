"""A learner that forgets was never taught the task, or is without its update; what is left of it is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_runs
from everlora.adapters import files as adapters
from everlora.analysis.runs import Run
from everlora.archive.committed import read_stages
from everlora.core.errors import ConfigError, DataError
from everlora.core.history import UpdateHistory
from everlora.learner.opened import load_learner, restore, tasks_of
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.rollback import rollback
from everlora.runtime.progress import Progress
from taught import contents, task_of, taught, teach


@pytest.mark.parametrize(
    ("method", "model"),
    [("ella", "tiny-bert"), ("lb-cl", "tiny-llama"), ("ewc", "tiny-llama"), ("per-task", "tiny-t5")],
)
def test_a_learner_that_is_rebuilt_was_never_taught_the_task(method, model, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second", "third", model=model)
    given = {name: task_of(model, name) for name in ("second", "third")}
    found = forget(place, "second", given, rebuild=True)
    assert (found.how, found.remaining) == ("rebuilt", ["first", "third"])
    assert contents(place) == contents(taught(tmp_path / "never", method, "first", "third", model=model))
    assert found.never == found.after


@pytest.mark.parametrize("force", [False, True])
def test_a_later_task_is_learned_again_within_the_budget_that_it_was_taught_with(force, tmp_path):
    # No share of an update gains points that a budget below zero asks for, so that it has to be forced.
    budget = -100.0 if force else 100.0
    teaching = Teaching(by="ada", keep_tests=4, may_lose=budget, force=force)
    places = [taught(tmp_path / "run", "inclora", "second", "first"), taught(tmp_path / "never", "inclora", "second")]
    for place in places:
        learn(place, task_of("tiny-llama", "third"), teaching, progress=Progress())
    forget(places[0], "first", {"third": task_of("tiny-llama", "third")}, rebuild=True)
    spent = read_stages(places[0])[-1].facts.spent
    assert (spent.may_lose, spent.forced) == (budget, force)
    assert contents(places[0]) == contents(places[1])


@pytest.mark.parametrize(
    ("method", "model"), [("o-lora", "tiny-llama"), ("inclora", "tiny-bert"), ("inclora", "tiny-t5")]
)
def test_the_update_of_a_task_is_removed_and_the_others_are_as_they_were(method, model, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second", "third", model=model)
    rollback(place, "second")
    teach(place, "third", model)
    (place / ".training").mkdir()  # of a fourth task, which was broken off
    exact = list(Run.read(place).past())
    tests = {name: task_of(model, name) for name in ("first", "second", "third")}
    found = forget(place, "first", tests)
    assert (found.how, found.remaining) == ("removed", ["second", "third"])
    assert equal_updates(Run.read(place).past(), exact[1:])
    assert not (place / "undone").exists()
    assert not (place / ".training").exists()
    assert not any("first" in file.name for file in place.rglob("*"))
    assert [stage.facts.number for stage in read_stages(place)] == [1, 2]
    if model == "tiny-bert":
        assert found.after is None
        assert read_stages(place)[-1].facts.labels == read_stages(twin(tmp_path, method, model))[-1].facts.labels
    else:
        assert 0 <= found.after.membership <= 1
        assert found.never != found.after
    teach(place, "first", model)
    assert [stage.facts.name for stage in read_stages(place)] == ["second", "third", "first"]


def equal_updates(past, updates) -> bool:
    return len(past) == len(updates) and all(adapters.equal(a, b) for a, b in zip(past, updates, strict=True))


def twin(tmp_path: Path, method: str, model: str) -> Path:
    return taught(tmp_path / "twin", method, "second", "third", model=model)


def test_the_rows_of_the_head_of_a_removed_task_go(tmp_path):
    place = taught(tmp_path / "run", "inclora", "first", "second", "third", model="tiny-bert")
    learner = load_learner(place)
    task = task_of("tiny-bert", "second")
    before = tiny_runs.outputs(restore(learner, tasks_of(learner)), learner.base.family, task)
    rows = read_stages(place)[1].facts.label_rows["second"]
    exact = Run.read(place).past()
    forget(place, "first")
    learner = load_learner(place)
    model = restore(learner, tasks_of(learner))
    now = read_stages(place)[0].facts.label_rows["second"]
    assert len(learner.base.family.labels) == 5
    assert now == [0, 1, 2] != rows
    # With the update put back below it, the head that is left answers as the former one did.
    learner.backend.set_past(UpdateHistory())
    learner.backend.set_past(exact)
    after = tiny_runs.outputs(model, learner.base.family, task)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_the_newest_task_is_forgotten_whatever_the_method(tmp_path):
    place = taught(tmp_path / "run", "ewc", "first", "second")
    found = forget(place, "second", {"second": task_of("tiny-llama", "second")})
    assert found.how == "taken back"
    assert contents(place) == contents(taught(tmp_path / "never", "ewc", "first"))


@pytest.mark.parametrize(
    ("method", "why"),
    [("seqlora", "on and on"), ("kfac", "remembers more"), ("ties", "merges"), ("seqft", "on and on")],
)
def test_what_cannot_be_removed_is_refused_with_what_helps(method, why, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second")
    before = contents(place)
    with pytest.raises(ConfigError, match=f"{why}.*--rebuild"):
        forget(place, "first")
    with pytest.raises(ConfigError, match="--data second=FILE"):
        forget(place, "first", rebuild=True)
    with pytest.raises(DataError, match="not those that it was learned from"):
        forget(place, "first", {"second": task_of("tiny-llama", "second").take(train=3)}, rebuild=True)
    assert contents(place) == before
