"""What does a penalty cost? Ratios of one optimiser step with and without it, interleaved within one run.

    python benchmarks/step.py --model smollm2-135m --tasks 1 5 15 --rounds 5

A step is forward and backward of 8 x 128 tokens, what a method's parts do between backward and the optimiser, and the
optimiser. In each round the model is passed through once, and the parts of all methods, and of plain LoRA, act in turn
on the gradients that it left: two passes differ by more than what parts take. Processor time of one thread; a line of
JSON per method, number of past tasks and round goes to ``--results``. Printed are medians of the ratio to plain LoRA's
step, and the range of rounds. ``--evidence`` adds what K-FAC's evidence costs once a task: (curvature of 32 rows) /
(learning the same rows once).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from everlora.adapters.lora import LoraBackend
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import Curvature, Evidence, HasMemory, State
from everlora.core.updates import LowRank
from everlora.learner import experiment
from everlora.models.loading import Loaded
from everlora.settings.spec import LearnerSpec, RunSpec
from everlora.training.chain import Chain
from everlora.training.curvature import curvature
from everlora.training.evidence_rows import AT_ONCE, to_batch
from everlora.training.trainer import token_mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--methods", nargs="+", default=["ella", "ps-lora", "o-lora", "lb-cl", "ewc", "kfac"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[15, 50])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--evidence", action="store_true", help="measure K-FAC's evidence, too")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/step.jsonl")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    base = experiment.load_for(experiment.resolve(LearnerSpec, {"model": wish.model}))
    backend = LoraBackend(base, {"r": 8, "lora_alpha": 32})
    model = backend.attach(seed=0)
    params = [p for p in model.parameters() if p.requires_grad]
    plain = _chain(backend, params, UpdateHistory(), "inclora")
    variants: dict[tuple[str, int], Chain] = {}
    for tasks in wish.tasks:
        past = UpdateHistory(tuple(_update(backend, seed) for seed in range(tasks)))
        variants |= {(method, tasks): _chain(backend, params, past, method) for method in wish.methods}
    batch = {"input_ids": torch.randint(10, min(1000, base.model.config.vocab_size), (8, 128))}
    batch["attention_mask"] = torch.ones(8, 128, dtype=torch.long)
    batch["position_ids"] = torch.arange(128).expand(8, 128)
    batch["shift_labels"] = batch["labels"] = torch.full((8, 128), -100).index_fill(1, torch.arange(120, 128), 5)
    optimiser = torch.optim.AdamW(params, lr=1e-4)

    def passed() -> None:
        optimiser.zero_grad()
        logits, targets = base.family.logits(model, batch)
        token_mean(logits, targets, targets.numel()).backward()

    rows: list[dict[str, str | int | float]] = []
    for lap in range(wish.rounds + 1):
        through = _seconds(passed)
        left = [p.grad.clone() if p.grad is not None else None for p in params]
        usual = _acted(plain, params, left)
        acted = {key: _acted(chain, params, left) for key, chain in variants.items()}
        rest = through + _seconds(optimiser.step)
        for (method, tasks), seconds in acted.items() if lap else ():  # the first lap warms caches
            ratio = (rest + seconds) / (rest + usual)
            step = {"step": round(rest + usual, 4), "added": round(seconds - usual, 5), "ratio": round(ratio, 5)}
            rows.append({"method": method, "tasks": tasks, "round": lap, **step})
    print(f"plain step: {statistics.median(float(row['step']) for row in rows):.2f} s")
    for method, tasks in variants:
        ratios = [float(row["ratio"]) for row in rows if (row["method"], row["tasks"]) == (method, tasks)]
        spread = f"[{min(ratios):.3f}, {max(ratios):.3f}]"
        print(f"{method:12} after {tasks:2} tasks: {statistics.median(ratios):.3f} {spread} of a plain step")
    if wish.evidence:
        found = _evidence(base, backend, model, wish.rounds)
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"kfac's evidence of 32 rows: {middle:.2f} [{low:.2f}, {high:.2f}] of learning them once")
        rows += [
            {"what": "evidence", "method": "kfac", "round": k, "ratio": round(r, 4)} for k, r in enumerate(found, 1)
        ]
    wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _seconds(act: Callable[[], object]) -> float:
    """Return the processor seconds that an act takes."""
    began = time.process_time()
    act()
    return time.process_time() - began


def _acted(chain: Chain, params: list[torch.nn.Parameter], gradients: list[torch.Tensor | None]) -> float:
    """Return the seconds that parts take before and behind the optimiser's step."""
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = None if gradient is None else gradient.clone()
    state = SimpleNamespace(global_step=1, max_steps=10**6)

    def act() -> None:
        chain.on_pre_optimizer_step(None, state, None)
        chain.on_optimizer_step(None, state, None)

    return _seconds(act)


def _evidence(base: Loaded, backend: LoraBackend, model: nn.Module, rounds: int) -> list[float]:
    """Return ratios of K-FAC's pass over 32 rows of four tasks to a pass forward and backward over the same rows."""
    tasks = experiment.stream_for(experiment.resolve(RunSpec, {"model": base.name, "method": "kfac"}), base).tasks
    rows = [(row, task) for task in tasks[:4] for row in task.train[:8]]
    ratios = []
    for lap in range(rounds + 1):
        began = time.process_time()
        for k in range(0, len(rows), AT_ONCE):
            logits, targets = base.family.logits(model, to_batch(model, base.family, rows[k : k + AT_ONCE]))
            token_mean(logits, targets, targets.numel()).backward()
        between = time.process_time()
        curvature(model, base.family, backend.base_layers(), rows, torch.Generator().manual_seed(0))
        if lap:
            ratios.append((time.process_time() - between) / (between - began))
    return ratios


def _chain(backend: LoraBackend, params: list[torch.nn.Parameter], past: UpdateHistory, method: str) -> Chain:
    known = parse(method)
    held = {part.name: _remembered(part, backend) for part in known.remembering} if len(past) else {}
    return Chain.build(
        params, backend.trainable(), past, known, task="benchmark", max_norm=1.0, every=10**9, memory=held
    )


def _remembered(part: HasMemory, backend: LoraBackend) -> dict[str, State]:
    """What a part remembers after a task on which it saw some curvature."""
    random = torch.Generator().manual_seed(0)
    held = {}
    for name, site in backend.trainable().items():
        out, into = site.shape
        G = torch.randn(out, into, generator=random) * 1e-3
        seen = Evidence(curvature=Curvature(left=G @ G.mT, right=G.mT @ G))
        held[name] = part.remember(site.map(lambda t: t.detach().float()), {}, seen)
    return held


def _update(backend: LoraBackend, seed: int) -> dict[str, LowRank]:
    random = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(
            torch.randn(s.A.shape, generator=random), torch.randn(s.B.shape, generator=random) * 1e-3, s.scale
        )
        for name, s in backend.trainable().items()
    }


if __name__ == "__main__":
    main()
