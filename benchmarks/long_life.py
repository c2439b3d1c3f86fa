"""Measures what a long life costs: one learner is taught many tasks; steps, memory, opening, status and writing.

    python benchmarks/long_life.py --tasks 200 --out runs/long-life                       # tiny, 20 steps a task
    python benchmarks/long_life.py --tasks 50 --model smollm2-135m --steps 2 --out runs/long-life-50
    python benchmarks/long_life.py --compare 10 --out runs/long-life                      # of a finished one

Times are CPU seconds of this process, so that other work on the machine plays little part; each line is the median
of five tasks. ``step`` is a step of training, ``rest`` is a task but for its steps: bringing back, answering,
writing, hashing. ``open`` is `Learner.open` and bringing all tasks back, in a process of its own. ``memory`` is what
the process that learns holds at most (resident) while it learns these five tasks. A run that was ended goes on where
it was, in a process that holds less than one that went through.

Other work still shows in a step's time, since it takes caches and clock. ``--compare N`` therefore teaches two
learners in turn, task by task: the old one, of all its tasks, and one of two; N tasks each, on copies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from everlora import Example, Learner, Task
from everlora.analysis.status import status
from everlora.runtime.progress import Progress

WINDOW = 5
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
COLUMNS = ("task", "step, ms", "rest, s", "open, s", "status, s", "memory, MB", "folder, MB")


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
    """Teach a task; return what that took, and what the process held at most meanwhile, in MB."""
    clock.took.clear()
    CLEAR.write_text("5", encoding="ascii")  # forget the peak of before
    begun = time.process_time()
    learner.learn(one, train={"max_steps": steps, "logging_steps": steps})
    whole = time.process_time() - begun
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    peak = float(lines["VmHWM"].split()[0]) / 1e3
    return {"step": median(clock.took), "rest": whole - sum(clock.took), "memory": peak}


def opened(folder: Path) -> tuple[float, float]:
    """Return the CPU seconds of opening a learner with all its tasks, and of its status."""
    begun = time.process_time()
    _ = Learner.open(folder).model
    between = time.process_time()
    status(folder)
    return between - begun, time.process_time() - between


def learn(given: argparse.Namespace) -> None:
    """Teach the tasks that are not learned yet, and print the table."""
    clock, place = Clock(), given.out.parent / f"{given.out.name}.jsonl"
    goes_on = (given.out / "run.yaml").is_file()
    how = {"method": given.method, "out": given.out, "seed": 0, "progress": clock, "resume": goes_on}
    learner = Learner(given.model, **how)
    first = len(status(given.out).tasks) + 1 if goes_on else 1
    rows: list[dict[str, float]] = []
    shown = {2, WINDOW + 1, given.tasks, *range(given.every, given.tasks + 1, given.every)}
    print(f"| {' | '.join(COLUMNS)} |\n|" + "--:|" * len(COLUMNS))
    for number in range(first, given.tasks + 1):
        rows.append(measured(learner, clock, task(number), given.steps))
        if number not in shown:
            continue
        line = {"task": number, **{key: median(row[key] for row in rows[-WINDOW:]) for key in rows[-1]}}
        line["memory"] = max(row["memory"] for row in rows[-WINDOW:])
        command = [sys.executable, __file__, "--open", "--out", str(given.out)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        line["open"], line["status"] = map(float, found.split())
        line["folder"] = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file()) / 1e6
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        figures = [f"{1e3 * line['step']:.1f}", *(f"{line[key]:.2f}" for key in ("rest", "open", "status"))]
        figures += [f"{line['memory']:.0f}", f"{line['folder']:.1f}"]
        print(f"| {number} | {' | '.join(figures)} |", flush=True)


def compare(given: argparse.Namespace) -> None:
    """Teach the old learner and a young one in turn; print what a step and the rest of a task take in both."""
    with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
        ages, clocks = ("old", "young"), {"old": Clock(), "young": Clock()}
        old = Path(shutil.copytree(given.out, Path(scratch) / "old"))
        learners = {"old": Learner.open(old, progress=clocks["old"])}
        how = {"method": given.method, "out": Path(scratch) / "young", "seed": 0, "progress": clocks["young"]}
        learners["young"] = Learner(given.model, **how)
        for number in (1, 2):
            measured(learners["young"], clocks["young"], task(number), given.steps)
        known, took = len(status(old).tasks), {age: list[dict[str, float]]() for age in ages}
        for number in range(known + 1, known + given.compare + 2):  # the first brings everything back
            for age in ages:
                took[age].append(measured(learners[age], clocks[age], task(number), given.steps))
        for key in ("step", "rest"):
            old_took, young_took = (median(row[key] for row in took[age][1:]) for age in ages)
            more = old_took / young_took - 1
            print(f"{key}: {old_took:.4f} s with {known} tasks, {young_took:.4f} s with 2, {more:+.1%}")


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--method", default="ella")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compare", type=int, metavar="N")
    parser.add_argument("--open", action="store_true", help="print what opening --out takes")
    given = parser.parse_args()
    if given.open:
        print(*opened(given.out))
    elif given.compare:
        compare(given)
    else:
        learn(given)


if __name__ == "__main__":
    main()
