"""SD-LoRA lived through: frozen directions, magnitudes that train, one PEFT adapter of the whole in every folder."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

import lives
from everlora.adapters import files as adapters
from everlora.adapters.hooked import HOLDER
from everlora.core.errors import FolderError
from lives import MODELS

by_model = pytest.mark.parametrize("model", MODELS)
DIAGONAL = {"schedule": "diagonal", "scoring": "labels"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One life of three tasks per model, with outputs on the first at the start and the end of each."""
    known = {}

    def get(model, method="sd-lora"):
        if (model, method) in known:
            return known[model, method]
        notes, first = {}, lives.stream(model)[0]

        def note(word):
            def look(task):
                outputs = lives.outputs(life.backend.model, life.base.family, first)
                notes.setdefault((task, word), outputs)

            return look

        watch = lives.Watch(learning=note("start"), answering=note("end"))
        out = tmp_path_factory.mktemp("life") / "run"
        life = lives.begin(model, method, out, progress=watch, evaluation=DIAGONAL)
        life.follow(lives.stream(model, 3))
        known[model, method] = life, notes
        return life, notes

    return get


@by_model
def test_a_task_starts_where_the_last_ended(model, seen):
    life, notes = seen(model)
    apart = 1e-6 if life.base.family.head else 0
    torch.testing.assert_close(notes["second", "start"], notes["first", "end"], rtol=0, atol=apart)
    assert not torch.allclose(notes["first", "start"], notes["first", "end"], atol=1e-4), "nothing was learned"


def test_with_reset_it_does_not(seen):
    _, notes = seen("tiny-llama", "sd-lora(start=reset)")
    assert float((notes["second", "start"] - notes["first", "end"]).abs().max()) > 1e-3


@by_model
def test_directions_are_frozen_and_magnitudes_are_not(model, seen):
    life, _ = seen(model)
    stages = [life.backend.load(stage.path)[0] for stage in life.folder.stages()]
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
    task, lora = lives.stream("tiny-llama")[0], {"r": 4, "lora_alpha": 8, "lora_dropout": 0.5}
    life = lives.lived("tiny-llama", "sd-lora", tmp_path / "run", lora=lora, evaluation=DIAGONAL)
    model, family = life.backend.attach(seed=0, start=life.newest, tasks=[task]), life.base.family
    batch = family.collate([family.features(row, task) for row in task.test])

    @torch.no_grad()
    def answers(train):
        return family.logits(model.train(train), batch)[0]

    assert torch.equal(answers(train=True), answers(train=False))
    for site in life.backend.trainable().values():
        if "B" in site.tensors:
            site.tensors["B"].data.fill_(1.0)
    assert not torch.allclose(answers(train=True), answers(train=False), atol=1e-3)
    life.backend.detach()


@by_model
def test_every_folder_is_a_peft_adapter_of_the_whole(model, seen):
    life, _ = seen(model)
    task, family = lives.stream(model)[0], life.base.family
    expected = lives.outputs(life.inference_model(), family, task)
    life.backend.detach()
    for folder in (life.folder.path, life.folder.stages()[-1].path):
        loaded = lives.fresh(model)
        loaded.family.prepare(loaded.model, lives.stream(model, 3), torch.Generator())
        peft = PeftModel.from_pretrained(loaded.model, str(folder)).eval()
        torch.testing.assert_close(lives.outputs(peft, family, task), expected, rtol=1e-5, atol=1e-5)
    sites, _ = adapters.read(life.folder.path)
    assert {site.rank for site in sites.values()} == {12}


@by_model
def test_a_cut_life_leaves_no_trace_and_resumes_to_the_bit(model, seen, tmp_path):
    whole, _ = seen(model)
    cut = lives.begin(model, "sd-lora", tmp_path / "run", progress=lives.Cut(task="third"), evaluation=DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        cut.follow(lives.stream(model, 3))
    assert not hasattr(cut.base.model, HOLDER)
    resumed = lives.begin(model, "sd-lora", tmp_path / "run", resume=True, evaluation=DIAGONAL)
    resumed.follow(lives.stream(model, 3))
    assert lives.largest_difference(lives.adapter(resumed), lives.adapter(whole)) == 0
    head = f"{whole.base.family.head}."
    for name, weight in lives.base(model).model.named_parameters():
        if not name.startswith(head):
            assert torch.equal(dict(resumed.base.model.named_parameters())[name], weight)


def test_splits_of_a_batch_are_one(tmp_path):
    found = []
    for size, steps in ((8, 1), (2, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        train = {**split, "optim": "sgd", "learning_rate": 0.5}
        found.append(lives.adapter(lives.lived("tiny-llama", "sd-lora", tmp_path / str(size), train=train)))
    assert lives.largest_difference(*found) < 2e-6


def test_a_folder_without_magnitudes_is_refused(seen, tmp_path):
    life, _ = seen("tiny-llama")
    for name in ("adapter_config.json", adapters.WEIGHTS):
        (tmp_path / name).write_bytes((life.folder.path / name).read_bytes())
    with pytest.raises(FolderError, match=r"directions\.safetensors cannot be read"):
        life.backend.load(tmp_path)
