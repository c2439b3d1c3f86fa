"""Measures whether ``learn --may-lose`` keeps its word: 20 learners, on rows that the budget has not seen.

    python benchmarks/forgetting_budget.py --data-dir DATA --out runs/budget     # resumable; DATA has CL_Benchmark

Each learner is taught four tasks of the Standard benchmark, in an order of its own, with 200 test rows of each kept
to hold the budget against; what earlier tasks lose is measured on 150 other rows. A task no part of which fits is
refused. The same is taught without a budget, on fewer seeds. A line of JSON per learner goes to ``--results``; the
table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from everlora import Learner, TaskStream, open_stream
from everlora.core.errors import TrainingError
from everlora.data.task import Example, Task

METHODS = ("inclora", "ella")
FREE = 4
"""Seeds that are taught without a budget, too."""
PROBES, OTHERS, TRAIN = 200, 150, 256
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "head": "names",
    "max_source_length": 40,
    "lora": {"r": 8, "lora_alpha": 8, "layers": "top:2"},
    "train": {"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 0.003},
    "evaluation": {"schedule": "diagonal", "scoring": "labels"},
}


def tasks_of(data: Path, seed: int) -> tuple[list[Task], dict[str, list[Example]]]:
    """Return four tasks in an order drawn by ``seed``, with the rows to hold a budget against, and other test rows."""
    stream: TaskStream = open_stream("standard", order=1, data_dir=data, seed=seed)
    order = random.Random(seed).sample(list(stream.tasks), len(stream.tasks))
    tasks, others = [], {}
    for task in order:
        cut = task.take(TRAIN, PROBES + OTHERS, seed=seed)
        mixed = random.Random(seed).sample(list(cut.test), len(cut.test))
        others[task.name] = mixed[PROBES:]
        tasks.append(replace(cut, test=mixed[:PROBES], dev=()))
    return tasks, others


def life(method: str, seed: int, may_lose: float | None, data: Path, out: Path) -> dict[str, Any]:
    """Teach one learner its tasks; return what each cost the earlier ones on other rows, and how it was learned."""
    tasks, others = tasks_of(data, seed)
    name = f"{method}-{seed}-{may_lose if may_lose is not None else 'free'}"
    learner = Learner(
        "minilm", method=method, out=out / name, seed=seed, feature_cache=str(out / "features"), **SETTINGS
    )
    lost, learned, shares = list[float](), list[float](), list[float]()
    before, refused = dict[str, float](), list[str]()
    for number, task in enumerate(tasks):
        try:
            done = learner.learn(task, keep_probe=PROBES, may_lose=may_lose)
        except TrainingError:
            refused.append(task.name)
            continue
        known = [one.name for one in tasks[: number + 1] if one.name not in refused]
        now = learner.evaluate({one: others[one] for one in known}).scores
        if before:
            lost.append(mean(before[one] - now[one] for one in known[:-1]))
            shares.append(done.spent.share if done.spent else 1.0)
        learned.append(now[task.name])
        before = now
    return {
        "method": method, "seed": seed, "may_lose": may_lose, "order": [task.name for task in tasks], "lost": lost,
        "learned": learned, "shares": shares, "refused": refused, "final": mean(before.values()),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Return what the learners came to: lessons within the budget, what they lost, and what that cost in learning."""
    lines = [
        "| method | budget | learners | tasks within it | refused | lost, mean | lost, worst | learned | final |",
        "|---|" + "--:|" * 8,
    ]
    for method, budget in sorted({(row["method"], row["may_lose"]) for row in rows}, key=str):
        some = [row for row in rows if (row["method"], row["may_lose"]) == (method, budget)]
        lost = [one for row in some for one in row["lost"]]
        inside = f"{sum(one <= budget for one in lost)} of {len(lost)}" if budget is not None else "–"
        figures = [mean(lost), max(lost), mean(one for row in some for one in row["learned"])]
        figures.append(mean(row["final"] for row in some))
        shown = " | ".join(f"{value:.1f}" for value in figures)
        allowed = "none" if budget is None else f"{budget:g}"
        refused = sum(len(row["refused"]) for row in some)
        lines.append(f"| {method} | {allowed} | {len(some)} | {inside} | {refused} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/forgetting-budget.jsonl")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--may-lose", type=float, default=2.0)
    given = parser.parse_args()
    rows = (
        [json.loads(line) for line in given.results.read_text("utf-8").splitlines()] if given.results.is_file() else []
    )
    known = {(row["method"], row["seed"], row["may_lose"]) for row in rows}
    for seed in range(200, 200 + given.seeds):
        for method in METHODS:
            for budget in (given.may_lose, None):
                if (method, seed, budget) in known or (budget is None and seed >= 200 + FREE):
                    continue
                rows.append(life(method, seed, budget, given.data_dir, given.out))
                with given.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
