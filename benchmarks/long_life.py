"""Measures what a long life costs: one learner is taught many tasks; steps, memory, opening, status and writing.

    python benchmarks/long_life.py --tasks 200 --out runs/long-life                       # tiny, 20 steps a task
    python benchmarks/long_life.py --tasks 50 --model smollm2-135m --steps 2 --out runs/long-life-50

Times are CPU seconds of this process, so that other work on the machine plays no part; each line is the median of
five tasks. ``step`` is a step of training, ``open`` is `Learner.open` and bringing all tasks back, ``rest`` is a task
but for its steps: bringing back, answering, writing, hashing.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from statistics import median

from everlora import Example, Learner, Task
from everlora.analysis.status import status
from everlora.runtime.progress import Progress

WINDOW = 5


def task(number: int) -> Task:
    """Return a task of two labels, whose rows are its own."""
    labels = (f"yes{number}", f"no{number}")
    rows = [Example(f"case {number} {k} is {label}", label) for k in range(24) for label in labels]
    return Task(name=f"task{number:03d}", train=rows[:40], test=rows[40:], labels=labels)


class Clock(Progress):
    """Takes the CPU time of the steps of training."""

    def __init__(self) -> None:
        self.learning, self.since, self.took = False, 0.0, list[float]()

    def phase(self, label: str, total: int) -> None:
        self.learning, self.since = label.startswith("learning"), time.process_time()

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.learning:
            now = time.process_time()
            self.took.append(now - self.since)
            self.since = now


def measured(learner: Learner, clock: Clock, one: Task, steps: int) -> dict[str, float]:
    """Teach a task; return what that took."""
    clock.took.clear()
    begun = time.process_time()
    learner.learn(one, train={"max_steps": steps, "logging_steps": steps})
    whole = time.process_time() - begun
    return {"step": median(clock.took), "rest": whole - sum(clock.took)}


def main() -> None:
    """Teach the tasks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--method", default="ella")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    clock = Clock()
    learner = Learner(given.model, method=given.method, out=given.out, seed=0, progress=clock)
    rows: list[dict[str, float]] = []
    shown = {WINDOW + 1, *range(given.every, given.tasks + 1, given.every)}
    print("| task | step, ms | rest, s | open, s | status, s | peak memory, MB | folder, MB |\n|" + "--:|" * 7)
    for number in range(1, given.tasks + 1):
        rows.append(measured(learner, clock, task(number), given.steps))
        if number not in shown:
            continue
        begun = time.process_time()
        _ = Learner.open(given.out).model
        opened = time.process_time() - begun
        begun = time.process_time()
        status(given.out)
        told = time.process_time() - begun
        window = rows[-WINDOW:]
        step, rest = (median(row[key] for row in window) for key in ("step", "rest"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file()) / 1e6
        line = {"task": number, "step": step, "rest": rest, "open": opened, "status": told, "peak": peak, "size": size}
        figures = f"{1e3 * step:.1f} | {rest:.2f} | {opened:.2f} | {told:.2f} | {peak:.0f} | {size:.1f}"
        print(f"| {number} | {figures} |", flush=True)
        with (given.out.parent / f"{given.out.name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
