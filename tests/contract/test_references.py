"""The systems that frame every table."""

from __future__ import annotations

import pytest
import torch

import lives
from everlora import parse
from everlora.core.roles import TaskContext
from lives import MODELS
from plan import DAILY, case

TEXT = ("tiny-llama", "tiny-t5")


@pytest.mark.parametrize("model", MODELS)
def test_multi_task_on_one_task_is_per_task_on_it(model, tmp_path):
    one = lives.stream(model)[:1]
    joint, alone = (lives.lived(model, method, tmp_path / method, one) for method in ("mtl", "per-task"))
    assert lives.largest_difference(lives.adapter(joint), lives.adapter(alone)) == 0


@pytest.mark.parametrize("model", MODELS)
def test_per_task_never_sees_the_other_tasks(model, lived, tmp_path):
    """The second task's adapter is the same whatever was learned first: that of a run with this task alone."""
    first, second = lives.stream(model)
    for k, others in enumerate([(first.take(8), second), (second,)]):
        again = lives.lived(model, "per-task", tmp_path / str(k), others, evaluation={"schedule": "diagonal"})
        assert lives.largest_difference(lives.adapter(again), lived("per-task", model).adapter) == 0


def test_a_whole_model_per_task_is_that_of_a_run_of_its_own_too(tmp_path):
    both = lives.stream("tiny-llama")
    stream, alone = (
        lives.lived("tiny-llama", "per-task(mode=full)", tmp_path / str(k), tasks, evaluation={"schedule": "diagonal"})
        for k, tasks in enumerate([both, both[1:]])
    )
    assert lives.largest_difference(lives.adapter(stream), lives.adapter(alone)) == 0


@pytest.mark.parametrize("model", TEXT)
def test_zero_shot_is_the_base_model(model, lived):
    record = lived("zero-shot", model)
    for task in lives.stream(model):
        bare = lives.outputs(lives.base(model).model, lives.base(model).family, task)
        assert torch.equal(record.final[task.name], bare)
    assert not list(record.folder.rglob("adapter_model.safetensors"))


def pulled(method):
    """Whether a first task is learned in a way of its own: another start, a fixed factor, a pull without a past."""
    first = (method.initialiser and method.initialiser.needs.first_task) or method.adapter.fixed
    return first or (
        method.adapter.form == "plain" and any(p.prepare(TaskContext()) is not None for p in method.penalties)
    )


@pytest.mark.parametrize(("form", "other"), [("plain", "inclora"), ("svd", "nlnb-cl")])
@pytest.mark.parametrize(
    ("model", "plan"), [case((m, plan), plan == "daily") for plan in ("daily", "all") for m in MODELS]
)
def test_first_tasks_agree_wherever_nothing_pulls(model, plan, form, other, lived):
    """At the first task there is no past: every sequential method is the same learner as others of its form."""
    from everlora.adapters import files as adapters

    def first(method):
        return adapters.read(lived(method, model).life.folder.stages()[0].path)[0]

    same = [m for m in lives.SEQUENTIAL if parse(m).adapter.form == form and not pulled(parse(m))]
    assert other in same
    assert len(same) > 2
    for method in same:
        if plan == "all" or (method, model) in DAILY:
            assert adapters.equal(first(method), first(other)), method
