"""What does a past in bf16 save, and does it learn the same? ``--past fold`` against ``--past fold-bf16``.

    python benchmarks/past.py step --model smollm2-135m --rounds 5       # seconds of a step, bytes of adapted matrices
    python benchmarks/past.py curves --model tiny-llama --seeds 5        # losses and scores of runs over three tasks

``step`` interleaves both in one process and prints the median ratio of processor seconds with its range, on the first
task and on the sixth. ``curves`` prints how far losses of the same seed are from each other, step by step, next to how
far those of two seeds are, and the mean score at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path

import torch

from everlora.adapters.lora import LoraBackend
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.learner import experiment
from everlora.models.loading import load
from everlora.settings.spec import RunSpec
from everlora.training.trainer import token_mean

PASTS = ("fold", "fold-bf16")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "curves"])
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="of each task, for curves")
    parser.add_argument("--tokens", type=int, default=128, help="of each of 8 rows, for a step")
    wish = parser.parse_args(arguments)
    torch.set_num_threads(1)
    step(wish.model, wish.rounds, wish.tokens) if wish.what == "step" else curves(wish.model, wish.seeds, wish.steps)


def step(model: str, rounds: int, tokens: int) -> None:
    """Print what a step takes on the first task and after five."""
    backends = {}
    for past in PASTS:
        backend = LoraBackend(load(model, dtype="bfloat16"), {"r": 8, "lora_alpha": 8}, past)
        backend.attach(seed=0).train()
        backends[past] = backend
    for tasks in (0, 5):
        for backend in backends.values():
            backend.set_past(UpdateHistory(tuple(update(backend, seed) for seed in range(tasks))))
        found: dict[str, list[float]] = {past: [] for past in PASTS}
        for lap in range(rounds + 1):
            for past, backend in backends.items():
                spent = one_step(backend, tokens)
                if lap:  # the first warms caches
                    found[past].append(spent)
        ratios = [b / a for a, b in zip(found["fold"], found["fold-bf16"], strict=True)]
        sizes = {past: held(backend) / 2**20 for past, backend in backends.items()}
        print(
            f"after {tasks} tasks: {statistics.median(found['fold']):.2f} s, fold-bf16 takes "
            f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] of it; adapted matrices "
            f"{sizes['fold']:.0f} and {sizes['fold-bf16']:.0f} MiB"
        )


def one_step(backend: LoraBackend, tokens: int) -> float:
    """Return the processor seconds of forward and backward of 8 rows."""
    ids = torch.arange(8 * tokens).reshape(8, tokens) % 500 + 10
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["position_ids"] = torch.arange(tokens).expand(8, tokens)
    wanted = torch.full_like(ids, -100).index_fill(1, torch.arange(tokens - 8, tokens), 5)
    batch["shift_labels"] = batch["labels"] = wanted
    began = time.process_time()
    logits, targets = backend.base.family.logits(backend.model, batch)
    token_mean(logits, targets, targets.numel()).backward()
    backend.model.zero_grad()
    return time.process_time() - began


def held(backend: LoraBackend) -> int:
    """Return the bytes of all matrices that the adapted layers hold."""
    tensors = [t for one in backend._folded.values() for t in (one.layer.weight, one.original, one.rest)]
    return sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))


def update(backend: LoraBackend, seed: int) -> dict[str, LowRank]:
    draw, found = torch.Generator().manual_seed(seed), {}
    for name, site in backend.trainable().items():
        A, B = (torch.randn(t.shape, generator=draw) for t in (site.A, site.B))
        found[name] = LowRank(A, B * 1e-4, site.scale)
    return found


def curves(model: str, seeds: int, steps: int) -> None:
    """Print how far the losses of both are from each other, and those of seeds."""
    losses: dict[str, list[list[float]]] = {past: [] for past in PASTS}
    scores: dict[str, list[float]] = {past: [] for past in PASTS}
    for seed in range(seeds):
        for past in PASTS:
            with tempfile.TemporaryDirectory() as folder:
                curve, score = followed(model, past, seed, steps, Path(folder) / "run")
            losses[past].append(curve)
            scores[past].append(score)
    same = [apart(a, b) for a, b in zip(losses["fold"], losses["fold-bf16"], strict=True)]
    other = [apart(a, b) for a, b in combinations(losses["fold"], 2)] or [0.0]
    print(f"mean |difference| of losses: same seed {statistics.mean(same):.2g} (largest {max(same):.2g}), "
          f"two seeds {statistics.mean(other):.2g} (least {min(other):.2g})")  # fmt: skip
    for past in PASTS:
        last = [statistics.mean(curve[-steps // 4 :]) for curve in losses[past]]
        first = statistics.mean(curve[0] for curve in losses[past])
        ends, answers = [round(one, 4) for one in last], [round(one, 1) for one in scores[past]]
        print(f"{past:10} loss {first:.3f} at first, {ends} at the end; scores {answers}")


def followed(model: str, past: str, seed: int, steps: int, out: Path) -> tuple[list[float], float]:
    """Return the loss of every step of a run over three tasks, and its score at the end."""
    rate = 1e-2 if model.startswith("tiny-") else 1e-3
    spec = experiment.resolve(
        RunSpec,
        {
            "method": "ella", "model": model, "benchmark": "builtin", "tasks": ["reviews", "news", "intent"],
            "dtype": "bfloat16", "past": past, "seed": seed, "max_train_samples": 64, "max_eval_samples": 16,
            "evaluation": {"scoring": "labels"},
            "train": {"max_steps": steps, "learning_rate": rate, "logging_steps": 1},
        },
    )  # fmt: skip
    result = experiment.run(spec, out)
    logs = sorted(out.glob("tasks/*/training.jsonl"))
    rows = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return [float(row["loss"]) for row in rows if "loss" in row], float(result.record.plain()["metrics"]["oa"])


def apart(one: list[float], other: list[float]) -> float:
    return statistics.mean(abs(a - b) for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
