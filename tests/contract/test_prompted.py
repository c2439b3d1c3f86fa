"""Soft prompts: their runs on every family, and that padding, neighbours, caches and batch splits change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny_runs
from everlora.analysis.runs import Run
from everlora.analysis.status import status
from everlora.core.errors import ConfigError
from everlora.evaluation.scoring import score_task
from everlora.export.model import write_model
from everlora.models.families.base import IGNORE, left_pad, right_pad

ANSWERING = ("tiny-llama", "tiny-t5")
SMALL = {
    "l2p": "l2p(size=4, length=2, top=2)",
    "progprompt": "progprompt(length=3, mlp=5)",
    "lfpt5": "lfpt5(length=12, tries=4, text_length=12)",
}
PAIRS = [(name, model) for name in SMALL for model in tiny_runs.MODELS if name != "lfpt5" or model in ANSWERING]
TEXT = [(name, model) for name, model in PAIRS if model in ANSWERING]
both = pytest.mark.parametrize(("method", "model"), PAIRS)
text = pytest.mark.parametrize(("method", "model"), TEXT)


def learn(method, model, out, **settings):
    train = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 0.1, "logging_steps": 1}
    settings["train"] = train | settings.get("train", {})
    return tiny_runs.train_sequence(model, SMALL.get(method, method), out, **settings)


_seen = {}


@pytest.fixture
def learner(method, model, tmp_path_factory):
    """One finished run per pair, open for answers; look, do not touch."""
    if (method, model) not in _seen:
        found = learn(method, model, tmp_path_factory.mktemp("prompts") / "run")
        found.inference_model()
        _seen[method, model] = found
    return _seen[method, model]


def some(model, rows=6):
    task = tiny_runs.stream(model)[1]
    return replace(task, test=task.train[:rows])


@both
def test_the_base_is_untouched_and_something_was_learned(learner, method, model, tmp_path):
    head = f"{learner.base.family.head}."
    pristine = dict(tiny_runs.base(model).model.named_parameters())
    now = {n: p for n, p in learner.base.model.named_parameters() if not n.startswith("prompts.")}
    assert now.keys() == pristine.keys()
    for name, weight in now.items():
        assert name.startswith(head) or torch.equal(weight, pristine[name])
    started = tiny_runs.begin(model, SMALL[method], tmp_path / "run")
    stage = tiny_runs.stream(model)[0]
    started.base.family.prepare(started.base.model, [stage], torch.Generator())
    started.backend.attach(seed=0, tasks=[stage])
    trainable = [n for n, p in started.base.model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(n.startswith(("prompts.", head)) for n in trainable)
    assert any(n.startswith(head) for n in trainable) == bool(learner.base.family.head)
    before = {n: t.clone() for n, t in started.backend.extract()["prompts"].tensors.items()}
    assert any(not torch.equal(before[n], t) for n, t in learner.newest["prompts"].tensors.items())
    started.backend.detach()
    assert {n for n, _ in started.base.model.named_parameters()} == pristine.keys()


@both
def test_logits_do_not_depend_on_the_neighbours(learner, model, method):
    task = some(model)
    together = tiny_runs.outputs(learner.base.model, learner.base.family, task)
    alone = torch.cat([tiny_runs.outputs(learner.base.model, learner.base.family, task, [row]) for row in task.test])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@both
def test_prompts_change_the_answers(learner, model, method):
    task = some(model)
    with_them = tiny_runs.outputs(learner.base.model, learner.base.family, task)
    holder = learner.backend.holder
    for p in holder.parameters():
        p.data.neg_()  # a shift would be lost in the layer norm
    moved = tiny_runs.outputs(learner.base.model, learner.base.family, task)
    for p in holder.parameters():
        p.data.neg_()
    assert not torch.allclose(with_them, moved, atol=1e-4)


@pytest.mark.parametrize("scoring", ["labels", "generate"])
@both
def test_the_batch_size_changes_no_answer(learner, model, method, scoring):
    one, four = (
        score_task(learner.base.model, learner.base.family, some(model), scoring=scoring, batch_size=size).predictions
        for size in (1, 4)
    )
    assert one == four


@text
def test_label_scores_equal_the_training_pass(learner, model, method):
    """Prefill, cache, repetition and padding against the one pass in which answers are learned."""
    family, task = learner.base.family, some(model)
    answers = [family.prompter.answer(label, task, spaced=model == "tiny-llama") for label in task.labels]
    expected = []
    for row in task.test:
        for label in task.labels:
            batch = family.collate([family.features(replace(row, target=label), task)])
            with torch.no_grad():
                logits, targets = family.logits(learner.base.model, batch)
            expected.append(logits.double().log_softmax(-1).gather(-1, targets[:, None]).sum())
    left = model == "tiny-llama"
    prompts = [family.features(row, task)["input_ids"] for row in task.test]
    if left:
        prompts = [family.prompter.prompt(row, task, room=family._room(task))[0] for row in task.test]
    pad = left_pad if left else right_pad
    ids, mask = pad(prompts, 0), pad([[1] * len(p) for p in prompts], 0)
    with torch.no_grad():
        scores = family._scores(learner.base.model, ids, mask, answers)
    torch.testing.assert_close(scores.double(), torch.stack(expected).view(len(task.test), -1), rtol=1e-5, atol=1e-4)


@text
def test_generation_follows_the_training_pass(learner, model, method):
    """Greedy tokens from the cache are those that the uncached pass finds most likely."""
    family, task = learner.base.family, replace(some(model), labels=(), form="prompted")
    said = family.predict(learner.base.model, task, task.test[:3], "generate", {"max_new_tokens": 4})
    for row, words in zip(task.test[:3], said, strict=True):
        ids: list[int] = []
        for _ in range(4):
            source = family.features(replace(row, target=""), task)["input_ids"]
            one = {"input_ids": source, "labels": [*ids, 0]}
            if model == "tiny-llama":
                one = {"input_ids": source + ids, "labels": [IGNORE] * (len(source) - 1) + [*ids, 0]}
            batch = family.collate([one])
            with torch.no_grad():
                logits, _ = family.logits(learner.base.model, batch)
            ids.append(int(logits[-1].argmax()))
            if ids[-1] == family.processor.eos_token_id:
                break
        assert family.processor.decode(ids, skip_special_tokens=True) == words


@both
def test_a_resumed_run_equals_an_uninterrupted_one(learner, model, method, tmp_path):
    tasks = tiny_runs.stream(model)
    with pytest.raises(KeyboardInterrupt):
        learn(method, model, tmp_path / "run", progress=tiny_runs.Cut("second", 2))
    again = learn(method, model, tmp_path / "run", resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), tiny_runs.adapter(learner)) == 0
    assert again.folder.stages()[-1].facts.row == learner.folder.stages()[-1].facts.row
    assert len(tasks) == len(again.folder.stages())


@both
def test_what_is_stored_is_what_was_learned(learner, method, model):
    for folder in (learner.folder.path, learner.folder.stages()[-1].path):
        sites, rest = learner.backend.load(folder)
        (place,) = sites
        for name, tensor in learner.newest[place].tensors.items():
            assert torch.equal(sites[place].tensors[name], tensor)
        assert bool(rest) == bool(learner.base.family.head)
        assert not (folder / "adapter_config.json").exists()
    for name, tensor in rest.items():
        assert torch.equal(tensor, dict(learner.base.model.named_parameters())[name])


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5", "tiny-bert", "tiny-vit"])
@pytest.mark.parametrize("method", SMALL)
def test_the_split_of_a_batch_changes_nothing(method, model, tmp_path):
    if (method, model) not in PAIRS:
        pytest.skip("not on this family")
    found = []
    for size, steps in ((8, 1), (2, 4)):
        train = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": steps,
            "max_steps": 2,
            "optim": "sgd",
            "learning_rate": 0.5,
        }
        learner = learn(method, model, tmp_path / f"{size}", train=train, tasks=tiny_runs.stream(model)[:1])
        found.append(tiny_runs.adapter(learner))
    assert tiny_runs.largest_difference(*found) < 2e-5


@both
def test_an_unfinished_task_leaves_no_trace(learner, model, method, tmp_path):
    tasks = tiny_runs.stream(model)
    cut = tiny_runs.begin(model, SMALL[method], tmp_path / "run", progress=tiny_runs.Cut("second", 1))
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tasks)
    assert cut.backend.model is None
    assert not [n for n, _ in cut.base.model.named_parameters() if n.startswith("prompts")]
    assert not cut.base.model.base_model._forward_pre_hooks
    other = tiny_runs.train_sequence(model, SMALL[method], tmp_path / "one", tasks=tasks[:1])
    assert tiny_runs.largest_difference(tiny_runs.adapter(cut), tiny_runs.adapter(other)) == 0


def test_prompts_are_not_exported_as_if_they_were_weights(tmp_path):
    """They stand in no weight: a model that is written would be the base model."""
    learner = learn("l2p", "tiny-t5", tmp_path / "run", tasks=tiny_runs.stream("tiny-t5")[:1])
    run = Run.read(tmp_path / "run")
    with pytest.raises(ConfigError, match="l2p"):
        write_model(run, tiny_runs.fresh("tiny-t5"), tmp_path / "out")
    assert status(tmp_path / "run").holdings.memory_bytes == learner.storage().memory_bytes
    assert learner.storage().stored_elements == (4 * 2 + 4) * 64
    assert not (tmp_path / "out").exists()
