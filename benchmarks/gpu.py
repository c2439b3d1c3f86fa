"""What does everlora cost on a GPU, and what do its kernels save? Prints "not measured: no GPU" where there is none.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --model llama-1b --only kernel penalty --rounds 10

On random models of the size of T5-large and of Llama 3.2 1B, r = 8 on q and v, in three parts:

    training    forward and backward of 16 rows of mixed lengths: stock transformers and peft (fp32, and bf16) against
                everlora's bf16 with logits of targets only, its adapted matrices in fp32, or with --past
                fold-bf16 in bf16
    penalty     what a penalty adds to a step after 50 tasks, as a share of the step: in plain torch, in tiles
                (EVERLORA_KERNELS), in tiles with the past as factors
    kernel      a penalty by itself: plain torch, the same through torch.compile, tiles in fp32 and in tf32x3; time by
                the time that the bytes which must move take, at the rate of a copy, and how far each is from fp64

Medians over rounds, and the range of rounds; ways are interleaved, but for training, whose models are loaded one after
the other. ``--results`` gets a line of JSON of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from everlora import Example, Task, load, parse
from everlora.adapters.base import PastAs
from everlora.adapters.lora import LoraBackend
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.kernels import Problem, choice
from everlora.models import tiny
from everlora.parts.penalties import energy_overlap
from everlora.parts.signs import sign_conflict
from everlora.training.chain import Chain
from everlora.training.trainer import token_mean

Row = dict[str, Any]
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Size:
    """A random model, the family that it stands in for, its adapted matrices, and a batch."""

    family: str
    make: Callable[[], Any]
    matrices: tuple[tuple[int, int, int], ...]  # how many of which shape (o, i)
    rows: int = 16
    longest: int = 384


def t5(**changes: int) -> T5ForConditionalGeneration:
    large = dict(vocab_size=32128, d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16)
    rest = dict(dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=0, n_positions=512)
    return T5ForConditionalGeneration(T5Config(**{**large, **changes}, **rest, **IDS))


def llama(**changes: int) -> LlamaForCausalLM:
    one_b = dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16)
    heads = dict(num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=512)
    return LlamaForCausalLM(LlamaConfig(**{**one_b, **heads, **changes}, **IDS, tie_word_embeddings=True))


SIZES = {
    "t5-large": Size("tiny-t5", t5, ((144, 1024, 1024),)),
    "llama-1b": Size("tiny-llama", llama, ((16, 2048, 2048), (16, 512, 2048))),
}


class Clock:
    """Measures seconds on a device, and the most memory taken meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"

    def seconds(self, act: Callable[[], object]) -> float:
        if self.cuda:
            torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        act()
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def compare(self, ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        """Return the seconds of each way in each round, interleaved; a first round warms up and compiles."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for lap in range(rounds + 1):
            for name, act in ways.items():
                spent = self.seconds(act)
                if lap:
                    found[name].append(spent)
        return found

    def peak(self, act: Callable[[], object]) -> int | None:
        """Return the bytes that an act takes on top of what is held; None where nobody counts."""
        if not self.cuda:
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        held = torch.cuda.memory_allocated(self.device)
        act()
        return torch.cuda.max_memory_allocated(self.device) - held


def summary(seconds: list[float]) -> Row:
    return {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    with patch.dict(os.environ, {choice.SWITCH: mode}):
        yield


def task(size: Size) -> Task:
    """Return rows of mixed lengths, most of them short."""
    draw, words = (
        Random(0),
        ["good", "movie", "company", "market", "phone", "order", "service", "team"],
    )
    lengths = [min(size.longest, 8 + int(draw.expovariate(4 / size.longest))) for _ in range(size.rows)]
    rows = [Example(" ".join(draw.choices(words, k=n)), draw.choice(["yes", "no"])) for n in lengths]
    return Task(name="mixed", train=rows, test=rows[:1], labels=("yes", "no"))


def base(size: Size, dtype: str, device: torch.device) -> Any:
    """Load the random model through the door of the tiny one of its family, with that one's tokenizer."""

    def build() -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        _, processor, family = made()
        return size.make(), processor, family

    made = tiny.BUILDERS[size.family]
    with patch.dict(tiny.BUILDERS, {size.family: build}):
        return load(size.family, dtype=dtype, device=str(device))


def training(size: Size, device: torch.device, rounds: int) -> list[Row]:
    """Measure one way after the other: two models of this size at once would crowd a small device."""
    clock, found = Clock(device), []
    ways: tuple[tuple[str, str, PastAs | None, int], ...] = (
        ("stock fp32", "float32", None, 0),
        ("stock bf16", "bfloat16", None, 0),
        ("everlora", "bfloat16", "fold", 0),
        ("everlora, fold-bf16", "bfloat16", "fold-bf16", 0),
        ("everlora after 5 tasks, fold-bf16", "bfloat16", "fold-bf16", 5),
    )
    for name, dtype, past, tasks in ways:
        loaded = base(size, dtype, device)
        act = _stock(loaded, size) if past is None else _ours(loaded, size, past, tasks)
        taken = clock.compare({name: act}, rounds)[name]
        found.append({"part": "training", "way": name, **summary(taken), "peak": clock.peak(act)})
        del loaded, act
    first = found[0]["seconds"]
    return [{**row, "ratio": row["seconds"] / first} for row in found]


def _batch(loaded: Any, size: Size) -> dict[str, Tensor]:
    of = task(size)
    batch = loaded.family.collate([loaded.family.features(row, of) for row in of.train])
    return {key: value.to(loaded.model.device) for key, value in batch.items()}


def _stock(loaded: Any, size: Size) -> Callable[[], object]:
    batch = _batch(loaded, size)
    modules = ["q", "v"] if "t5" in size.family else ["q_proj", "v_proj"]
    kind = "SEQ_2_SEQ_LM" if "t5" in size.family else "CAUSAL_LM"
    model: Any = get_peft_model(loaded.model, LoraConfig(r=8, lora_alpha=8, target_modules=modules, task_type=kind))
    model.train()
    # Stock code is given targets where the tokens are, and shifts them itself.
    labels = batch["labels"]
    if "t5" not in size.family:
        labels = torch.cat([torch.full_like(labels[:, :1], -100), labels[:, :-1]], dim=1)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}

    def act() -> None:
        model(**inputs).loss.backward()
        model.zero_grad()

    return act


