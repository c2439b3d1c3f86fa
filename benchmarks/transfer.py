"""Does one default strength transfer? A penalised method beside its base, over models, ranks and orders of real data.

For every setting: OA of the base method, of the method with λ found (``lam=auto``) and with fixed λ, the λ that was
on the last task, and the penalty's share of the adapters' gradient in the last quarter of its steps.

python benchmarks/transfer.py --data-dir ../shared/data/cl_benchmark --model minilm --ranks 2 4 8 16 --orders 1 2 3
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

from everlora.core.expressions import parse
from everlora.learner import experiment
from everlora.settings.spec import RunSpec

METHODS = ["inclora", "ella", "ella(lam=0.03)", "ella(lam=1)", "ella(lam=30)"]
BASE: list[experiment.Loaded] = []
"""The base model, loaded once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--orders", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--train", type=int, default=256, help="training rows per task")
    parser.add_argument("--rows", type=int, default=100, help="dev rows per task")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--source", type=int, default=96, help="longest prompt in tokens")
    parser.add_argument("--scoring", default="labels")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    wish = parser.parse_args()
    # One rank at order 1 after another, then the other orders at rank 8: not the whole product.
    settings = [(1, r) for r in wish.ranks if 1 in wish.orders] + [(o, 8) for o in wish.orders if o != 1]
    print("| model | order | rank | " + " | ".join(f"OA {m}" for m in wish.methods) + " | λ found | share |")
    print("|---" * (5 + len(wish.methods)) + "|")
    for order, rank in settings:
        found: list[str] = []
        facts = ("–", "–")
        for method in wish.methods:
            results = [run(wish, method, order, rank, seed) for seed in wish.seeds]
            found.append(f"{sum(r.matrix_oa for r in results) / len(results):.1f}")
            if any(r.strengths for r in results):
                facts = (f"{results[0].strengths[-1]:.2g}", f"{results[0].share:.2f}")
        print(f"| {wish.model} | {order} | {rank} | " + " | ".join([*found, *facts]) + " |", flush=True)


class Outcome:
    """OA of a run, the strengths that were found, and the share that the penalty had in the end."""

    def __init__(self, folder: Path, oa: float) -> None:
        self.matrix_oa = oa
        stages = sorted((folder / "tasks").glob("*/COMMIT"))
        facts = [json.loads(path.read_text(encoding="utf-8")) for path in stages]
        self.strengths = [next(iter(f["strengths"].values())) for f in facts if f["strengths"]]
        log = (stages[-1].parent / "training.jsonl").read_text(encoding="utf-8").splitlines()
        shares = [json.loads(line)["rho"] for line in log if '"rho"' in line]
        last = shares[-max(1, len(shares) // 4) :]
        self.share = sum(last) / len(last) if last else 0.0


def run(wish: argparse.Namespace, method: str, order: int, rank: int, seed: int) -> Outcome:
    spec = experiment.resolve(
        RunSpec,
        {
            "model": wish.model,
            "benchmark": "standard",
            "order": order,
            "data_dir": wish.data_dir,
            "method": method,
            "seed": seed,
            "max_train_samples": wish.train,
            "max_eval_samples": wish.rows,
            "max_source_length": wish.source,
            "lora": {"r": rank, "lora_alpha": 4 * rank},
            "train": {
                "num_train_epochs": 1,
                "learning_rate": wish.learning_rate,
                "per_device_train_batch_size": wish.batch,
                "logging_steps": 1,
            },
            "evaluation": {"schedule": "final", "split": "dev", "scoring": wish.scoring},
        },
    )
    if not BASE:
        BASE.append(experiment.load_for(spec))
    base = BASE[0]
    tasks = experiment.stream_for(spec, base).tasks
    name = "".join(c if c.isalnum() or c in "-+" else "_" for c in method)
    folder = wish.out / wish.model / f"{name}-order{order}-r{rank}-seed{seed}"
    progress = experiment.Progress()
    done = experiment.follow(spec, parse(method), copy.deepcopy(base), tasks, folder, resume=True, progress=progress)
    return Outcome(folder, float(done.record.metrics["oa"] or 0))


if __name__ == "__main__":
    main()
