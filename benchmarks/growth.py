"""What grows with the number of tasks, the rank, the width, the length? Processor seconds of what is not the model.

    python benchmarks/growth.py --layers 4 --few 200                   # all curves, about 10 minutes of one core
    python benchmarks/growth.py --only begin --tasks 2 15 50
    python benchmarks/growth.py --only begin --anew                    # nothing is held from task to task
    python benchmarks/growth.py --fit benchmarks/results/curves.jsonl  # exponents of what was measured

Modules are shaped as SmolLM2-135M's q and v (30 of 576 x 576 and 30 of 192 x 576), with random updates of rank 8, in
fp32, on one thread. No model is loaded but for ``length``.

    begin     of a task: past below the adapter, its start, constants of the parts (of a chain), root of the folder;
              and what the commit before says of directions that are left
    penalty   what a method's parts add to one optimiser step, over --tasks, and at 15 tasks over ranks and widths
    length    forward and backward of two rows of so many tokens, packed, as everlora learns them

A line of JSON per measurement is printed, and goes to ``--results``. ``--fit`` holds logarithms of seconds against
those of what was varied: the slope of all points, and that between the last two, which no constant cost can hide, are
exponents of a power law. 0 is flat, 1 proportional, 2 would be quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from everlora import load
from everlora.adapters.files import merge_past
from everlora.adapters.folded import FoldedBase
from everlora.adapters.lora import LoraBackend
from everlora.analysis.holdings import measure_holdings
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.roles import Curvature, Evidence, Initialiser, NeedsEvidence, State
from everlora.core.updates import LowRank, LowRankUpdates
from everlora.training.chain import Chain
from everlora.training.trainer import token_mean

METHODS = ("inclora", "ella", "ps-lora", "o-lora", "lb-cl", "inflora", "ewc", "kfac")
Shapes = dict[str, tuple[int, int]]
SHAPES: Shapes = {"q": (576, 576), "v": (192, 576)}
LAYERS, RANK = 30, 8
FEW = 15
Row = dict[str, str | float]


def seconds(act: Callable[[], object]) -> float:
    """Return the processor seconds that an act takes."""
    began = time.process_time()
    act()
    return time.process_time() - began


class Modules:
    """Holds modules of one method: layers, an adapter on them, and updates of earlier tasks."""

    def __init__(self, method: str, rank: int = RANK, shapes: Shapes = SHAPES, layers: int = LAYERS) -> None:
        self.method: Method = parse(method)
        self.rank, self.random = rank, torch.Generator().manual_seed(0)
        self.shapes = {f"layers.{k}.{name}": shape for k in range(layers) for name, shape in shapes.items()}
        self.layers = {name: nn.Linear(i, o, bias=False) for name, (o, i) in self.shapes.items()}
        self.live = {name: one.map(nn.Parameter) for name, one in self.update().items()}
        self.params = [cast(nn.Parameter, t) for one in self.live.values() for t in one.tensors.values()]
        self.below = {name: FoldedBase.of(layer, "auto") for name, layer in self.layers.items()}
        self.past = UpdateHistory()
        self.memory: dict[str, dict[str, State]] = {}

    def draw(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Draw a tensor."""
        return torch.randn(*shape, generator=self.random) * scale

    def update(self) -> dict[str, LowRank]:
        """Draw what a task leaves."""
        r, svd = self.rank, self.method.adapter.form == "svd"
        return {
            name: LowRank(self.draw(r, i), self.draw(o, r, scale=1e-2), 1.0, self.draw(r, 1) if svd else None)
            for name, (o, i) in self.shapes.items()
        }

    def evidence(self, name: str) -> Evidence:
        """Draw what a part sees of a new task's rows at one module; modules of one layer read the same."""
        (o, i), layer = self.shapes[name], int(name.split(".")[1])
        random = torch.Generator().manual_seed(1000 * len(self.past) + layer)
        G = torch.randn(64, max(o, i), generator=random)
        # The spectrum of a language model's features falls about so: the 8th direction has a hundredth of the first.
        X = torch.randn(1024, i, generator=random) * torch.arange(1, i + 1) ** -1.0
        return Evidence(
            gradients=self.draw(1, o, i, scale=1e-3),
            moment=(X.mT @ X).double() / 1024,
            fisher={key: t.detach().square() for key, t in self.live[name].tensors.items()},
            curvature=Curvature(left=G[:, :o].mT @ G[:, :o] * 1e-6, right=G[:, :i].mT @ G[:, :i] * 1e-6),
        )

    def learned(self, update: LowRankUpdates) -> None:
        """Take note of a task that has ended; what parts remember is of this task alone, and so as large as of all."""
        self.past = self.past.append(update)
        for part in self.method.remembering:
            before = self.memory.get(part.name, {})
            self.memory[part.name] = {
                name: part.remember(one, before.get(name, {}), self.evidence(name)) for name, one in update.items()
            }

    def chain(self) -> Chain:
        """Make the constants of the parts for the next task."""
        more: dict[str, Any] = {"task": "t", "max_norm": 1.0, "every": 10**9, "memory": self.memory}
        if self.method.consolidator.rule == "continue":
            more["start"] = {name: one.map(lambda t: t.detach() + 1e-3) for name, one in self.live.items()}
        return Chain.build(self.params, self.live, self.past, self.method, **more)