def _ours(loaded: Any, size: Size, past: PastAs, tasks: int) -> Callable[[], object]:
    batch = _batch(loaded, size)
    backend = LoraBackend(loaded, {"r": 8, "lora_alpha": 8}, past)
    model = backend.attach(seed=0).train()
    backend.set_past(UpdateHistory(tuple(_update(backend, seed) for seed in range(tasks))))

    def act() -> None:
        logits, targets = loaded.family.logits(model, batch)
        token_mean(logits, targets, targets.numel()).backward()
        model.zero_grad()

    return act


def penalty(size: Size, device: torch.device, rounds: int, tasks: int) -> list[Row]:
    loaded, clock = base(size, "bfloat16", device), Clock(device)
    batch = _batch(loaded, size)
    backend = LoraBackend(loaded, {"r": 8, "lora_alpha": 8})
    model = backend.attach(seed=0).train()
    params = [p for p in model.parameters() if p.requires_grad]
    past = UpdateHistory(tuple(_update(backend, seed) for seed in range(tasks)))

    def step(chain: Chain) -> None:
        logits, targets = loaded.family.logits(model, batch)
        token_mean(logits, targets, targets.numel()).backward()
        chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=1), None)
        model.zero_grad()

    def chain(method: str, before: UpdateHistory) -> Chain:
        live = backend.trainable()
        return Chain.build(params, live, before, parse(method), task="benchmark", max_norm=1.0, every=10**9)

    def way(method: str, mode: str) -> Callable[[], object]:
        with kernels(mode):
            prepared = chain(method, past)

        def act() -> None:
            with kernels(mode):
                step(prepared)

        return act

    plain = chain("inclora", UpdateHistory())
    found = []
    for method in ("ella", "ps-lora", "n-lora"):
        ways = {mode: way(method, mode) for mode in ("off", "auto", "factors")}
        taken = clock.compare({"plain": lambda: step(plain), **ways}, rounds)
        for mode, act in ways.items():
            shares = [a / b - 1 for a, b in zip(taken[mode], taken["plain"], strict=True)]
            spread = {"share": statistics.median(shares), "least_share": min(shares), "most_share": max(shares)}
            row = {"part": "penalty", "method": method, "way": mode, "tasks": tasks, **summary(taken[mode])}
            found.append({**row, **spread, "peak": clock.peak(act)})
    return found


def _update(backend: LoraBackend, seed: int) -> dict[str, LowRank]:
    draw, found = torch.Generator().manual_seed(seed), {}
    for name, s in backend.trainable().items():
        A, B = (torch.randn(t.shape, generator=draw) for t in (s.A, s.B))
        found[name] = LowRank(A, B * 1e-3, s.scale)
    return found


