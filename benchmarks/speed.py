"""What does everlora's speed layer save? Ratios of processor time, interleaved in one process, each piece on and off.

    python benchmarks/speed.py --data-dir ../shared/data/cl_benchmark                # about 12 minutes of one core
    python benchmarks/speed.py --data-dir ... --only training --rounds 5

Three ways are held against each other on the same rows (three tasks of the Standard benchmark, SmolLM2-135M, r = 8 on
q and v, one thread):

    stock       transformers and peft as they come: fp32, padded rows, logits of every position, `generate`
    padded      everlora with what is measured switched off
    everlora    as it runs by default

Of an encoder (``frozen``) stock adapts all layers, and what is switched off is to hold what the frozen ones make of a
text.

A line of JSON per measurement goes to ``--results``; the table is printed at the end: medians over rounds and tasks of
the ratio to stock, and the range of rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from everlora.training.trainer import token_mean

MODEL = "smollm2-135m"
TASKS = ("dbpedia", "amazon", "agnews")
ROWS, ANSWERED = 8, 16
WHAT = ("training", "generate", "labels", "frozen", "loading")
Measured = dict[str, float]
"""Processor seconds of each way."""


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

    def __init__(self, data: Path) -> None:
        self.base: Loaded = load(MODEL)
        backend = LoraBackend(self.base, {"r": 8, "lora_alpha": 8})
        self.adapted = backend.attach(seed=0).train()
        plain = load(MODEL, dtype="float32")
        self.plain_base = plain
        wanted = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        self.stock = get_peft_model(plain.model, wanted).train()
        stream = open_stream("standard", order=1, data_dir=data, tasks=list(TASKS), seed=0)
        self.tasks: list[Task] = [task.take(ROWS, ANSWERED, seed=1) for task in stream.tasks]

    def training(self, task: Task) -> Measured:
        """Measure forward and backward of eight rows of mixed lengths."""
        family = self.base.family
        batch = family.collate([family.features(row, task) for row in task.train])
        # Stock code shifts the targets itself, and makes logits of every position.
        targets = torch.cat([torch.full((ROWS, 1), -100), batch["labels"][:, :-1]], dim=1)

        def stock() -> None:
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            self.stock(**inputs, labels=targets).loss.backward()
            self.stock.zero_grad()

        def ours(*, packs: bool) -> None:
            family.packs = packs
            logits, wanted = family.logits(self.adapted, batch)
            token_mean(logits, wanted, wanted.numel()).backward()
            family.packs = False
            self.adapted.zero_grad()

        return {
            "stock": seconds(stock),
            "padded": seconds(lambda: ours(packs=False)),
            "everlora": seconds(lambda: ours(packs=True)),
        }

    def answering(self, task: Task, how: Scoring) -> Measured:
        """Measure the answers to sixteen rows, written or by scoring labels; stock writes them in either case."""
        family, model = self.base.family, self.base.model

        def stock() -> None:
            with (
                patch.object(causal, "can_share", lambda model: False),
                patch.object(causal, "contiguous_head", unhooked),
            ):
                for k in range(0, ANSWERED, 8):
                    self.plain_base.family.predict(self.stock.eval(), task, task.test[k : k + 8], "generate")

        def ours() -> None:
            scoring.score_task(model, family, task, scoring=how, batch_size=16)

        found = {"stock": seconds(stock)}
        with switched_off():
            found["padded"] = seconds(ours)
        self.stock.train()
        return {**found, "everlora": seconds(ours)}


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
    parser.add_argument("--only", choices=WHAT, action="append")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/speed.jsonl")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    chosen = wish.only or WHAT
    rows: list[dict[str, object]] = []
    bench = Bench(wish.data_dir) if set(chosen) & {"training", "generate", "labels"} else None
    for lap in range(wish.rounds + 1):
        for what in chosen:
            if what == "frozen":
                made = list(frozen(wish.data_dir).items())
            elif what == "loading" or bench is None:
                made = [("packaged weights", loading())] if lap == 1 else []
            elif what == "training":
                made = [(task.name, bench.training(task)) for task in bench.tasks]
            else:
                how: Scoring = "labels" if what == "labels" else "generate"
                made = [(task.name, bench.answering(task, how)) for task in bench.tasks] if lap else []
            if lap:  # the first lap warms caches
                rows += [{"what": what, "task": name, "round": lap, **found} for name, found in made]
    wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))


def table(rows: list[dict[str, object]]) -> str:
    """Return the medians of the ratios to stock, with their range."""
    lines = ["| what | task | stock, s | padded | everlora | range |", "|---|---|--:|--:|--:|---|"]
    for what, task in dict.fromkeys((row["what"], row["task"]) for row in rows):
        some = [row for row in rows if (row["what"], row["task"]) == (what, task)]
        stock = [float(str(row["stock"])) for row in some]
        padded, ours = (
            [float(str(row[way])) / s for row, s in zip(some, stock, strict=True)] for way in ("padded", "everlora")
        )
        spread = f"[{min(ours):.2f}, {max(ours):.2f}]"
        middle = [statistics.median(each) for each in (stock, padded, ours)]
        lines.append(f"| {what} | {task} | {middle[0]:.1f} | {middle[1]:.2f} | **{middle[2]:.2f}** | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