def begin(modules: Modules) -> Row:
    """Measure the end of a task, as far as it looks at all earlier ones, and the begin of the next one."""
    merge, part = modules.method.merge, modules.method.initialiser

    def below(merged: bool) -> None:
        for name, layer in modules.below.items():
            joined = modules.past.merged(name, merge) if merged and merge and len(modules.past) > 1 else None
            layer.set_past([one[name] for one in modules.past], joined, sum_again=joined is not None)

    def start(part: Initialiser) -> None:
        for name, one in modules.live.items():
            fresh, known = one.map(torch.Tensor.detach), modules.memory.get(part.name, {}).get(name)
            part.start(fresh, [task[name] for task in modules.past], seen[name], known)

    found: Row = {}
    if merge is not None:
        found["answers"] = seconds(lambda: below(True))
    found["root"] = seconds(lambda: root(modules)) if merge is not None else 0.0
    found["past"] = seconds(lambda: below(False))
    if part is not None:
        seen = {name: modules.evidence(name) for name in modules.shapes}
        found["start"] = seconds(lambda: start(part))
    found["parts"] = seconds(modules.chain)
    total = sum(cast(float, took) for took in found.values())
    held = seconds(lambda: measure_holdings(modules.method, modules.past, {}, 0))
    return {**found, "seconds": total, "holdings": held}


def root(modules: Modules) -> None:
    """Make the adapter at the root of a folder."""
    merge_past(modules.past, modules.method.merge)


def begins(methods: list[str], tasks: list[int], layers: int, anew: bool, few: int) -> Iterator[Row]:
    """Measure the begin of tasks, of one learner after the other."""
    for method in methods:
        modules = Modules(method, layers=layers)
        # Evidence is decomposed after each task, which takes minutes for so many.
        looks = any(isinstance(part, NeedsEvidence) for part in modules.method.remembering)
        most = max(number for number in tasks if number <= few or not looks)
        for number in range(1, most + 1):
            modules.learned(modules.update())
            if anew:
                modules.past = UpdateHistory(modules.past.deltas)
            if number in tasks or (not anew and number + 1 in tasks):
                took = begin(modules)
                if number in tasks:
                    yield {"what": "begin", "method": method, "tasks": number, **took}


def penalty(modules: Modules, plain: Modules, rounds: int) -> Row:
    """Measure what a method's parts add to an optimiser step, against those of plain LoRA, in turns."""
    chains, took = [modules.chain(), plain.chain()], [list[float](), list[float]()]
    for one in (modules, plain):
        for p in one.params:
            p.grad = torch.full_like(p, 1e-3)
    for lap in range(rounds + 1):
        for chain, found in zip(chains, took, strict=True):
            state = SimpleNamespace(global_step=lap, max_steps=10**6)
            began = time.process_time()
            chain.on_pre_optimizer_step(None, state, None)
            chain.on_optimizer_step(None, state, None)
            if lap:
                found.append(time.process_time() - began)
    over = [a - b for a, b in zip(*took, strict=True)]
    return {"seconds": statistics.median(over), "low": min(over), "high": max(over)}


def penalties(
    methods: list[str], tasks: list[int], ranks: list[int], widths: list[int], layers: int, rounds: int
) -> Iterator[Row]:
    """Measure steps over the number of tasks; at 15 tasks over ranks and widths."""
    cases = [(sorted(tasks), RANK, SHAPES)]
    cases += [([FEW], rank, SHAPES) for rank in ranks if rank != RANK or FEW not in tasks]
    cases += [([FEW], RANK, {"q": (width, width)}) for width in widths]
    for numbers, rank, shapes in cases:
        plain = Modules("inclora", rank, shapes, layers)
        for method in methods:
            if method in ("inclora", "inflora"):
                continue
            modules = Modules(method, rank, shapes, layers)
            for number in numbers:
                while len(modules.past) < number - 1:
                    modules.past = modules.past.append(modules.update())
                modules.learned(modules.update())
                at = {"tasks": number, "rank": rank, "width": shapes["q"][0], "square": shapes is not SHAPES}
                at["modules"] = len(modules.shapes)
                yield {"what": "penalty", "method": method, **at, **penalty(modules, plain, rounds)}


