"""Layers between a model's body and its head: part of the model, not trained, and written with what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny_runs
from everlora import load
from everlora.adapters import files as adapters
from everlora.analysis.runs import Run
from everlora.archive.records import Environment
from everlora.archive.schema import read_json
from everlora.export.model import write_model
from oracle import models

DIAGONAL: Any = {"evaluation": {"schedule": "diagonal"}, "pooling": "head"}


@pytest.mark.parametrize(
    ("kind", "head", "saved", "fresh"),
    [
        ("bert", "classifier", ("classifier",), ()),
        ("distilbert", "classifier", ("pre_classifier", "classifier"), ("pre_classifier",)),
        ("roberta", "classifier.out_proj", ("classifier",), ("classifier.dense",)),
        ("deberta-v2", "classifier", ("pooler.dense", "classifier"), ("pooler.dense",)),
        ("modernbert", "classifier", ("head.dense", "head.norm", "classifier"), ("head.dense", "head.norm")),
    ],
)
def test_the_head_and_what_stands_before_it(
    kind: str, head: str, saved: tuple[str, ...], fresh: tuple[str, ...], tmp_path: Path
) -> None:
    base = load(str(models.build("encoder", kind, tmp_path)), pooling="head")
    assert base.family.head == head
    assert base.family.saved_modules == saved
    assert {name.rpartition(".")[0] for name in base.fresh} == set(fresh)
    again = load(base.name, pooling="head")
    for name in base.fresh:
        assert torch.equal(base.model.get_parameter(name), again.model.get_parameter(name))


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_what_was_learned_comes_back_and_is_exported_with_these_layers(kind: str, tmp_path: Path) -> None:
    model, out = str(models.build("encoder", kind, tmp_path)), tmp_path / "run"
    whole = tiny_runs.train_sequence(model, "inclora", out, **DIAGONAL)
    sites, rest = adapters.read(out / "tasks" / "02-second")
    fresh = load(model, dtype="float32", device="cpu", pooling="head")
    assert fresh.fresh
    for name in fresh.fresh:  # drawn once, not trained, and written
        assert torch.equal(rest[name], fresh.model.get_parameter(name))
    assert read_json(Environment, out / "environment.json").newly_initialised == tuple(fresh.fresh)

    cut = tmp_path / "cut"
    watch = tiny_runs.Cut()
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence(model, "inclora", cut, progress=watch, **DIAGONAL)
    assert [line for line in watch.warnings if "has no weights for" in line and fresh.fresh[0] in line]
    resumed = tiny_runs.train_sequence(model, "inclora", cut, resume=True, **DIAGONAL)
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0
    assert adapters.equal(adapters.read(cut / "tasks" / "02-second")[0], sites)

    write_model(Run.read(out), load(model, dtype="float32", device="cpu", pooling="head"), tmp_path / "exported")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported").eval()
    ids = torch.tensor([[1, 20, 30, 40, 2]])
    with torch.no_grad():
        expected = whole.inference_model()(input_ids=ids).logits
        torch.testing.assert_close(stock(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)


def test_a_body_without_its_weights_is_still_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from everlora.core.errors import ModelError

    folder = models.build("encoder", "roberta", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert tensors.pop(name) is not None
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not fit its config"):
        load(str(folder))


def test_layers_that_a_checkpoint_brings_are_taken_as_they_are(tmp_path: Path) -> None:
    body = load(str(models.build("encoder", "roberta", tmp_path)), dtype="float32", device="cpu", pooling="head")
    config = type(body.model.config)(**body.model.config.to_dict(), num_labels=3)
    trained = type(body.model)(config)
    trained.save_pretrained(tmp_path / "trained")
    body.family.processor.save_pretrained(tmp_path / "trained")
    base = load(str(tmp_path / "trained"), dtype="float32", device="cpu", labels=["a", "b"])
    assert (base.family.head, list(base.fresh)) == ("classifier.out_proj", [])
    assert torch.equal(base.model.get_parameter("classifier.dense.weight"), trained.classifier.dense.weight)
    assert base.model.get_submodule("classifier.out_proj").out_features == 2
