"""Methods whose answers come from what the tasks' updates are merged into, against models put together by hand."""

from __future__ import annotations

import json
from functools import reduce
from itertools import chain

import pytest
import torch

import everlora
import tiny_runs
from everlora import parse
from everlora.adapters import files as adapters
from everlora.evaluation.scoring import score_task
from tiny_runs import MODELS

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}
MERGED = ("ps-lora", "ties", "dare", "mean-merge")


def merged(method, updates):
    """The merge of dense updates, oldest first, by hand where that is a line; one update is its own merge."""
    if len(updates) == 1:
        return updates[0]
    if method.startswith("mean-merge"):
        return torch.stack(updates).mean(0)
    if method.startswith("ps-"):
        return reduce(lambda old, new: torch.where(new.abs() < old.abs(), old, new), updates)
    return parse(method).merge.merge(iter(updates))


def by_hand(model, stages, make):
    """W0 + ``make`` of the stages' adapters, with the newest head."""
    loaded = everlora.load(model, dtype="float32", device="cpu", labels=stages[-1].facts.labels)
    read = [adapters.read(stage.path) for stage in stages]
    with torch.no_grad():
        for name in read[-1][0]:
            loaded.model.get_submodule(name).weight += make([sites[name].dense() for sites, _ in read])
        for name, tensor in read[-1][1].items():
            loaded.model.get_parameter(name).copy_(tensor)
    return loaded.model.eval(), loaded.family


def followed(model, method, folder, tasks=3, **settings):
    """A run of three tasks; what answered after each, and what was below the adapter when each began."""
    answered, below = {}, {}
    stream = tiny_runs.stream(model, tasks)

    def at_answer(task):
        newest = len(learner.past) - 1
        answered[newest, task] = tiny_runs.outputs(learner.base.model, learner.base.family, stream[newest])

    def at_start(task):
        below[task] = {name: layer.weight.detach().clone() for name, layer in learner.backend.base_layers().items()}

    watch = tiny_runs.Watch(answering=at_answer, learning=at_start)
    learner = tiny_runs.begin(
        model, method, folder, progress=watch, **{"evaluation": {"schedule": "full"}, **settings}
    )
    learner.follow(stream)
    return learner, answered, below


@pytest.mark.parametrize(
    ("method", "model", "past"),
    [
        *(("ps-lora", model, "fold") for model in MODELS),
        *((method, model, "fold") for method in MERGED[1:] for model in ("tiny-t5", "tiny-bert")),
        ("ps-lora", "tiny-bert", "factors"),
        ("ties", "tiny-llama", "factors"),
    ],
)
def test_the_merge_answers_after_every_task(model, method, past, tmp_path):
    """With steps so large that the merge and the sum answer quite differently."""
    learner, answered, _ = followed(model, method, tmp_path / "run", past=past, train={"learning_rate": 5e-2})
    stages, tasks = learner.folder.stages(), tiny_runs.stream(model, 3)
    for k in range(3):
        plain, family = by_hand(model, stages[: k + 1], lambda updates: merged(method, updates))
        expected = tiny_runs.outputs(plain, family, tasks[k])
        for task in tasks[: k + 1]:
            torch.testing.assert_close(answered[k, task.name], expected, rtol=1e-4, atol=1e-5)
        rows = [json.loads(line) for line in stages[k].predictions.read_text().splitlines()]
        again = (score_task(plain, family, t, scoring="labels", batch_size=32).predictions for t in tasks[: k + 1])
        assert [row["prediction"] for row in rows] == list(chain.from_iterable(again))
    ready = tiny_runs.outputs(learner.inference_model(), learner.base.family, tasks[2])
    torch.testing.assert_close(ready, expected, rtol=1e-4, atol=1e-5)
    summed, family = by_hand(model, stages, lambda updates: torch.stack(updates).sum(0))
    assert float((ready - tiny_runs.outputs(summed, family, tasks[2])).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("method", "model"),
    [
        *(("ps-merge", model) for model in MODELS),
        *((method, "tiny-bert") for method in ("ties", "dare", "dare(elect=yes)", "mean-merge")),
    ],
)
def test_training_on_the_sum_is_training_without_a_merge(model, method, recorded, tmp_path):
    """Bit for bit: what answers between two tasks leaves no trace in what is learned."""
    learner = tiny_runs.train_sequence(model, method, tmp_path / "run", evaluation={"schedule": "full"})
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), recorded("inclora", model).adapter) == 0


@pytest.mark.parametrize(
    ("method", "view", "model"),
    [
        *((method, "merged", "tiny-llama") for method in MERGED),
        ("ps-lora", "merged", "tiny-bert"),
        ("ps-lora", "sum", "tiny-bert"),
    ],
)
def test_a_task_is_trained_on_the_sum_or_on_the_merge(model, method, view, tmp_path):
    learner, _, below = followed(model, f"{method}(train_past={view})", tmp_path / "run")
    pristine = dict(tiny_runs.base(model).model.named_parameters())
    for k, task in enumerate(tiny_runs.NAMES[1:], start=1):
        for name, weight in below[task].items():
            updates = [delta[name].dense() for delta in learner.past.deltas[:k]]
            under = torch.stack(updates).sum(0) if view == "sum" else merged(method, updates)
            torch.testing.assert_close(weight, pristine[f"{name}.weight"] + under, rtol=0, atol=2e-7)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_a_merged_past_is_one_whether_folded_or_beside(model, tmp_path):
    """Where a task is trained on it, too."""
    method = "ps-lora(train_past=merged)"
    folded, beside = (followed(model, method, tmp_path / past, past=past)[1] for past in ("fold", "factors"))
    for key, outputs in folded.items():
        torch.testing.assert_close(beside[key], outputs, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("model", "limit", "lossy"), [("tiny-llama", 64, False), ("tiny-bert", 5, True)])
