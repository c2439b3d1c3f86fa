"""Which scale and rate of LoRA pairs learn: a grid over alpha, rate and rank, one run each, appended as JSON lines.

    python benchmarks/defaults.py --config recipes/stage.yaml --data-dir DIR --order 1 \\
        --alphas 1,2,4,8,16,32 --rates 1e-3,3e-3,1e-2,3e-2 --ranks 8 --out benchmarks/results/defaults.jsonl

Rows: method, seed, recipe and a hash of its settings, alpha, rate, the head's rate where it is another, rank, steps
a task where they are not the recipe's, mean accuracy on each task right after it was learned, after the last task, and
seconds of one core; on dev rows.
Points that are in the file already are not run again. rsLoRA's rule, a scale that falls with the root of the rank, is
the points with alpha = sqrt(8 r).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import everlora.methods  # noqa: F401  # registers them
from everlora.learner import experiment, sweep
from everlora.learner.resolve import read_recipe
from everlora.models.loading import Loaded
from everlora.settings.spec import RawSettings, RunSpec


def numbers(text: str) -> list[float]:
    """Read numbers that commas part."""
    return [float(word) for word in text.split(",")]


def digest(config: Path) -> str:
    """Return a hash of a recipe's settings."""
    return hashlib.sha256(json.dumps(read_recipe(config), sort_keys=True).encode()).hexdigest()[:12]


class Point(NamedTuple):
    """Is one point of the grid; the recipe's own tasks and steps are None.

    ``recipe`` is a hash of the recipe's settings: what was measured by another recipe of that name is another point.
    """

    method: str
    seed: int
    config: str
    recipe: str
    benchmark: str | None
    order: str | None
    tasks: str | None
    steps: int | None
    rank: int
    alpha: float
    rate: float
    head_rate: float | None = None


def settings_of(given: argparse.Namespace, point: Point) -> list[RawSettings]:
    """Return the layers of settings of one point of the grid."""
    recipe = read_recipe(given.config)
    layers = recipe.get("lora")
    lora = {**(layers if isinstance(layers, dict) else {}), "r": point.rank, "lora_alpha": point.alpha}
    own: RawSettings = {
        "method": given.method,
        "seed": given.seed,
        "order": given.order,
        "data_dir": given.data_dir,
        "lora": lora,
        "train": {"learning_rate": point.rate}
        | ({} if point.steps is None else {"max_steps": point.steps})
        | ({} if point.head_rate is None else {"head_learning_rate": point.head_rate}),
        "evaluation": {"split": "dev"},
    }
    chosen: RawSettings = {}
    if point.tasks is not None:
        chosen = {"benchmark": given.benchmark, "tasks": point.tasks.split(",")}
    return [recipe, own, chosen]


def main() -> None:
    """Run the points of the grid that are not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--order", default=None)
    parser.add_argument("--method", default="inclora")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alphas", type=numbers, default=numbers("1,2,4,8,16,32"))
    parser.add_argument("--rates", type=numbers, default=numbers("1e-3,3e-3,1e-2,3e-2"))
    parser.add_argument("--head-rates", type=numbers, default=[None], help="of a trained head, in place of the rate")
    parser.add_argument("--ranks", type=numbers, default=[8.0])
    parser.add_argument("--steps", type=numbers, default=[None], help="steps a task, in place of the recipe's epochs")
    parser.add_argument("--tasks", default=None, help="other tasks than the recipe's, of --benchmark")
    parser.add_argument("--benchmark", default="long")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    there = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {Point(*(row.get(name) for name in Point._fields)) for row in there}
    steps = [None if count is None else int(count) for count in given.steps]
    grid = itertools.product(steps, map(int, given.ranks), given.alphas, given.rates, given.head_rates)
    benchmark = None if given.tasks is None else given.benchmark
    named = (given.method, given.seed, given.config.name, digest(given.config), benchmark, given.order, given.tasks)
    points = [Point(*named, *point) for point in grid]
    todo = [point for point in points if point not in done]
    specs = [experiment.resolve(RunSpec, *settings_of(given, point)) for point in todo]
    base = experiment.load_for(specs[0]) if specs else None
    with tempfile.TemporaryDirectory() as place:
        named = [sweep.Job(spec, Path(place) / f"run{k}") for k, spec in enumerate(specs)]
        with sweep.sharing(named, Path(place)) as jobs:
            for point, job in zip(todo, jobs, strict=True):
                assert base is not None
                write(given, point, job, base)


def write(given: argparse.Namespace, point: Point, job: sweep.Job, base: Loaded) -> None:
    """Run one point of the grid, and append what came of it to the file."""
    began = time.process_time()
    row = {name: value for name, value in point._asdict().items() if value is not None}
    (result,) = sweep.work([job], base)
    matrix = result.record.matrix
    learned = [float(matrix[k][k] or 0) for k in range(len(matrix))]
    row |= {
        "learned": round(sum(learned) / len(learned), 2),
        "after": round(result.record.metrics["oa"] or 0, 2),
        "seconds": round(time.process_time() - began, 1),
    }
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
