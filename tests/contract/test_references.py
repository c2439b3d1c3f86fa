"""The systems that frame every table."""

from __future__ import annotations

import pytest
import torch

import tiny_runs
from everlora import parse
from everlora.core.roles import TaskContext
from plan import DAILY, case
from tiny_runs import MODELS

TEXT = ("tiny-llama", "tiny-t5")


@pytest.mark.parametrize("model", MODELS)
def test_multi_task_on_one_task_is_per_task_on_it(model, tmp_path):
    one = tiny_runs.stream(model)[:1]
    joint, alone = (tiny_runs.train_sequence(model, method, tmp_path / method, one) for method in ("mtl", "per-task"))
    assert tiny_runs.largest_difference(tiny_runs.adapter(joint), tiny_runs.adapter(alone)) == 0


@pytest.mark.parametrize("model", MODELS)
def test_per_task_never_sees_the_other_tasks(model, recorded, tmp_path):
    """The second task's adapter is the same whatever was learned first: that of a run with this task alone."""
    first, second = tiny_runs.stream(model)
    for k, others in enumerate([(first.take(8), second), (second,)]):
        again = tiny_runs.train_sequence(
            model, "per-task", tmp_path / str(k), others, evaluation={"schedule": "diagonal"}
        )
        assert tiny_runs.largest_difference(tiny_runs.adapter(again), recorded("per-task", model).adapter) == 0


def test_a_whole_model_per_task_is_that_of_a_run_of_its_own_too(tmp_path):
    both = tiny_runs.stream("tiny-llama")
    stream, alone = (
        tiny_runs.train_sequence(
            "tiny-llama", "per-task(mode=full)", tmp_path / str(k), tasks, evaluation={"schedule": "diagonal"}
        )
        for k, tasks in enumerate([both, both[1:]])
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(stream), tiny_runs.adapter(alone)) == 0


@pytest.mark.parametrize("model", TEXT)
def test_zero_shot_is_the_base_model(model, recorded):
    record = recorded("zero-shot", model)
    for task in tiny_runs.stream(model):
        bare = tiny_runs.outputs(tiny_runs.base(model).model, tiny_runs.base(model).family, task)
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
def test_first_tasks_agree_wherever_nothing_pulls(model, plan, form, other, recorded):
    """At the first task there is no past: every sequential method is the same learner as others of its form."""
    from everlora.adapters import files as adapters

    def first(method):
        return adapters.read(recorded(method, model).learner.folder.stages()[0].path)[0]

    same = [m for m in tiny_runs.SEQUENTIAL if parse(m).adapter.form == form and not pulled(parse(m))]
    assert other in same
    assert len(same) > 2
    for method in same:
        if plan == "all" or (method, model) in DAILY:
            assert adapters.equal(first(method), first(other)), method