def kernel(size: Size, device: torch.device, rounds: int, tasks: int, rank: int = 8) -> list[Row]:
    found = []
    for shape in size.matrices:
        for form in ("energy", "sign"):
            found += _kernel(form, shape, Clock(device), rounds, tasks, rank)
    return found


def _kernel(form: Any, shape: tuple[int, int, int], clock: Clock, rounds: int, tasks: int, rank: int) -> list[Row]:
    count, out, into = shape
    draw = torch.Generator(device=clock.device).manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw, device=clock.device)

    A, B = random(count, rank, into), random(count, out, rank) / rank
    past = LowRank(random(count, rank * tasks, into), random(count, out, rank * tasks) / (rank * tasks))
    factors = Problem(A=A, B=B, scale=1.0, past=past, rate=torch.ones(count, device=clock.device))
    W = factors.W
    made = W.square() if form == "energy" else torch.tanh(W)
    del W
    one = torch.ones((), device=clock.device)

    def plain(A: Tensor, B: Tensor, made: Tensor) -> Any:
        return energy_overlap(A, B, 1.0, made) if form == "energy" else sign_conflict(A, B, 1.0, made, one)

    dense = Problem(A=A, B=B, scale=1.0, past=made, rate=factors.rate)
    # Held against fp64 on one module: of all it would take gigabytes.
    exact = plain(A[:1].double(), B[:1].double(), made[:1].double())
    ways: dict[str, Callable[[], Any]] = {"plain": lambda: plain(A, B, made)}
    if clock.cuda:  # on a CPU there may be no compiler
        compiled = torch.compile(plain)
        ways["torch.compile"] = lambda: compiled(A, B, made)
    ways |= _in_tiles(form, dense, factors, clock)
    target = torch.empty_like(made)
    seconds = clock.compare({"copy": lambda: target.copy_(made), **ways}, rounds)
    # A copy reads and writes each byte.
    rate = 2 * made.nbytes / statistics.median(seconds.pop("copy"))
    rows = []
    for name, taken in seconds.items():
        must = 2 * (A.nbytes + B.nbytes) + (made.nbytes if "factors" not in name else past.A.nbytes + past.B.nbytes)
        error = max(float((a[:1].double() - b).norm() / b.norm()) for a, b in zip(ways[name](), exact, strict=True))
        row = {"part": "kernel", "form": form, "shape": list(shape), "way": name, "tasks": tasks, **summary(taken)}
        rows.append({**row, "times_bytes": statistics.median(taken) * rate / must, "error": error})
    return rows


def _in_tiles(form: Any, dense: Problem, factors: Problem, clock: Clock) -> dict[str, Callable[[], Any]]:
    """Return the ways through the kernel, where there is one."""
    if not choice._fits(dense):
        return {}
    from everlora.kernels import tiles

    def at(precision: str, problem: Problem) -> Callable[[], Any]:
        def act() -> Any:
            with patch.object(tiles, "PRECISION", precision):
                return tiles.solve(form, problem)

        return act

    precisions = ("ieee", "tf32x3") if clock.cuda else ("ieee",)
    given = {"": dense, ", factors": factors}
    return {f"tiles {one}{name}": at(one, problem) for one in precisions for name, problem in given.items()}


def line(row: Row) -> str:
    """Return a measurement as a line to read."""
    skipped = ("part", "seconds", "least", "most")
    facts = (f"{key} {value:.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items()
             if key not in skipped and value is not None)  # fmt: skip
    times = f"{row['seconds'] * 1e3:9.2f} ms [{row['least'] * 1e3:.2f}, {row['most'] * 1e3:.2f}]"
    return f"{row['part']:9}{times}  {', '.join(facts)}"


def measure(size: Size, device: torch.device, only: list[str], rounds: int, tasks: int) -> Iterator[Row]:
    """Make the wanted measurements of one model."""
    if "training" in only:
        yield from training(size, device, rounds)
    if "penalty" in only:
        yield from penalty(size, device, rounds, tasks)
    if "kernel" in only:
        yield from kernel(size, device, rounds, tasks)


def main(arguments: list[str] | None = None) -> None:
    parts = ["training", "penalty", "kernel"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SIZES), nargs="+", default=list(SIZES))
    parser.add_argument("--only", choices=parts, nargs="+", default=parts)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/gpu.jsonl")
    wish = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("not measured: no GPU")
        return
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(device))
    with wish.results.open("w", encoding="utf-8") as file:
        for name in wish.model:
            for row in measure(SIZES[name], device, wish.only, wish.rounds, wish.tasks):
                print(f"{name:9} {line(row)}", flush=True)
                file.write(json.dumps({"model": name, "device": torch.cuda.get_device_name(device), **row}) + "\n")


if __name__ == "__main__":
    main()
