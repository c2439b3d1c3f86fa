"""A run that was cut off and goes on equals one that was not, bit for bit; a stage that failed never happened."""

from __future__ import annotations

import copy

import pytest
import torch

import tiny_runs
from everlora.core.errors import FolderError, TrainingError
from everlora.testing import CHECKS, Case
from plan import crossed, pairs, planned
from tiny_runs import METHODS, SEQUENTIAL

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


@pytest.mark.parametrize(("method", "model"), planned(pairs(SEQUENTIAL)))
def test_interrupted_and_resumed_equals_uninterrupted(method, model, recorded, tmp_path):
    CHECKS["interrupted_and_resumed_equals_uninterrupted"].look(Case(method, model, recorded, tmp_path))


@pytest.mark.parametrize(("method", "model"), planned(pairs(METHODS)))
def test_a_finished_run_is_only_recalled(method, model, recorded):
    def refuse(task):
        raise AssertionError(f"{task} is learned again")

    whole = recorded(method, model)
    again = tiny_runs.begin(
        model, method, whole.folder, resume=True, progress=tiny_runs.Watch(learning=refuse), **DIAGONAL
    )
    again.follow(tiny_runs.stream(model))
    now = {}
    ready = again.inference_model()
    for task in tiny_runs.stream(model):
        if task.name in whole.final:
            now[task.name] = tiny_runs.outputs(ready, again.base.family, task)
            assert torch.equal(now[task.name], whole.final[task.name])


@pytest.mark.parametrize("method", ["inclora", "mtl"])
def test_the_seed_decides(method, recorded, tmp_path):
    torch.manual_seed(7)
    same = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "same", **DIAGONAL)
    other = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "other", seed=1, **DIAGONAL)
    assert tiny_runs.largest_difference(tiny_runs.adapter(same), recorded(method, "tiny-bert").adapter) == 0
    assert tiny_runs.largest_difference(tiny_runs.adapter(other), tiny_runs.adapter(same)) > 0


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_a_loss_that_is_not_a_number_stops_the_task_and_spares_the_earlier(model, recorded, tmp_path):
    def poison(task):
        if task == "second":
            next(iter(learner.backend.trainable().values())).A.data.fill_(float("nan"))

    learner = tiny_runs.begin(model, "ella", tmp_path / "run", progress=tiny_runs.Watch(learning=poison), **DIAGONAL)
    with pytest.raises(TrainingError, match=r"step 1 of task 'second'.*intact"):
        learner.follow(tiny_runs.stream(model))
    assert [s.facts.name for s in learner.folder.stages()] == ["first"]  # reads and verifies the hashes too
    assert not list((tmp_path / "run" / "tasks").glob(".*"))
    after = tiny_runs.begin(model, "ella", tmp_path / "run", resume=True, **DIAGONAL)
    after.follow(tiny_runs.stream(model))
    assert tiny_runs.largest_difference(tiny_runs.adapter(after), recorded("ella", model).adapter) == 0


def test_the_same_run_can_go_on_after_a_failure(recorded, tmp_path):
    """Not only a new process: the object itself is in order after an exception."""
    learner = tiny_runs.begin("tiny-bert", "ella", tmp_path / "run", progress=tiny_runs.Cut(), **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        learner.follow(tiny_runs.stream("tiny-bert"))
    learner.progress = tiny_runs.Watch()
    learner.follow(tiny_runs.stream("tiny-bert"))
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), recorded("ella", "tiny-bert").adapter) == 0


@crossed(method=["ella", "seqlora", "per-task"], model=["tiny-llama", "tiny-bert"])
def test_tasks_may_come_in_one_by_one(method, model, recorded, tmp_path):
    """``follow`` with one task, then with one more, is ``follow`` with both; looking at the model between is free."""
    learner = tiny_runs.begin(model, method, tmp_path / "run", **DIAGONAL)
    learner.follow(tiny_runs.stream(model)[:1])
    learner.inference_model()
    matrix = learner.follow(tiny_runs.stream(model))
    whole = recorded(method, model)
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), whole.adapter) == 0
    assert learner.storage() == whole.learner.storage()
    assert matrix.cells[0][0] is not None
    assert matrix.cells[0][1] is None


def test_a_run_goes_on_with_the_weights_that_it_learned_on(tmp_path):
    """``auto`` may choose otherwise on another machine; what the refusal advises then works."""
    one, both = tiny_runs.stream("tiny-llama")[:1], tiny_runs.stream("tiny-llama")
    fp32, bf16 = (tiny_runs.base("tiny-llama", dtype) for dtype in ("float32", "bfloat16"))

    def again(loaded, dtype):
        base = copy.deepcopy(loaded)
        return tiny_runs.begin("tiny-llama", "ella", tmp_path, resume=True, loaded=base, dtype=dtype)

    again(fp32, "auto").follow(one)
    with pytest.raises(FolderError, match="learned on float32 weights and would go on with bfloat16; pass --dtype"):
        again(bf16, "auto")
    with pytest.raises(FolderError, match=r"another run \(different: dtype\)"):
        again(bf16, "bfloat16")
    learner = again(fp32, "float32")
    learner.follow(both)
    assert len(learner.folder.stages()) == 2
    assert len(again(fp32, "auto").folder.stages()) == 2
    with pytest.raises(FolderError, match="pass --dtype float32"):
        again(bf16, "auto")


def test_before_anything_is_learned_the_weights_are_free(tmp_path):
    for dtype in ("float32", "bfloat16"):
        base = tiny_runs.fresh("tiny-llama", dtype)
        learner = tiny_runs.begin("tiny-llama", "ella", tmp_path, resume=True, loaded=base, dtype="auto")
        assert learner.folder.stages() == []
