"""Runs the demonstration over several seeds, and keeps what it came to beside the demonstration.

The matrices of the first seed are kept, too, for README.

    python benchmarks/demo_seeds.py --seeds 0,1,2,3,4 --out runs/demo-seeds

An interrupted command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import everlora.methods  # noqa: F401  # registers them
from everlora.archive.atomic import write_text
from everlora.learner import demo, experiment, sweep
from everlora.runtime.progress import Progress
from everlora.settings.spec import RunSpec

WHERE = Path(demo.__file__).with_name("demo_seeds.json")


class Shown(Progress):
    """Prints a line for every run and every task."""

    def info(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Make the runs, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    todo = sweep.jobs([demo.SETTINGS], demo.METHODS, seeds, given.out)
    base = experiment.load_for(experiment.resolve(RunSpec, demo.SETTINGS))
    methods: dict[str, list[dict[str, float | int]]] = {method: [] for method in demo.METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in demo.METHODS}
    matrices: dict[str, list[list[float | None]]] = {}
    tasks: list[str] = []
    for job in todo:
        began = time.process_time()
        new = not (job.folder / "matrix.json").exists()
        (result,) = sweep.work([job], base, resume=True, progress=Shown())
        scores = result.record.metrics
        found = {name: round(float(scores[key] or 0), 4) for name, key in (("OA", "oa"), ("BWT", "bwt"))}
        methods[job.spec.method].append({"seed": job.spec.seed, **found})
        if job.spec.seed == seeds[0]:
            tasks = list(result.record.tasks)
            matrices[job.spec.method] = [
                [None if score is None else round(float(score), 1) for score in row] for row in result.record.matrix
            ]
        if new:
            seconds[job.spec.method].append(time.process_time() - began)
    command = f"python benchmarks/demo_seeds.py --seeds {given.seeds}"
    took = sum(sorted(times)[len(times) // 2] for times in seconds.values() if times)
    if not took and WHERE.exists():  # nothing was run anew
        took = json.loads(WHERE.read_text(encoding="utf-8"))["seconds"]
    facts = {"command": command, "seconds": round(took), "methods": methods, "tasks": tasks, "matrices": matrices}
    write_text(WHERE, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