def lengths(model: str, over: list[int], rounds: int) -> Iterator[Row]:
    """Measure forward and backward of two rows of so many tokens."""
    base = load(model)
    adapted = LoraBackend(base, {"r": RANK, "lora_alpha": RANK}).attach(seed=0).train()
    base.family.packs = True
    for length in over:
        ids = torch.randint(10, min(1000, base.model.config.vocab_size), (2, length))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch["position_ids"] = torch.arange(length).expand(2, length)
        batch["shift_labels"] = batch["labels"] = torch.full_like(ids, -100).index_fill(
            1, torch.arange(length - 8, length), 5
        )

        def step(batch: dict[str, torch.Tensor] = batch) -> None:
            logits, targets = base.family.logits(adapted, batch)
            token_mean(logits, targets, targets.numel()).backward()
            adapted.zero_grad()

        took = [seconds(step) for _ in range(rounds + 1)]
        yield {"what": "length", "method": model, "length": length, "seconds": statistics.median(took[1:])}


def fit(rows: list[Row]) -> str:
    """Return the exponents of what was measured over tasks, ranks, widths and lengths."""

    def varied(row: Row) -> set[str]:
        """Say what a row is a point of a curve over."""
        if row["what"] != "penalty":
            return {"tasks", "length"}
        if row.get("square"):
            return {"width"}
        return ({"tasks"} if row["rank"] == RANK else set()) | ({"rank"} if row["tasks"] == FEW else set())

    lines = ["| what | of | over | seconds | exponent | at the end |", "|---|---|---|---|--:|--:|"]
    for what, method in dict.fromkeys((row["what"], row["method"]) for row in rows):
        own = [row for row in rows if (row["what"], row["method"]) == (what, method)]
        for name in ("tasks", "rank", "width", "length"):
            points = sorted(
                (float(row[name]), float(row["seconds"])) for row in own if name in row and name in varied(row)
            )
            if len(points) > 1:
                first, last = points[0], points[-1]
                ends = f"{first[0]:.0f}: {first[1]:.3g}, {last[0]:.0f}: {last[1]:.3g}"
                lines.append(
                    f"| {what} | {method} | {name} | {ends} | {slope(points):.2f} | {slope(points[-2:]):.2f} |"
                )
    return "\n".join(lines)


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the line of least squares through the logarithms."""
    x, y = ([math.log(max(point[k], 1e-9)) for point in points] for k in (0, 1))
    return statistics.linear_regression(x, y).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["begin", "penalty", "length"], action="append")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--tasks", nargs="*", type=int, default=[1, 2, 5, 15, 50, 100, 200])
    parser.add_argument("--layers", type=int, default=LAYERS, help="of two adapted matrices each")
    parser.add_argument("--few", type=int, default=FEW, help="tasks beyond which methods with evidence are left out")
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 8, 16, 32, 64])
    parser.add_argument("--widths", nargs="*", type=int, default=[192, 576, 1024])
    parser.add_argument("--lengths", nargs="*", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--anew", action="store_true", help="begin as a learner that was just opened")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/growth.jsonl")
    parser.add_argument("--fit", type=Path, help="print the exponents of this file's measurements, and make none")
    wish = parser.parse_args()
    if wish.fit:
        print(fit([json.loads(line) for line in wish.fit.read_text(encoding="utf-8").splitlines()]))
        return
    torch.set_num_threads(1)
    chosen, rows = wish.only or ["begin", "penalty", "length"], list[Row]()

    def note(found: Iterator[Row]) -> None:
        for row in found:
            rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
            print(json.dumps(rows[-1]), flush=True)
            wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    if "begin" in chosen:
        note(begins(wish.methods, wish.tasks, wish.layers, wish.anew, wish.few))
    if "penalty" in chosen:
        note(penalties(wish.methods, wish.tasks, wish.ranks, wish.widths, wish.layers, wish.rounds))
    if "length" in chosen:
        note(lengths(wish.model, wish.lengths, 1))


if __name__ == "__main__":
    main()
