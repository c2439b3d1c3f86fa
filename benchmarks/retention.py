"""How much do methods keep? Runs methods x seeds on one stream and prints means; resumable, one folder per run.

python benchmarks/retention.py recipes/builtin-small.yaml --methods seqlora inclora o-lora ella --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path

from everlora import experiment
from everlora.cli.console import Shown, number
from everlora.core.registry import parse
from everlora.core.spec import RunSpec

METRICS = ("oa", "bwt", "forgetting", "learning_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=Path("runs/retention"))
    wish = parser.parse_args()
    layers = ({"data_dir": wish.data_dir, "evaluation": {"split": wish.split}}, experiment.read_recipe(wish.recipe))
    base = experiment.load_for(experiment.resolve(RunSpec, *layers))
    found: dict[str, list[experiment.Result]] = {method: [] for method in wish.methods}
    with Shown() as shown:
        for seed in wish.seeds:
            for method in wish.methods:
                spec = experiment.resolve(RunSpec, *layers, {"method": method, "seed": seed})
                tasks = experiment.stream_for(spec, base).tasks
                name = "".join(c if c.isalnum() or c in "-+" else "_" for c in method)
                folder = wish.out / wish.recipe.stem / f"{name}-{wish.split}-seed{seed}"
                shown.say(f"{method}, seed {seed}")
                own = copy.deepcopy(base)
                result = experiment.follow(spec, parse(method), own, tasks, folder, resume=True, progress=shown)
                found[method].append(result)
    report(found)


def report(found: dict[str, list[experiment.Result]]) -> None:
    """Print one line per method: mean (standard deviation over seeds) of each metric, and the mean last row."""
    tasks = next(iter(found.values()))[0].matrix.tasks
    print("| method | " + " | ".join([*METRICS, *tasks]) + " |")
    print("|---" * (1 + len(METRICS) + len(tasks)) + "|")
    for method, results in found.items():
        cells = [_spread([r.content["metrics"][metric] for r in results]) for metric in METRICS]
        cells += [_spread([r.matrix.final[k] for r in results]) for k in range(len(tasks))]
        print(f"| {method} | " + " | ".join(cells) + " |")


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return number(None)
    sd = f" ({statistics.stdev(known):.1f})" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{sd}"


if __name__ == "__main__":
    main()
