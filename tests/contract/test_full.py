"""Full weights: what is special about a form whose folder is a whole model."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

import tiny_runs
from everlora import load, parse
from everlora.adapters import make_backend
from everlora.analysis.interference import inspect
from everlora.analysis.runs import Run
from everlora.analysis.status import status
from everlora.core.adapter import Consolidator
from everlora.core.errors import ConfigError, FolderError, ModelError
from everlora.core.method import Method
from everlora.core.updates import Weights
from everlora.export import model as export
from everlora.learner import experiment
from everlora.parts.distil import Distil
from everlora.parts.forms_full import FullWeights

AUTO = {
    "tiny-llama": AutoModelForCausalLM,
    "tiny-t5": AutoModelForSeq2SeqLM,
    "tiny-bert": AutoModelForSequenceClassification,
    "tiny-vit": AutoModelForImageClassification,
}


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_the_run_folder_is_a_transformers_folder(model, tmp_path):
    learner = tiny_runs.train_sequence(model, "seqft", tmp_path / "run")
    family, task = learner.base.family, tiny_runs.stream(model)[1]
    ready = learner.inference_model()
    plain = AUTO[model].from_pretrained(tmp_path / "run")
    assert not plain.training
    assert torch.equal(tiny_runs.outputs(plain, family, task), tiny_runs.outputs(ready, family, task))
    earlier = AUTO[model].from_pretrained(learner.folder.stages()[0].path)
    assert not torch.equal(next(iter(earlier.parameters())), next(iter(plain.parameters())))
    if family.head:
        assert plain.config.id2label == dict(enumerate(family.labels))


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_of_a_bf16_model_fp32_weights_are_trained_and_its_own_come_back(model, tmp_path):
    loaded = tiny_runs.fresh(model, "bfloat16")
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if not n.startswith("classifier")}
    trained = []
    watch = tiny_runs.Watch(learning=lambda _: trained.extend(p.dtype for p in learner.backend.model.parameters()))
    learner = tiny_runs.begin(model, "seqft", tmp_path / "run", loaded=loaded, dtype="bfloat16", progress=watch,
                       train={"learning_rate": 1e-5})  # fmt: skip
    learner.follow(tiny_runs.stream(model)[:1])
    assert set(trained) == {torch.float32}
    now = dict(loaded.model.named_parameters())
    assert all(now[n].dtype == torch.bfloat16 and torch.equal(now[n], t) for n, t in before.items())
    learned = {f"{place}.{key}": t for place, site in learner.newest.items() for key, t in site.tensors.items()}
    moved = sum(int((learned[n] != t.float()).sum()) for n, t in before.items())
    kept = sum(int((learned[n].bfloat16() != t).sum()) for n, t in before.items())
    assert moved > 2 * kept, "steps of 1e-5 show in fp32, and mostly not in bf16"


def test_frozen_embeddings_stay_and_are_written(tmp_path):
    learner = tiny_runs.train_sequence("tiny-llama", "seqft(freeze_embeddings=true)", tmp_path / "run")
    pristine = tiny_runs.base("tiny-llama").model.get_input_embeddings().weight
    assert torch.equal(AUTO["tiny-llama"].from_pretrained(tmp_path / "run").get_input_embeddings().weight, pristine)
    full = tiny_runs.train_sequence("tiny-llama", "seqft", tmp_path / "full")
    assert full.newest.keys() - learner.newest.keys() == {"model.embed_tokens"}
    there = AUTO["tiny-llama"].from_pretrained(tmp_path / "full").get_input_embeddings().weight
    assert not torch.equal(there, pristine)


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_one_task_is_the_same_whichever_reference_learns_it(model, tmp_path):
    """SeqFT of one task is per-task on full weights, and is the joint reference on that task."""
    one = tiny_runs.stream(model)[:1]
    methods = ("seqft", "per-task(mode=full)", "mtl(mode=full)")
    first, *others = (tiny_runs.train_sequence(model, m, tmp_path / str(k), one) for k, m in enumerate(methods))
    for other in others[:1]:
        assert tiny_runs.largest_difference(tiny_runs.adapter(other), tiny_runs.adapter(first)) == 0
    # The joint stage has another name, not another seed.
    assert tiny_runs.largest_difference(tiny_runs.adapter(others[1]), tiny_runs.adapter(first)) == 0


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_one_piece_or_eight(model, tmp_path):
    """Plain SGD hides no scale: the loss is divided by what is in the global batch."""
    sgd = {"optim": "sgd", "learning_rate": 0.1}
    whole, pieces = (
        tiny_runs.train_sequence(model, "ewc(on=all,samples=4)", tmp_path / str(rows),
                    train={**sgd, "per_device_train_batch_size": rows, "gradient_accumulation_steps": 8 // rows})
        for rows in (8, 1)
    )  # fmt: skip
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(pieces)) < 1e-4


def test_decay_leaves_rows_of_other_labels(tmp_path):
    heads = []

    def note(_):
        heads.append(learner.backend.model.classifier.weight.detach().clone())

    watch, diagonal = tiny_runs.Watch(learning=note, answering=note), {"schedule": "diagonal"}
    learner = tiny_runs.begin(
        "tiny-bert", "seqft", tmp_path / "run", train={"weight_decay": 0.5}, progress=watch, evaluation=diagonal
    )
    learner.follow(tiny_runs.stream("tiny-bert"))
    assert torch.equal(heads[2][:2], heads[3][:2])
    assert not torch.equal(heads[2][2:], heads[3][2:])


def test_all_weights_come_back_after_a_failure_in_the_midst_of_opening(tmp_path):
    """What was stored belongs to another model: one line, and the base is as it was."""
    loaded = tiny_runs.fresh("tiny-llama")
    before = copy.deepcopy(loaded.model.state_dict())
    full = make_backend(loaded, {}, "auto", FullWeights())
    with pytest.raises(ModelError, match="those of another model: 'nowhere'"):
        full.attach(seed=0, start={"nowhere": Weights({"weight": torch.zeros(1)})})
    full.detach()
    assert all(torch.equal(t, before[name]) for name, t in loaded.model.state_dict().items())


def test_quantised_weights_are_refused_before_anything_is_touched():
    loaded = tiny_runs.fresh("tiny-llama")
    layer = loaded.model.model.layers[1].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    full = make_backend(loaded, {}, "auto", FullWeights())
    with pytest.raises(ModelError, match=r"quantised.*take a method with adapters"):
        full.attach(seed=0)
    assert full.model is None
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_a_damaged_folder_is_one_line(tmp_path):
    learner = tiny_runs.train_sequence("tiny-llama", "seqft", tmp_path / "run", tiny_runs.stream("tiny-llama")[:1])
    file = learner.folder.stages()[0].path / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(FolderError, match=r"incomplete: model.norm.weight is missing"):
        learner.backend.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(FolderError, match="cannot be read"):
        learner.backend.load(tmp_path)


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_distillation_holds_full_weights_too(model, tmp_path):
    """Parts that suit every form: on all weights, LwF's term changes what is learned and only from the second task."""
    plain = Method(name="own", adapter=FullWeights(), consolidator=Consolidator(rule="continue"))
    held = Method(name="own", adapter=plain.adapter, consolidator=plain.consolidator, outputs=(Distil(beta=5.0),))
    without, with_it = (tiny_runs.train_sequence(model, m, tmp_path / str(k)) for k, m in enumerate((plain, held)))
    first = [learner.folder.stages()[0].path / "model.safetensors" for learner in (without, with_it)]
    assert first[0].read_bytes() == first[1].read_bytes()
    assert tiny_runs.largest_difference(tiny_runs.adapter(without), tiny_runs.adapter(with_it)) > 0


