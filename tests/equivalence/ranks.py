"""One of several processes: runs a few runs and writes down what this rank ended with. Started by test_processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_runs
from everlora.models.families import packed

STRONG = "ella(lam=0.3)+o-lora(lam=0.01)"
SGD = {"optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
CASES = {
    "adamw": (STRONG, {"per_device_train_batch_size": 4}),
    "sgd": (STRONG, SGD),
    "start": ("lb-cl", SGD),
    "found": ("ella(lam=auto,rho=0.3)", SGD),
    "masked": ("o-lora+migu", SGD),
}
"""A name: the method, and how its batches are split over steps and processes."""
MODELS_OF = {"adamw": tiny_runs.MODELS, "sgd": ("tiny-t5", "tiny-bert")}
"""Families whose own loss would grow with processes, and with the usual optimiser all."""
RUNS = [(model, case) for case in CASES for model in MODELS_OF.get(case, ("tiny-bert",))]

UPPER = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "layers": "top:1"}
"""Texts run once through the layers below, on each process its own."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    for model, case in RUNS:
        method, train = CASES[case]
        learner = tiny_runs.train_sequence(model, method, out / model / case, train=train)
        torch.save(tiny_runs.adapter(learner), out / f"{model}-{case}-{os.environ['RANK']}.pt")
    for method in ("zero-shot", "per-task", "mtl"):
        learner = tiny_runs.train_sequence("tiny-bert", method, out / method, train=CASES["adamw"][1])
        if learner.newest:
            torch.save(tiny_runs.adapter(learner), out / f"{method}-{os.environ['RANK']}.pt")
    upper = tiny_runs.train_sequence("tiny-bert", "ella+replay", out / "upper", lora=UPPER, train=CASES["adamw"][1])
    assert upper.base.family.frozen is not None
    assert upper.base.family.frozen.fits
    torch.save(tiny_runs.adapter(upper), out / f"upper-{os.environ['RANK']}.pt")
    packed.SAVED = 1
    rows = tiny_runs.train_sequence("tiny-llama", STRONG, out / "packed", train=CASES["adamw"][1])
    torch.save(tiny_runs.adapter(rows), out / f"packed-{os.environ['RANK']}.pt")
