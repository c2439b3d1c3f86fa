"""SD-LoRA run through: frozen directions, magnitudes that train, one PEFT adapter of the whole in every folder."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

import tiny_runs
from everlora.adapters import files as adapters
from everlora.adapters.hooked import HOLDER
from everlora.core.errors import FolderError
from tiny_runs import MODELS

by_model = pytest.mark.parametrize("model", MODELS)
DIAGONAL = {"schedule": "diagonal", "scoring": "labels"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One run of three tasks per model, with outputs on the first at the start and the end of each."""
    known = {}

    def get(model, method="sd-lora"):
        if (model, method) in known:
            return known[model, method]
        notes, first = {}, tiny_runs.stream(model)[0]

        def note(word):
            def look(task):
                outputs = tiny_runs.outputs(learner.backend.model, learner.base.family, first)
                notes.setdefault((task, word), outputs)

            return look

        watch = tiny_runs.Watch(learning=note("start"), answering=note("end"))
        out = tmp_path_factory.mktemp("run") / "run"
        learner = tiny_runs.begin(model, method, out, progress=watch, evaluation=DIAGONAL)
        learner.follow(tiny_runs.stream(model, 3))
        known[model, method] = learner, notes
        return learner, notes

    return get


@by_model
def test_a_task_starts_where_the_last_ended(model, seen):
    learner, notes = seen(model)
    apart = 1e-6 if learner.base.family.head else 0
    torch.testing.assert_close(notes["second", "start"], notes["first", "end"], rtol=0, atol=apart)
    assert not torch.allclose(notes["first", "start"], notes["first", "end"], atol=1e-4), "nothing was learned"


def test_with_reset_it_does_not(seen):
    _, notes = seen("tiny-llama", "sd-lora(start=reset)")
    assert float((notes["second", "start"] - notes["first", "end"]).abs().max()) > 1e-3


@by_model
def test_directions_are_frozen_and_magnitudes_are_not(model, seen):
    learner, _ = seen(model)
    stages = [learner.backend.load(stage.path)[0] for stage in learner.folder.stages()]
    for name, site in stages[-1].items():
        if name == "scalars":
            continue
        assert site.tensors["A"].shape[0] == site.tensors["B"].shape[1] == 12
        for k, earlier in enumerate(stages[:-1], start=1):
            assert torch.equal(site.tensors["A"][: 4 * k], earlier[name].tensors["A"])
            assert torch.equal(site.tensors["B"][:, : 4 * k], earlier[name].tensors["B"])
            assert torch.equal(site.tensors["scale"][: k - 1], earlier[name].tensors["scale"][:-1])
    second, third = (stage["scalars"].tensors["alpha"] for stage in stages[1:])
    assert float(second[0]) != float(third[0]), "the first magnitude is not trained on"


def test_frozen_directions_see_no_dropout(tmp_path):
    """While the new direction adds nothing, a model in training answers as in inference; then no longer."""
    task, lora = tiny_runs.stream("tiny-llama")[0], {"r": 4, "lora_alpha": 8, "lora_dropout": 0.5}
    learner = tiny_runs.train_sequence("tiny-llama", "sd-lora", tmp_path / "run", lora=lora, evaluation=DIAGONAL)
    model, family = learner.backend.attach(seed=0, start=learner.newest, tasks=[task]), learner.base.family
    batch = family.collate([family.features(row, task) for row in task.test])

    @torch.no_grad()
    def answers(train):
        return family.logits(model.train(train), batch)[0]

    assert torch.equal(answers(train=True), answers(train=False))
    for site in learner.backend.trainable().values():
        if "B" in site.tensors:
            site.tensors["B"].data.fill_(1.0)
    assert not torch.allclose(answers(train=True), answers(train=False), atol=1e-3)
    learner.backend.detach()


@by_model
def test_every_folder_is_a_peft_adapter_of_the_whole(model, seen):
    learner, _ = seen(model)
    task, family = tiny_runs.stream(model)[0], learner.base.family
    expected = tiny_runs.outputs(learner.inference_model(), family, task)
    learner.backend.detach()
    for folder in (learner.folder.path, learner.folder.stages()[-1].path):
        loaded = tiny_runs.fresh(model)
        loaded.family.prepare(loaded.model, tiny_runs.stream(model, 3), torch.Generator())
        peft = PeftModel.from_pretrained(loaded.model, str(folder)).eval()
        torch.testing.assert_close(tiny_runs.outputs(peft, family, task), expected, rtol=1e-5, atol=1e-5)
    sites, _ = adapters.read(learner.folder.path)
    assert {site.rank for site in sites.values()} == {12}


@by_model
def test_a_cut_run_leaves_no_trace_and_resumes_to_the_bit(model, seen, tmp_path):
    whole, _ = seen(model)
    cut = tiny_runs.begin(
        model, "sd-lora", tmp_path / "run", progress=tiny_runs.Cut(task="third"), evaluation=DIAGONAL
    )
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tiny_runs.stream(model, 3))
    assert not hasattr(cut.base.model, HOLDER)
    resumed = tiny_runs.begin(model, "sd-lora", tmp_path / "run", resume=True, evaluation=DIAGONAL)
    resumed.follow(tiny_runs.stream(model, 3))
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0
    head = f"{whole.base.family.head}."
    for name, weight in tiny_runs.base(model).model.named_parameters():
        if not name.startswith(head):
            assert torch.equal(dict(resumed.base.model.named_parameters())[name], weight)


def test_splits_of_a_batch_are_one(tmp_path):
    found = []
    for size, steps in ((8, 1), (2, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        train = {**split, "optim": "sgd", "learning_rate": 0.5}
        found.append(
            tiny_runs.adapter(tiny_runs.train_sequence("tiny-llama", "sd-lora", tmp_path / str(size), train=train))
        )
    assert tiny_runs.largest_difference(*found) < 2e-6


def test_a_folder_without_magnitudes_is_refused(seen, tmp_path):
    learner, _ = seen("tiny-llama")
    for name in ("adapter_config.json", adapters.WEIGHTS):
        (tmp_path / name).write_bytes((learner.folder.path / name).read_bytes())
    with pytest.raises(FolderError, match=r"directions\.safetensors cannot be read"):
        learner.backend.load(tmp_path)
