"""What does everlora's speed layer save? Ratios of processor time, interleaved in one process, each piece on and off.

    python benchmarks/speed.py --data-dir ../shared/data/cl_benchmark                # about 15 minutes of one core
    python benchmarks/speed.py --data-dir ... --only training --rounds 5
    python benchmarks/speed.py --data-dir ... --quick --rounds 2      # what benchmarks/goals.py reads, 6 minutes

Three ways are held against each other on the same rows (three tasks of the Standard benchmark, SmolLM2-135M, r = 8 on
q and v, one thread):

    stock       transformers and peft as they come: fp32, padded rows, logits of every position, `generate`
    padded      everlora with what is measured switched off
    everlora    as it runs by default

Of each kind:

    training    forward and backward of eight rows of mixed lengths
    step        the same of 8 x 128 tokens, all of one length, with the optimiser
    generate, labels    answers to sixteen rows, written or by scoring labels
    memory      MiB that the answers to 32 rows take on top of what is held, by either scoring, as the model is loaded
                here and in bf16 (stock writes in either case)
    curves      losses of five seeds, stock's next to ours, of equal adapters on equal rows in equal order (three
                minutes, and only made by ``--only curves``)

Of an encoder (``frozen``) stock adapts all layers, and what is switched off is to hold what the frozen ones make of a
text.

A line of JSON per measurement goes to ``--results``; the table is printed at the end: medians over rounds and tasks of
the ratio to stock, and the range of rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model

from everlora import Task, load, open_stream
from everlora.adapters.lora import LoraBackend
from everlora.evaluation import scoring
from everlora.models import gguf_cache
from everlora.models.families import causal
from everlora.models.families.base import Family, Features, Scoring
from everlora.models.families.frozen_encoder import find_frozen
from everlora.models.loading import Loaded
from everlora.runtime.memory import give_back
from everlora.training.trainer import token_mean

MODEL = "smollm2-135m"
TASKS = ("dbpedia", "amazon", "agnews")
ROWS, ANSWERED, STEPS = 8, 16, 12
PEAK = Path("/proc/self/clear_refs")
"""Writing 5 to it lets the peak of a process begin anew."""
WHAT = ("training", "step", "generate", "labels", "memory", "frozen", "loading")
QUICK = ("training", "step", "generate", "labels", "memory")
Measured = dict[str, float]
"""Processor seconds of each way; MiB, of ``memory``."""


@contextmanager
def switched_off() -> Iterator[None]:
    """Run everlora without what is measured: no shared prompts, no label trees, batches by rows alone."""
    with patch.object(causal, "can_share", lambda model: False), patch.object(scoring, "TOKENS", 10**9):
        yield


def seconds(act: Callable[[], object]) -> float:
    """Return the processor seconds that an act takes."""
    began = time.process_time()
    act()
    return time.process_time() - began


class Bench:
    """Holds the models and the rows of all measurements."""

    def __init__(self, data: Path, *, quick: bool) -> None:
        self.quick = quick
        self.base: Loaded = load(MODEL)
        backend = LoraBackend(self.base, {"r": 8, "lora_alpha": 8})
        self.adapted = backend.attach(seed=0).train()
        plain = load(MODEL, dtype="float32")
        self.plain_base = plain
        self.stock = stock_lora(plain.model)
        stream = open_stream("standard", order=1, data_dir=data, tasks=list(TASKS), seed=0)
        self.tasks: list[Task] = [task.take(ROWS, ANSWERED, seed=1) for task in stream.tasks]
        self.longer: Task = stream.tasks[-1].take(STEPS * 2, 32, seed=1)

    def training(self, task: Task) -> Measured:
        """Measure forward and backward of eight rows of mixed lengths."""
        family = self.base.family
        batch = family.collate([family.features(row, task) for row in task.train])
        targets = batch["labels"]

        def stock() -> None:
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            self.stock(**inputs, labels=targets, shift_labels=targets).loss.backward()
            self.stock.zero_grad()

        def ours(*, packs: bool) -> None:
            self.loss(batch, packs=packs).backward()
            self.adapted.zero_grad()

        found = {"stock": seconds(stock)}
        if not self.quick:
            found["padded"] = seconds(lambda: ours(packs=False))
        return {**found, "everlora": seconds(lambda: ours(packs=True))}

    def step(self) -> Measured:
        """Measure a step of 8 x 128 tokens of one length, the last eight of which are targets."""
        ids = torch.randint(10, 1000, (ROWS, 128), generator=torch.Generator().manual_seed(0))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        targets = torch.full_like(ids, -100)
        targets[:, 120:] = ids[:, 120:]
        shifted = torch.cat([targets[:, 1:], torch.full((ROWS, 1), -100)], dim=1)
        batch = {**inputs, "position_ids": torch.arange(128).expand(ROWS, 128)}
        batch |= {"labels": shifted, "shift_labels": shifted}

        def stock() -> None:
            self.stock(**inputs, labels=targets).loss.backward()
            optimisers[0].step()
            optimisers[0].zero_grad()

        def ours() -> None:
            self.loss(batch).backward()
            optimisers[1].step()
            optimisers[1].zero_grad()

        # A rate of nothing takes as long and leaves the adapters as they are.
        optimisers = [torch.optim.AdamW(trained(model), lr=0.0) for model in (self.stock, self.adapted)]
        return {"stock": seconds(stock), "everlora": seconds(ours)}

    def loss(self, batch: dict[str, torch.Tensor], *, packs: bool = True) -> torch.Tensor:
        """Return our loss of a batch, as training takes it by default."""
        self.base.family.packs = packs
        logits, wanted = self.base.family.logits(self.adapted, batch)
        self.base.family.packs = False
        return token_mean(logits, wanted, wanted.numel())

    def answering(self, task: Task, how: Scoring, stock: float | None) -> Measured:
        """Measure the answers to sixteen rows, written or by scoring labels; stock writes them in either case."""

        def ours() -> None:
            scoring.score_task(self.base.model, self.base.family, task, scoring=how, batch_size=16)

        def theirs() -> None:
            write(self.stock, self.plain_base.family, task, 8)

        found = {"stock": seconds(theirs) if stock is None else stock}
        self.stock.train()
        if not self.quick:
            with switched_off():
                found["padded"] = seconds(ours)
        return {**found, "everlora": seconds(ours)}

    def curves(self, seed: int) -> dict[str, list[float]]:
        """Return the losses of both ways from the same adapter, on the same rows in the same order."""
        random = torch.Generator().manual_seed(seed)
        for ours, theirs in zip(trained(self.adapted), trained(self.stock), strict=True):
            if ours.shape[0] == 8:
                torch.nn.init.kaiming_uniform_(ours, a=5**0.5, generator=random)
            else:
                torch.nn.init.zeros_(ours)
            theirs.data.copy_(ours.data)
        order, task, family = torch.randperm(STEPS * 2, generator=random).tolist(), self.longer, self.base.family
        optimisers = [torch.optim.AdamW(trained(model), lr=1e-3) for model in (self.stock, self.adapted)]
        found: dict[str, list[float]] = {"stock": [], "everlora": []}
        for k in range(0, STEPS * 2, 2):
            batch = family.collate([family.features(task.train[row], task) for row in order[k : k + 2]])
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            targets = batch["labels"]  # each where it is predicted, as ours stand; stock would drop the last of them
            losses = (self.stock(**inputs, labels=targets, shift_labels=targets).loss, self.loss(batch))
            for loss, optimiser, curve in zip(losses, optimisers, found.values(), strict=True):
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                curve.append(round(float(loss.detach()), 6))
        return found

    def memory(self) -> Iterator[tuple[str, Measured]]:
        """Measure what the answers to 32 rows take on top of what is held."""
        if not PEAK.exists():
            return
        task, few = self.longer, self.longer.take(1, 1, seed=0)
        for dtype in ("auto",) if self.quick else ("auto", "bfloat16"):
            base, found = load(MODEL, dtype=dtype), dict[str, float]()
            if not self.quick:
                stock = stock_lora(load(MODEL, dtype=dtype).model)
                write(stock, base.family, few, 1)
                found["stock"] = mebibytes(partial(write, stock, base.family, task, 32))
            # Weights are mapped from a file, and in memory once they were read.
            write(base.model, base.family, few, 1)
            for how in ("generate", "labels"):
                act = partial(scoring.score_task, base.model, base.family, task, scoring=how, batch_size=32)
                yield f"{how}, {dtype}", {**found, "everlora": mebibytes(act)}


def stock_lora(model: torch.nn.Module) -> torch.nn.Module:
    """Adapt a model as peft does."""
    wanted = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, wanted).train()  # type: ignore[no-any-return]


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return what is learned of a model."""
    return [p for p in model.parameters() if p.requires_grad]