def test_the_exported_model_is_loaded_by_everlora(tmp_path):
    learner = tiny_runs.train_sequence("tiny-llama", "seqft", tmp_path / "run")
    learner.base.family.processor.save_pretrained(tmp_path / "run")
    again = load(str(tmp_path / "run"), dtype="float32", device="cpu")
    task = tiny_runs.stream("tiny-llama")[0]
    assert torch.equal(
        tiny_runs.outputs(again.model, again.family, task),
        tiny_runs.outputs(learner.inference_model(), again.family, task),
    )


def test_modes():
    assert parse("mtl").adapter == parse("mtl(mode=lora)").adapter
    assert parse("mtl(mode=full)").adapter == FullWeights()
    assert parse("seqft").policy == "continue: one set of weights for all tasks"
    assert parse("mtl(mode=full)").policy == "one set of weights, all tasks at once"


def test_looking_at_a_run_of_full_weights(tmp_path):
    learner = tiny_runs.train_sequence("tiny-llama", "ewc(on=all,samples=4)", tmp_path / "run")
    run = Run.read(tmp_path / "run")
    found = status(tmp_path / "run")
    assert found.holdings == run.holdings()
    assert found.holdings.memory_bytes == learner.storage().memory_bytes > 0
    assert [task.name for task in found.tasks] == ["first", "second"]
    assert found.holdings.room is None
    with pytest.raises(ConfigError, match=r"trains one set of weights and no low-rank updates"):
        inspect(run)
    with pytest.raises(ConfigError, match=r"is a whole model already"):
        export.check_exportable(run)


def test_the_card_says_how_a_whole_model_is_loaded(tmp_path):
    learner = tiny_runs.begin("tiny-llama", "seqft", tmp_path / "run")
    experiment.finish(learner, learner.follow(tiny_runs.stream("tiny-llama")))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "from_pretrained" in card
    assert "PeftModel" not in card
    assert "- lora" not in card
    assert "The set of weights in this folder is the one that every task was trained on." in card
