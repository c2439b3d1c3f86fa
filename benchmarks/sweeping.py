"""What do two workers and equal first tasks save a sweep? Twelve small runs by the clock, in fresh processes.

    python benchmarks/sweeping.py --rounds 3      # about 4 minutes a round on two cores with nothing else on them

MiniLM, three built-in tasks, four methods by three seeds. Three ways, one after the other in every round:

    alone       one process of one thread (two take three times as long), which learns the first task of every run
    shared      the same process, equal first tasks learned once
    workers     what ``everlora sweep --workers 2`` does: two processes of one thread, equal first tasks learned once

Seconds are those of the clock from a process's start to its end, so nothing else may run: benchmarks/goals.py leaves
out rounds in which other processes took more than a tenth of two cores, which is told (on Linux) with the processor
seconds of each way and the mean score of its runs. A line of JSON per round goes to ``--results``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from everlora.archive.folder import read_matrix
from everlora.learner import experiment, sweep, workers
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings

SETTINGS: RawSettings = {
    "model": "minilm",
    "dtype": "float32",
    "benchmark": "builtin",
    "tasks": ["news", "questions", "intent"],
    "max_train_samples": 64,
    "max_eval_samples": 24,
    "max_source_length": 48,
    "head": "names",
    "lora": {"r": 8, "lora_alpha": 2, "layers": "top:2"},
    "train": {"learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 16},
    "evaluation": {"schedule": "full", "scoring": "labels"},
}
METHODS, SEEDS = ("inclora", "ella", "o-lora", "kfac"), (0, 1, 2)
WAYS = ("alone", "shared", "workers")


def measure(way: str) -> float:
    """Make the twelve runs in this process, or in two of its own; return the mean of their scores."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        todo = sweep.jobs([SETTINGS], METHODS, SEEDS, out)
        if way == "alone":
            sweep.work(todo, experiment.load_for(todo[0].spec))
        else:
            with sweep.sharing(todo, out) as jobs:
                if way == "shared":
                    sweep.work(jobs, experiment.load_for(todo[0].spec))
                else:
                    failures: list[sweep.Failed] = []
                    workers.work_in_processes(jobs, 2, progress=Progress(), failed=failures.append)
                    assert not failures, failures
        return statistics.mean(read_matrix(job.folder).metrics["oa"] or 0.0 for job in todo)


def process(way: str) -> dict[str, float]:
    """Measure a way in a process of its own."""
    before, began, busy = os.times(), time.monotonic(), machine()
    made = subprocess.run([sys.executable, __file__, "--way", way], check=True, stdout=subprocess.PIPE, text=True)
    took, after, busy = time.monotonic() - began, os.times(), machine() - busy
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    found = {"": took, " cpu": spent, " others": busy - spent, " score": float(made.stdout.split()[-1])}
    return {way + what: round(value, 2) for what, value in found.items()}


def machine() -> float:
    """Return the processor seconds that all processes of this machine have taken; 0 where nobody says."""
    place = Path("/proc/stat")
    spent = place.read_text(encoding="utf-8").split()[1:9] if place.exists() else ["0"] * 8
    return sum(int(spent[k]) for k in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help="do this one here, and print the mean score of its runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/sweeping.jsonl")
    wish = parser.parse_args()
    if wish.way:
        torch.set_num_threads(1)
        print(measure(wish.way))
        return
    rows: list[dict[str, float]] = []
    for lap in range(wish.rounds):
        row: dict[str, float] = {"round": lap}
        for way in WAYS:
            row |= process(way)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print("| way | seconds | of one core | of others | score | of alone | range |\n|---|--:|--:|--:|--:|--:|---|")
    for way in WAYS:
        ratios = [row[way] / row["alone"] for row in rows]
        facts = " | ".join(
            f"{statistics.median(row[way + what] for row in rows):.0f}" for what in ("", " cpu", " others", " score")
        )
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {way} | {facts} | **{statistics.median(ratios):.2f}** | {spread} |")


if __name__ == "__main__":
    main()