def write(model: torch.nn.Module, family: Family, task: Task, rows: int) -> None:
    """Answer the rows of a task as stock does, token by token, so many rows at once."""
    with (
        patch.object(causal, "can_share", lambda model: False),
        patch.object(causal, "contiguous_head", unhooked),
    ):
        for k in range(0, len(task.test), rows):
            family.predict(model.eval(), task, task.test[k : k + rows], "generate")


def mebibytes(act: Callable[[], object]) -> float:
    """Return the memory that an act takes on top of what this process holds (Linux)."""

    def status(name: str) -> int:
        (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
        return int(line.split()[1])

    give_back()
    PEAK.write_text("5")
    held = status("VmRSS")
    act()
    return round((status("VmHWM") - held) / 1024, 1)


@contextmanager
def unhooked(model: torch.nn.Module) -> Iterator[None]:
    """Leave a model's head as it is."""
    yield


def loading() -> Measured:
    """Measure how long packaged weights take, from the GGUF file and from what was unpacked of it before."""
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", {gguf_cache.PLACE: ""}):
        first = seconds(lambda: load(MODEL))
        with patch.dict("os.environ", {gguf_cache.PLACE: folder}):
            load(MODEL)
            return {"stock": first, "padded": first, "everlora": seconds(lambda: load(MODEL))}


def frozen(data: Path) -> dict[str, Measured]:
    """Measure an encoder of which all six layers are adapted, or the upper two, whose lower ones are held or not.

    Three epochs of 64 rows are learned, once more as in a second run of a sweep, and 64 rows answered after each of
    six tasks.
    """
    stream = open_stream("standard", order=1, data_dir=data, tasks=["agnews"], seed=0)
    (task,) = (one.take(64, 64, seed=1) for one in stream.tasks)
    found: dict[str, Measured] = {"learned": {}, "in a second run": {}, "answered": {}}
    for way, layers in (("stock", range(6)), ("padded", (4, 5)), ("everlora", (4, 5))):
        base = load("minilm", dtype="float32", max_source_length=32)
        family = base.family
        family.prepare(base.model, [task], torch.Generator().manual_seed(0))
        backend = LoraBackend(base, {"r": 8, "lora_alpha": 8, "layers_to_transform": list(layers)})
        model = backend.attach(seed=0).train()
        rows = [family.features(row, task) for row in task.train]
        if way == "everlora":
            family.frozen = find_frozen(model, backend.base_layers(), by_layers=True)
        found["learned"][way] = seconds(lambda: learn(family, model, rows))  # noqa: B023  # called at once
        found["in a second run"][way] = seconds(lambda: learn(family, model, rows))  # noqa: B023  # called at once
        model.eval()
        found["answered"][way] = seconds(lambda: answer(family, model, task))  # noqa: B023  # called at once
    return found


def learn(family: Family, model: torch.nn.Module, rows: list[Features]) -> None:
    """Pass three times forward and backward over rows, in batches of 16."""
    for k in [*range(0, len(rows), 16)] * 3:
        logits, wanted = family.logits(model, family.collate(rows[k : k + 16]))
        token_mean(logits, wanted, wanted.numel()).backward()
        model.zero_grad()


def answer(family: Family, model: torch.nn.Module, task: Task) -> None:
    """Answer the rows of a task six times."""
    for _ in range(6):
        scoring.score_task(model, family, task, scoring="labels", batch_size=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*WHAT, "curves"], action="append")
    parser.add_argument("--quick", action="store_true", help="what benchmarks/goals.py reads alone, without padded")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/speed.jsonl")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    chosen = wish.only or (QUICK if wish.quick else WHAT)
    rows: list[dict[str, object]] = []
    bench = Bench(wish.data_dir, quick=wish.quick) if set(chosen) - {"frozen", "loading"} else None
    for lap in range(wish.rounds + 1):
        # The first lap warms caches.
        for what, name, found in measured(bench, chosen, wish.data_dir, lap):
            if lap:
                rows.append({"what": what, "task": name, "round": lap, **found})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if "curves" in chosen and bench is not None:
        rows += [{"what": "curves", "task": "agnews", "seed": seed, **bench.curves(seed)} for seed in range(5)]
    left = [] if wish.only is None or not wish.results.exists() else wish.results.read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, left) if row["what"] not in chosen] + rows
    wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table([row for row in rows if "stock" in row and row["what"] != "curves"]))


