"""What do commands cost as a user types them? `everlora run` of a task of the demo, the demo, tasks of an old learner.

    python benchmarks/commands.py --only run --rounds 3     # 15 s of one core a round
    python benchmarks/commands.py --only files              # two minutes
    python benchmarks/commands.py --only demo               # three minutes

Of ``run`` and ``demo`` processor seconds, since other work on the machine changes those of the clock. Of ``run`` they
are counted from the start of the process to its end, and what its own last lines say of training, penalties and
answering is taken off: the rest is starting, loading, data, saving and the page. ``files`` counts what is opened and
hashed in a learner's folder by a task after so many (tiny-llama, ELLA, one step a task), and what is opened by
``status`` and by a process that has read nothing yet. A line of JSON per round goes to ``--results``; measurements of
another kind that are there are left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from everlora import Example, Learner, Task
from everlora.analysis.status import status
from everlora.archive import root, unchanged
from everlora.learner.demo import SETTINGS

Row = dict[str, str | int | float]
START = "import time; time.perf_counter = time.process_time; from everlora.cli.main import main; main()"
"""Starts everlora so that it counts processor seconds where it counts those of the clock otherwise."""


def command(*words: str) -> tuple[str, float, float]:
    """Run a command; return what it printed, and its seconds by the clock and of processors."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", START, *words], check=True, stdout=subprocess.PIPE, text=True)
    clock, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, clock, spent


def run(place: Path) -> Row:
    """Measure a run of the demo's first task."""
    recipe = place / "task.yaml"
    recipe.write_text(yaml.safe_dump({**SETTINGS, "tasks": ["news"], "method": "kfac"}), encoding="utf-8")
    printed, clock, spent = command("run", "--config", str(recipe), "--out", str(place / "run"))
    kinds = dict(re.findall(r"(training|penalties|answering|data|saving|all else) ([\d.]+) s", printed))
    found = {kind: float(seconds) for kind, seconds in kinds.items()}
    rest = spent - found["training"] - found["penalties"] - found["answering"]
    return {"what": "run", "clock": round(clock, 2), "seconds": round(spent, 2), "rest": round(rest, 2), **found}


def demo(place: Path) -> Row:
    """Measure the demo."""
    _, clock, spent = command("demo", "--out", str(place / "demo"))
    return {"what": "demo", "clock": round(clock, 1), "seconds": round(spent, 1)}


def files(place: Path, after: list[int]) -> Iterator[Row]:
    """Count what a learner opens and hashes after so many tasks."""
    count, digest, folder = Counter[str](), hashlib.file_digest, place / "learner"
    learner = Learner("tiny-llama", method="ella", out=folder, seed=0)

    def look(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[0], str) and given[0].startswith(str(folder)):
            count["opened"] += 1

    def hashed(file: Any, algorithm: Any) -> Any:
        count["hashed"] += 1
        return digest(file, algorithm)

    def teach(number: int) -> None:
        rows = [Example(f"this is text {k} of task {number}", ("yes", "no")[k % 2]) for k in range(8)]
        task = Task(name=f"task{number}", train=rows, test=rows[:2], labels=("yes", "no"))
        learner.learn(task, train={"max_steps": 1, "logging_steps": 1}, forecast=False)

    sys.addaudithook(look)
    # A file is known once it is two seconds old, as files are where a task takes longer than a toy's.
    with patch.object(hashlib, "file_digest", hashed), patch.object(unchanged, "SETTLED", 0):
        for number in range(max(after) + 1):
            count.clear()
            teach(number)
            if number not in after:
                continue
            row: Row = {"what": "files", "tasks": number, "opened": count["opened"], "hashed": count["hashed"]}
            count.clear()
            status(folder)
            row["status"] = count["opened"]
            with patch.object(root.hash_of, "_known", {}):  # as if this were another process
                count.clear()
                _ = Learner.open(folder).model
                row["resumed"] = count["opened"]
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["run", "demo", "files"], action="append")
    parser.add_argument("--rounds", type=int, default=3, help="of run; the rest is measured once")
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[5, 10, 20, 50], help="how old the learner is, of files"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/commands.jsonl")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    chosen = wish.only or ["run", "demo", "files"]
    left = wish.results.read_text(encoding="utf-8").splitlines() if wish.results.exists() else []
    rows: list[Row] = [row for row in map(json.loads, left) if row["what"] not in chosen]

    def measured() -> Iterator[Row]:
        for lap in range(wish.rounds if "run" in chosen else 0):
            with tempfile.TemporaryDirectory() as place:
                yield {**run(Path(place)), "round": lap}
        with tempfile.TemporaryDirectory() as place:
            if "demo" in chosen:
                yield demo(Path(place))
            if "files" in chosen:
                yield from files(Path(place), wish.tasks)

    for row in measured():
        print(json.dumps(row), flush=True)
        rows.append(row)
        wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
