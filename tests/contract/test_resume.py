"""A life that was cut off and goes on equals one that was not, bit for bit; a stage that failed never happened."""

from __future__ import annotations

import copy

import pytest
import torch

import lives
from everlora.core.errors import FolderError, TrainingError
from everlora.testing import CHECKS, Case
from lives import METHODS, SEQUENTIAL
from plan import crossed, pairs, planned

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


@pytest.mark.parametrize(("method", "model"), planned(pairs(SEQUENTIAL)))
def test_interrupted_and_resumed_equals_uninterrupted(method, model, lived, tmp_path):
    CHECKS["interrupted_and_resumed_equals_uninterrupted"].look(Case(method, model, lived, tmp_path))


@pytest.mark.parametrize(("method", "model"), planned(pairs(METHODS)))
def test_a_finished_life_is_only_recalled(method, model, lived):
    def refuse(task):
        raise AssertionError(f"{task} is learned again")

    whole = lived(method, model)
    again = lives.begin(model, method, whole.folder, resume=True, progress=lives.Watch(learning=refuse), **DIAGONAL)
    again.follow(lives.stream(model))
    now = {}
    ready = again.inference_model()
    for task in lives.stream(model):
        if task.name in whole.final:
            now[task.name] = lives.outputs(ready, again.base.family, task)
            assert torch.equal(now[task.name], whole.final[task.name])


@pytest.mark.parametrize("method", ["inclora", "mtl"])
def test_the_seed_decides(method, lived, tmp_path):
    torch.manual_seed(7)
    same = lives.lived("tiny-bert", method, tmp_path / "same", **DIAGONAL)
    other = lives.lived("tiny-bert", method, tmp_path / "other", seed=1, **DIAGONAL)
    assert lives.largest_difference(lives.adapter(same), lived(method, "tiny-bert").adapter) == 0
    assert lives.largest_difference(lives.adapter(other), lives.adapter(same)) > 0


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_a_loss_that_is_not_a_number_stops_the_task_and_spares_the_earlier(model, lived, tmp_path):
    def poison(task):
        if task == "second":
            next(iter(life.backend.trainable().values())).A.data.fill_(float("nan"))

    life = lives.begin(model, "ella", tmp_path / "run", progress=lives.Watch(learning=poison), **DIAGONAL)
    with pytest.raises(TrainingError, match=r"step 1 of task 'second'.*intact"):
        life.follow(lives.stream(model))
    assert [s.facts.name for s in life.folder.stages()] == ["first"]  # reads and verifies the hashes too
    assert not list((tmp_path / "run" / "tasks").glob(".*"))
    after = lives.begin(model, "ella", tmp_path / "run", resume=True, **DIAGONAL)
    after.follow(lives.stream(model))
    assert lives.largest_difference(lives.adapter(after), lived("ella", model).adapter) == 0


def test_the_same_life_can_go_on_after_a_failure(lived, tmp_path):
    """Not only a new process: the object itself is in order after an exception."""
    life = lives.begin("tiny-bert", "ella", tmp_path / "run", progress=lives.Cut(), **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        life.follow(lives.stream("tiny-bert"))
    life.progress = lives.Watch()
    life.follow(lives.stream("tiny-bert"))
    assert lives.largest_difference(lives.adapter(life), lived("ella", "tiny-bert").adapter) == 0


@crossed(method=["ella", "seqlora", "per-task"], model=["tiny-llama", "tiny-bert"])
def test_tasks_may_come_in_one_by_one(method, model, lived, tmp_path):
    """``follow`` with one task, then with one more, is ``follow`` with both; looking at the model between is free."""
    life = lives.begin(model, method, tmp_path / "run", **DIAGONAL)
    life.follow(lives.stream(model)[:1])
    life.inference_model()
    matrix = life.follow(lives.stream(model))
    whole = lived(method, model)
    assert lives.largest_difference(lives.adapter(life), whole.adapter) == 0
    assert life.storage() == whole.life.storage()
    assert matrix.cells[0][0] is not None
    assert matrix.cells[0][1] is None


def test_a_life_goes_on_with_the_weights_that_it_learned_on(tmp_path):
    """``auto`` may choose otherwise on another machine; what the refusal advises then works."""
    one, both = lives.stream("tiny-llama")[:1], lives.stream("tiny-llama")
    fp32, bf16 = (lives.base("tiny-llama", dtype) for dtype in ("float32", "bfloat16"))

    def again(loaded, dtype):
        base = copy.deepcopy(loaded)
        return lives.begin("tiny-llama", "ella", tmp_path, resume=True, loaded=base, dtype=dtype)

    again(fp32, "auto").follow(one)
    with pytest.raises(FolderError, match="learned on float32 weights and would go on with bfloat16; pass --dtype"):
        again(bf16, "auto")
    with pytest.raises(FolderError, match=r"another run \(different: dtype\)"):
        again(bf16, "bfloat16")
    life = again(fp32, "float32")
    life.follow(both)
    assert len(life.folder.stages()) == 2
    assert len(again(fp32, "auto").folder.stages()) == 2
    with pytest.raises(FolderError, match="pass --dtype float32"):
        again(bf16, "auto")


def test_before_anything_is_learned_the_weights_are_free(tmp_path):
    for dtype in ("float32", "bfloat16"):
        base = lives.fresh("tiny-llama", dtype)
        life = lives.begin("tiny-llama", "ella", tmp_path, resume=True, loaded=base, dtype="auto")
        assert life.folder.stages() == []