def measured(
    bench: Bench | None, chosen: Sequence[str], data: Path, lap: int
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Make the measurements of one round: of what, on which rows, and what each way took."""
    if "frozen" in chosen:
        yield from (("frozen", name, found) for name, found in frozen(data).items())
    if "loading" in chosen and lap == 1:
        yield "loading", "packaged weights", loading()
    if bench is None:
        return
    if "training" in chosen:
        yield from (("training", task.name, bench.training(task)) for task in bench.tasks)
    if "step" in chosen:
        yield "step", "8 x 128", bench.step()
    if not lap:
        return
    for task in bench.tasks if not bench.quick else (bench.tasks[0], bench.tasks[-1]):
        stock = None  # the same answers for both ways of scoring
        for how in ("generate", "labels"):
            if how in chosen:
                found = bench.answering(task, how, stock)
                stock = found["stock"]
                yield how, task.name, found
    if "memory" in chosen and lap == 1:
        yield from (("memory", name, found) for name, found in bench.memory())


def table(rows: list[dict[str, object]]) -> str:
    """Return the medians of the ratios to stock, with their range."""
    lines = ["| what | task | stock, s or MiB | padded | everlora | range |", "|---|---|--:|--:|--:|---|"]
    for what, task in dict.fromkeys((row["what"], row["task"]) for row in rows):
        some = [row for row in rows if (row["what"], row["task"]) == (what, task)]
        stock = [float(str(row["stock"])) for row in some]
        padded, ours = (
            [float(str(row[way])) / s for row, s in zip(some, stock, strict=True) if way in row]
            for way in ("padded", "everlora")
        )
        spread = f"[{min(ours):.2f}, {max(ours):.2f}]"
        off = f"{statistics.median(padded):.2f}" if padded else ""
        middle, mine = statistics.median(stock), statistics.median(ours)
        lines.append(f"| {what} | {task} | {middle:.1f} | {off} | **{mine:.2f}** | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
