"""What is exported is what is in memory: stock transformers and PEFT, in a fresh process, without us."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys

import pytest
import torch

import everlora
import tiny_runs
from everlora import parse
from everlora.adapters import files as adapters
from plan import pairs, planned
from tiny_runs import MODELS, TRAINED

FRESH = """
import sys, torch
import transformers
from peft import PeftModel

torch.set_num_threads(1)
apart = []
for item in torch.load(sys.argv[1]):
    auto = getattr(transformers, item["auto"])
    rows = {"num_labels": item["labels"], "ignore_mismatched_sizes": True} if item["labels"] else {}
    base = auto.from_pretrained(item["base"], dtype=torch.float32, **rows)
    model = PeftModel.from_pretrained(base, item["folder"]).eval()
    with torch.no_grad():
        logits = model(**item["inputs"]).logits
    apart.append(float((logits - item["logits"]).abs().max()))
assert "everlora" not in sys.modules
print(*apart)
"""
AUTO = {
    "tiny-llama": "AutoModelForCausalLM",
    "tiny-t5": "AutoModelForSeq2SeqLM",
    "tiny-bert": "AutoModelForSequenceClassification",
    "tiny-vit": "AutoModelForImageClassification",
}


def inputs_for(model, task):
    family = tiny_runs.base(model).family
    if tiny_runs.base(model).family.head:
        family = everlora.load(model, labels=task.labels).family
    batch = family.collate([family.features(row, task) for row in task.test])
    return {k: v for k, v in batch.items() if k not in ("labels", "shift_labels", "allowed")}


@torch.no_grad()
def logits_of(model, inputs):
    return model.eval()(**inputs).logits.clone()


def stage_alone(record, model, number):
    """W0 + ΔW of one stage, with the head of that time, put together by hand."""
    committed = record.learner.folder.stages()[number]
    sites, rest = adapters.read(committed.path)
    plain = everlora.load(model, dtype="float32", device="cpu", labels=committed.facts.labels).model
    with torch.no_grad():
        for name, site in sites.items():
            plain.get_submodule(name).weight += site.dense()
        for name, tensor in rest.items():
            plain.get_parameter(name).copy_(tensor)
    return plain, committed


@pytest.fixture(scope="module")
def exported(request, recorded, tmp_path_factory):
    """Every folder of every run with the logits that it must give: loaded by one fresh process."""
    tests = [item for item in request.session.items if item.path == request.path and "exported" in item.fixturenames]
    chosen = [(item.callspec.params["method"], item.callspec.params["model"]) for item in tests]
    work, items, names = tmp_path_factory.mktemp("export"), [], []
    for model in MODELS:
        tiny_runs.base(model).model.save_pretrained(work / model)
        inputs = inputs_for(model, tiny_runs.stream(model)[0])
        for method in (m for m, other in chosen if other == model):
            record = recorded(method, model)
            shared = {"auto": AUTO[model], "base": str(work / model), "inputs": inputs}
            labels = record.learner.folder.stages()[-1].facts.labels
            ready = record.learner.inference_model()
            items.append(
                {**shared, "folder": str(record.folder), "labels": len(labels), "logits": logits_of(ready, inputs)}
            )
            names.append((method, model, "root"))
            with contextlib.suppress(AssertionError):
                record.learner.backend.detach()
            for number in range(len(record.learner.folder.stages())):
                plain, committed = stage_alone(record, model, number)
                items.append(
                    {
                        **shared,
                        "folder": str(committed.path),
                        "labels": len(committed.facts.labels),
                        "logits": logits_of(plain, inputs),
                    }
                )
                names.append((method, model, committed.facts.name))
    torch.save(items, work / "items.pt")
    (work / "fresh.py").write_text(FRESH)
    run = subprocess.run(
        [sys.executable, str(work / "fresh.py"), str(work / "items.pt")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        cwd=work,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return dict(zip(names, map(float, run.stdout.split()), strict=True))


@pytest.mark.parametrize(("method", "model"), planned(pairs(TRAINED)))
def test_a_fresh_process_gives_the_same_logits(method, model, exported):
    stages = [parse(method).name] if parse(method).regime == "joint" else ["first", "second"]
    for which in ("root", *stages):
        assert exported[method, model, which] < 2e-5, which


@pytest.mark.parametrize(
    ("method", "model"),
    [("ella", "tiny-llama"), ("ella", "tiny-bert"), ("ella", "tiny-vit"), ("sd-lora", "tiny-bert")],
)
def test_the_card_tells_how(method, model, tmp_path, monkeypatch):
    """The code block of the model card is run as it stands."""
    tasks = tiny_runs.stream(model)
    learner = everlora.Learner(
        model,
        method=method,
        out=tmp_path / "run",
        **tiny_runs.spec(model, method).model_dump(include={"dtype", "device", "lora", "train", "evaluation"}),
    )
    learner.follow(tasks)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "run" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path / "run")
    scope: dict = {}
    exec(code, scope)
    inputs = inputs_for(model, tasks[0])
    apart = logits_of(scope["model"], inputs) - logits_of(learner.model, inputs)
    assert float(apart.abs().max()) < 2e-5


def test_labels_are_for_heads_only():
    with pytest.raises(everlora.EverloraError, match="no head"):
        everlora.load("tiny-llama", labels=["yes"])
