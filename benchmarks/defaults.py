"""Which scale and rate of LoRA pairs learn: a grid over alpha, rate and rank, one run each, appended as JSON lines.

    python benchmarks/defaults.py --config recipes/stage.yaml --data-dir DIR --order 1 \\
        --alphas 1,2,4,8,16,32 --rates 1e-3,3e-3,1e-2,3e-2 --ranks 8 --out benchmarks/results/defaults.jsonl

Rows: alpha, rate, rank, mean accuracy on each task right after it was learned, after the last task, and seconds of one
core; on dev rows. Points that are in the file already are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import everlora.methods  # noqa: F401  # registers them
from everlora.learner import experiment, sweep
from everlora.learner.resolve import read_recipe
from everlora.settings.spec import RawSettings, RunSpec


def numbers(text: str) -> list[float]:
    """Read numbers that commas part."""
    return [float(word) for word in text.split(",")]


def settings_of(given: argparse.Namespace, alpha: float, rate: float, rank: int) -> list[RawSettings]:
    """Return the layers of settings of one point of the grid."""
    recipe = read_recipe(given.config)
    layers = recipe.get("lora")
    lora = {**(layers if isinstance(layers, dict) else {}), "r": rank, "lora_alpha": alpha}
    point: RawSettings = {
        "method": given.method,
        "seed": given.seed,
        "order": given.order,
        "data_dir": given.data_dir,
        "lora": lora,
        "train": {"learning_rate": rate},
        "evaluation": {"split": "dev"},
    }
    return [recipe, point]


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
    parser.add_argument("--ranks", type=numbers, default=[8.0])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    there = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(row["alpha"], row["rate"], row["rank"]) for row in there}
    base = None
    for rank, alpha, rate in itertools.product(map(int, given.ranks), given.alphas, given.rates):
        if (alpha, rate, rank) in done:
            continue
        spec = experiment.resolve(RunSpec, *settings_of(given, alpha, rate, rank))
        base = base or experiment.load_for(spec)
        began = time.process_time()
        row = {"config": given.config.name, "method": given.method, "alpha": alpha, "rate": rate, "rank": rank}
        with tempfile.TemporaryDirectory() as place:
            (result,) = sweep.work([sweep.Job(spec, Path(place) / "run")], base)
            matrix = result.record.matrix
            learned = [float(matrix[k][k] or 0) for k in range(len(matrix))]
            row |= {
                "learned": round(sum(learned) / len(learned), 2),
                "after": round(result.record.metrics["oa"] or 0, 2),
            }
        row["seconds"] = round(time.process_time() - began, 1)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