@pytest.mark.parametrize("method", MERGED)
def test_the_root_adapter_is_the_merge_within_the_error_that_is_told(
    model, method, limit, lossy, tmp_path, monkeypatch
):
    monkeypatch.setattr(adapters, "MERGED_RANK", limit)
    learner = tiny_runs.train_sequence(model, method, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "matrix.json").read_text())
    root, _ = adapters.read(tmp_path / "run")
    exact = {name: merged(method, [delta[name].dense() for delta in learner.past]) for name in root}
    lost = torch.stack([(exact[n] - site.dense()).norm() for n, site in root.items()]).norm()
    error = float(lost / torch.stack([m.norm() for m in exact.values()]).norm())
    assert told["export_rank"] == max(site.rank for site in root.values()) <= max(limit, 8)
    assert told["export_error"] == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert (told["export_error"] > 1e-2) == (lossy and method != "mean-merge")
    again = tiny_runs.begin(model, method, tmp_path / "run", resume=True)
    again.follow(tiny_runs.stream(model))
    assert json.loads((tmp_path / "run" / "matrix.json").read_text()) == told


@pytest.mark.parametrize(("method", "model"), list(zip(MERGED, ("tiny-bert", "tiny-llama") * 2, strict=True)))
def test_answers_from_the_sum_are_exported_as_the_sum(model, method, tmp_path):
    learner, answered, _ = followed(model, f"{method}(infer=sum)", tmp_path / "run")
    root, _ = adapters.read(tmp_path / "run")
    for name, site in root.items():
        assert site.rank == 12
        torch.testing.assert_close(site.dense(), learner.past.total(name), rtol=1e-6, atol=1e-8)
    plain, family = by_hand(model, learner.folder.stages(), lambda updates: torch.stack(updates).sum(0))
    expected = tiny_runs.outputs(plain, family, tiny_runs.stream(model, 3)[2])
    torch.testing.assert_close(answered[2, "third"], expected, rtol=1e-4, atol=2e-6)
    assert "export_error" not in json.loads((tmp_path / "run" / "matrix.json").read_text())


@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("ps-lora", "tiny-llama"),
        ("ps-lora(train_past=merged,loss_past=merged)", "tiny-bert"),
        ("ties", "tiny-bert"),
        ("dare", "tiny-llama"),
        ("lb-cl", "tiny-llama"),
        ("lb-cl(strict=yes,per_sample=yes)", "tiny-bert"),
        ("ella(store=svd,store_rank=3)", "tiny-llama"),
        ("ella(policy=continue,store=int8)", "tiny-llama"),
        ("ella(lam=auto,store=dense)", "tiny-bert"),
    ],
)
def test_resumed_in_the_third_task_equals_uninterrupted(model, method, tmp_path):
    """Where the past is more than one update, and memories have been added to."""
    tasks = tiny_runs.stream(model, 3)
    whole = tiny_runs.train_sequence(model, method, tmp_path / "whole", tasks, **DIAGONAL)
    cut = tiny_runs.begin(model, method, tmp_path / "cut", progress=tiny_runs.Cut("third"), **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tasks)
    assert [stage.facts.name for stage in cut.folder.stages()] == ["first", "second"]
    torch.manual_seed(12345)
    again = tiny_runs.begin(model, method, tmp_path / "cut", resume=True, **DIAGONAL)
    matrix = again.follow(tasks)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), tiny_runs.adapter(whole)) == 0
    for name in ("adapter_model.safetensors", "matrix.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert matrix.cells[2][2] is not None
    for here, there in zip(again.folder.stages(), whole.folder.stages(), strict=True):
        assert here.facts.strengths == there.facts.strengths
        assert here.predictions.read_bytes() == there.predictions.read_bytes()
        for file in ("memory.safetensors", "adapter_model.safetensors", "modules.jsonl"):
            assert here.facts.files.get(file) == there.facts.files.get(file), file


@pytest.mark.parametrize("method", ["ties", "ps-lora(train_past=merged)"])
def test_cut_off_while_answering_the_same_run_goes_on(method, tmp_path):
    """By then the adapter is off and the model stands on a merge; what was learned is committed, and not scored."""
    tasks = tiny_runs.stream("tiny-bert", 3)
    whole = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "whole", tasks, **DIAGONAL)

    def cut(_):
        if len(learner.past) == 2:
            raise KeyboardInterrupt

    learner = tiny_runs.begin(
        "tiny-bert", method, tmp_path / "cut", progress=tiny_runs.Watch(answering=cut), **DIAGONAL
    )
    with pytest.raises(KeyboardInterrupt):
        learner.follow(tasks)
    assert [stage.evaluated for stage in learner.folder.stages()] == [True, False]
    learner.progress = tiny_runs.Watch()
    learner.follow(tasks[:2])
    learner.inference_model()
    learner.follow(tasks)
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), tiny_runs.adapter(whole)) == 0
    # The second was the last of two tasks when it was scored, and so on more of them.
    for here, there in list(zip(learner.folder.stages(), whole.folder.stages(), strict=True))[::2]:
        assert here.predictions.read_bytes() == there.predictions.read_bytes()
