"""Lets a fresh process, with transformers and PEFT alone, answer as a learner does, and compares the logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from everlora.core.errors import TrainingError
from everlora.data.task import Example, Task
from everlora.learner.opened import restore, tasks_of
from everlora.learner.sequential import SequentialLearner
from everlora.learner.state import any_row
from everlora.models.families import TextClassifier

ROWS = 3
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}
"""By which logits may differ, as a share of the largest: sums are in another order where the past is folded in."""
AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModelForSequenceClassification",
    "image-classifier": "AutoModelForImageClassification",
}
STOCK = """
import json, sys
import peft, torch, transformers
from safetensors.torch import load_file, save_file
facts = json.load(open(sys.argv[1]))
auto = getattr(transformers, facts["auto"])
model = auto.from_pretrained(facts["base"], dtype=getattr(torch, facts["dtype"]), **facts["options"])
model = peft.PeftModel.from_pretrained(model, facts["adapter"]).eval()
found = {}
for number in range(facts["rows"]):
    inputs = load_file(f'{facts["folder"]}/row-{number}.safetensors')
    with torch.no_grad():
        found[str(number)] = model(**inputs).logits.float().contiguous()
assert not any(name.split(".")[0] == "everlora" for name in sys.modules)
save_file(found, facts["folder"] + "/logits.safetensors")
"""
"""The program of the fresh process."""


def why_not(learner: SequentialLearner) -> str | None:
    """Return why a learner cannot be answered with transformers and PEFT alone; None if it can be."""
    family = learner.base.family
    if not learner.method.adapter.loads_with_peft or not (learner.folder.path / "adapter_config.json").is_file():
        return f"the form {learner.method.adapter.form!r} is no adapter of PEFT: only everlora loads it"
    if isinstance(family, TextClassifier) and family.pooling != "head":
        return f"its encoder pools by {family.pooling!r}, which stock classes do not: README.md has the lines that do"
    if learner.base.precision.packing is not None:
        return f"its base model is packed as {learner.base.precision.packing} when it is loaded, and no file has it so"
    return None


@torch.no_grad()
def largest_difference(learner: SequentialLearner) -> tuple[float, float]:
    """Return by how much logits of both differ at most, as a share of the largest, and by how much they may.

    Raises:
        TrainingError: the fresh process failed; the message is the last line of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="everlora-") as place:
        folder = Path(place)
        learner.reset()
        learner.base.model.save_pretrained(str(folder / "base"))  # before the past is folded into its weights
        known = tasks_of(learner)
        model = restore(learner, known)
        rows = inputs_of(learner, known)
        own = [_logits(model, row) for row in rows]
        for number, row in enumerate(rows):
            save_file(row, folder / f"row-{number}.safetensors")
        fresh = _fresh(learner, folder, len(rows))
    largest = max(float(logits.abs().max()) for logits in own)
    pairs = zip(own, fresh, strict=True)
    differences = [float((a - b).abs().max()) if a.shape == b.shape else float("inf") for a, b in pairs]
    return max(differences) / (largest or 1.0), TOLERANCE[learner.base.precision.describe()["weights"]]


def _logits(model: nn.Module, row: dict[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    logits: Tensor = model(**{name: tensor.to(device) for name, tensor in row.items()}).logits
    return logits.float().cpu()


def inputs_of(learner: SequentialLearner, known: Sequence[Task]) -> list[dict[str, Tensor]]:
    """Return what the model reads for a few rows, of the learner's tasks where such rows are at hand."""
    base = learner.base
    if base.family.name == "image-classifier":
        size, draws = base.model.config.image_size, torch.Generator().manual_seed(0)
        shape = (1, base.model.config.num_channels, *([size, size] if isinstance(size, int) else size))
        return [{"pixel_values": torch.rand(shape, generator=draws).to(base.precision.weights)} for _ in range(ROWS)]
    rows = [(row, task) for task in reversed(known) for row in (list(task.test)[:1] or any_row(task))][:ROWS]
    return [_text(learner, row, task) for row, task in rows]


def _text(learner: SequentialLearner, row: Example, task: Task) -> dict[str, Tensor]:
    base, text = learner.base, row.input if isinstance(row.input, str) else str(row.input[0]["content"])
    ids = base.family.processor(text, return_tensors="pt", truncation=True, max_length=64)
    found = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
    if base.family.name == "encoder-decoder":
        found["decoder_input_ids"] = torch.tensor([[int(base.model.config.decoder_start_token_id or 0)]])
    return found


def _fresh(learner: SequentialLearner, folder: Path, rows: int) -> list[Tensor]:
    """Let the fresh process answer rows that lie in ``folder``."""
    labels = len(learner.base.family.labels)
    options: dict[str, Any] = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
    facts = {
        "auto": AUTO[learner.base.family.name],
        "base": str(folder / "base"),
        "adapter": str(learner.folder.path.resolve()),
        "dtype": learner.base.precision.describe()["weights"],
        "options": options,
        "rows": rows,
        "folder": str(folder),
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    paths = {"PYTHONPATH": ""} if not os.environ.get("PYTHONPATH") else {}
    command = [sys.executable, "-c", STOCK, str(folder / "facts.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **paths, "HF_HUB_OFFLINE": "1"}, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise TrainingError(f"transformers and PEFT alone cannot answer as this learner: {last}")
    found = load_file(folder / "logits.safetensors")
    return [found[str(number)] for number in range(rows)]
