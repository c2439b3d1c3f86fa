"""How much is a forecast worth that is made before the first step? Forecast against real rises, over pairs of tasks.

    python benchmarks/forecast_before.py --data-dir DATA --out runs/forecast      # resumable; DATA has CL_Benchmark
    python benchmarks/forecast_before.py --render                                 # the tables alone
    python benchmarks/forecast_before.py --fit --results OTHER.jsonl              # constants of the forecast

Learners are taught streams task by task, as ``learn`` does it. A line of JSON per learner goes to ``--results``: for
each pair of an earlier and a new task the figures that the forecast is made of, what the loss (nats) and the score
(points) of the earlier one really changed by on 200 test rows, and four baselines, three of them known only when
training is over:

    loss drop          of the new task's own loss by its training
    gradient cosine    −cos of both tasks' gradients, of the earlier one as its summary has it; before training
    update geometry    |cos| of both tasks' updates
    KL                 of the model's answers to rows of the new task, after training against before
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from everlora import open_stream
from everlora.archive.forecast import Forecast
from everlora.benchmarks.synthetic import TASKS
from everlora.core.expressions import parse
from everlora.core.updates import Updates, difference
from everlora.data.task import Task
from everlora.learner import experiment
from everlora.learner.forecast_risk import POINTS, earlier_tasks, interval, norm, rise
from everlora.learner.sequential import SequentialLearner
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.learn import teach
from everlora.models.families.heads import evaluating
from everlora.settings.spec import LearnerSpec
from everlora.training.calibration import own_labels
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch
from everlora.training.forecast_summary import TaskSummary, product, read
from everlora.training.forecast_sums import sums_over
from everlora.training.memory import Memory
from everlora.training.stages import Stage
from everlora.training.task_trainer import TrainingResult

STREAMS = ("standard-1", "standard-2", "standard-3", "builtin")
METHODS = ("inclora", "seqlora", "ella")
TRAIN, TEST, LOOKED_AT = 256, 200, 64
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "head": "names",
    "max_source_length": 40,
    "lora": {"r": 8, "lora_alpha": 8, "layers": "top:2"},
    "train": {"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 0.003},
    "evaluation": {"schedule": "full", "scoring": "labels"},
}
FIGURES = ("stake", "overlap", "curved", "slope")
"""Of a forecast, of which `everlora.learner.forecast_risk` makes nats, points and intervals."""
BASELINES = ("loss drop", "gradient cosine", "update geometry", "KL")


class Measured(SequentialLearner):
    """Is a learner that measures, whenever a task ends, what the tasks before it lost, and the baselines.

    Attributes:
        pairs: a line for each earlier and new task.
        losses: by task, on its test rows, after the latest task.
        tests: the tasks so far, with their test rows.
    """

    pairs: list[dict[str, Any]]
    losses: dict[str, float]
    tests: list[Task]

    def train_task(self, stage: Stage, model: nn.Module) -> TrainingResult:
        rows = self.looked_at(stage)
        seen = sums_over(model, self.base.family, self.backend.base_layers(), rows[:16])
        self.gradients = {name: one.gradient for name, one in seen.sums.items()}
        self.answers = log_probabilities(self, model, rows)
        return super().train_task(stage, model)

    def looked_at(self, stage: Stage) -> Rows:
        rows = [(row, task) for task in stage.tasks for row in task.train]
        return random.Random(stage.name).sample(rows, min(LOOKED_AT, len(rows)))

    def remember(self, stage: Stage, model: nn.Module, update: Updates) -> Memory:
        self.tests = [*self.tests, *stage.tasks]
        before, self.losses = self.losses, {task.name: mean_loss(self, model, test_rows(task)) for task in self.tests}
        now = log_probabilities(self, model, self.looked_at(stage))
        kl = sum(float((new.exp() * (new - old)).sum()) for (new, _), (old, _) in zip(now, self.answers, strict=True))
        then, later = (-sum(float(log[right]) for log, right in each) for each in (self.answers, now))
        shared = {"loss drop": (then - later) / len(now), "KL": kl / len(now)}
        known = earlier_tasks(self)
        moved = {name: site for name, site in update.items()}
        if known and self.method.consolidator.rule == "continue":
            newest = self.newest or {}
            moved = {name: difference(site, newest[name]) for name, site in update.items()}
        for one in known:
            name = one.stage.facts.name
            alike = sum(product(moved[place], one.moved[place]) for place in moved)
            self.pairs.append(
                {
                    "earlier": name,
                    "task": stage.name,
                    "real_nats": self.losses[name] - before[name],
                    "size": norm(moved),
                    **shared,
                    "gradient cosine": -cosine(self.gradients, read(one.stage.path)),
                    "update geometry": abs(alike) / (norm(moved) * norm(one.moved)),
                }
            )
        return super().remember(stage, model, update)


def cosine(gradients: dict[str, Tensor], summary: TaskSummary | None) -> float:
    """Return the cosine of a task's gradients and those of an earlier one's summary."""
    mine, other = torch.tensor(0.0), torch.tensor(0.0)
    both = torch.tensor(0.0)
    for name, one in (summary.models if summary else {}).items():
        known = one.gradient.dense()
        both, mine, other = (
            both + (known * gradients[name]).sum(),
            mine + gradients[name].square().sum(),
            other + known.square().sum(),
        )
    return float(both / (mine * other).sqrt().clamp_min(1e-12))


def test_rows(task: Task) -> Rows:
    return [(row, task) for row in task.test]


@torch.no_grad()
def log_probabilities(learner: SequentialLearner, model: nn.Module, rows: Rows) -> list[tuple[Tensor, int]]:
    """Return of each row the log-probabilities of its task's labels, and which of them is right."""
    family, found = learner.base.family, []
    with evaluating(model), own_labels(family):
        for k in range(0, len(rows), AT_ONCE):
            batch = to_batch(model, family, rows[k : k + AT_ONCE])
            logits, targets = family.logits(model, batch)
            for row, right, allowed in zip(logits.cpu(), targets.cpu(), batch["allowed"].cpu(), strict=True):
                places = allowed.nonzero()[:, 0]
                found.append((row[places].log_softmax(-1), int((places == right).nonzero()[0, 0])))
    return found


def mean_loss(learner: SequentialLearner, model: nn.Module, rows: Rows) -> float:
    return -sum(float(log[right]) for log, right in log_probabilities(learner, model, rows)) / len(rows)


def tasks_of(stream: str, seed: int, data: Path) -> list[Task]:
    """Return the tasks of a stream: an order of Standard, six tasks of ``builtin``, or five or six of the long one."""
    name, _, order = stream.partition("-")
    if name == "builtin":
        names = random.Random(seed).sample(list(TASKS), 6)
        tasks = open_stream(name, tasks=names, seed=seed, max_train_samples=TRAIN, max_eval_samples=TEST).tasks
    elif name == "long":
        all_of = open_stream(name, order=4, data_dir=data, seed=seed)
        tasks = tuple(random.Random(seed).sample(list(all_of.tasks), 6))
    else:
        tasks = open_stream(name, order=int(order), data_dir=data, seed=seed).tasks
    return [replace(task.take(TRAIN, TEST, seed=seed), dev=()) for task in tasks]


def learned(stream: str, method: str, seed: int, data: Path, out: Path, base: experiment.Loaded) -> dict[str, Any]:
    """Teach one learner a stream; return its pairs."""
    own = {"seed": seed, "feature_cache": str(out / "features")}
    composed = parse(method)
    rate = composed.adapter.learning_rate
    spec = experiment.resolve(LearnerSpec, {"model": "minilm", "method": method}, {**SETTINGS, **own}, rate=rate)
    drops: dict[tuple[str, str], float] = {}
    forecasts: dict[str, Forecast] = {}
    quiet = experiment.Progress()
    with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
        folder = experiment.begin(spec, composed, base, Path(scratch) / "run", progress=quiet).folder
        learner = Measured(base, composed, spec, folder, quiet)
        learner.pairs, learner.losses, learner.tests = [], {}, []
        for task in tasks_of(stream, seed, data):
            done = teach(learner, task, Teaching(keep_tests=TEST, forecast=True))
            drops |= {(name, task.name): then - done.scores[name] for name, then in done.before.items()}
            if done.forecast is not None:
                forecasts[task.name] = done.forecast
    pairs = []
    for pair in learner.pairs:
        made = forecasts[pair["task"]]
        figures = next(one for one in made.risks if one.task == pair["earlier"])
        real = {"real_points": drops[pair["earlier"], pair["task"]], "share": made.share}
        pairs.append({**pair, **real, "expected_size": made.size, **figures.model_dump(include=set(FIGURES))})
    return {"stream": stream, "method": method, "seed": seed, "pairs": pairs}


def rank(pairs: Sequence[dict[str, Any]], by: str, real: str) -> float:
    """Return Spearman's ρ of a figure and what really came."""
    return float(spearmanr([pair[by] for pair in pairs], [pair[real] for pair in pairs]).statistic)


def within_learners(pairs: Sequence[dict[str, Any]], by: str, real: str) -> float:
    """Return the mean over learners of ρ among each one's own pairs."""
    each: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs:
        each.setdefault(pair["learner"], []).append(pair)
    return float(np.mean([rank(own, by, real) for own in each.values()]))


def within(pairs: Sequence[dict[str, Any]], unit: str) -> float:
    """Return in how many percent of the pairs the interval holds what really came."""
    scale = POINTS if unit == "points" else 1.0
    ends = [interval(scale * pair["forecast"], unit) for pair in pairs]
    inside = [low <= pair[f"real_{unit}"] <= high for pair, (low, high) in zip(pairs, ends, strict=True)]
    return 100 * sum(inside) / len(inside)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return ρ with rises in nats and drops in points by group of learners, and how often intervals hold."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kind = "built-in" if row["stream"] == "builtin" else "real"
        for pair in row["pairs"]:
            pair["forecast"] = rise(pair["curved"], pair["overlap"], pair["stake"])
            pair["learner"] = f"{row['stream']} {row['method']} {row['seed']}"
        for name in (kind, row["method"], f"seed {row['seed']}", "all"):
            groups.setdefault(name, []).extend(row["pairs"])
    order = [name for name in ("real", "built-in", *METHODS, "seed 0", "seed 1", "all") if name in groups]
    lines = ["| | " + " | ".join(order) + " |", "|---|" + "--:|" * len(order)]
    lines.append("| pairs | " + " | ".join(str(len(groups[name])) for name in order) + " |")
    for by in ("forecast", *BASELINES, *FIGURES):
        lines.append(f"| {by} | " + " | ".join(_both(rank, groups[name], by) for name in order) + " |")
    alone = " | ".join(_both(within_learners, groups[name], "forecast") for name in order)
    lines.append(f"| forecast, within a learner | {alone} |")
    for unit in ("nats", "points"):
        held = " | ".join(f"{within(groups[name], unit):.0f} %" for name in order)
        lines.append(f"| interval holds, {unit} | {held} |")
    shares = max(pair["share"] for row in rows for pair in row["pairs"])
    return "\n".join([*lines, "", f"rows looked at: at most {shares:.2%} of those that training passes"])


def _both(measure: Callable[..., float], pairs: Sequence[dict[str, Any]], by: str) -> str:
    return f"{measure(pairs, by, 'real_nats'):.2f} / {measure(pairs, by, 'real_points'):.2f}"


def fit(pairs: Sequence[dict[str, Any]]) -> str:
    """Return the constants of `everlora.learner.forecast_risk` that suit these pairs."""
    curved, overlap, stake, nats, points = (
        np.array([pair[name] for pair in pairs]) for name in ("curved", "overlap", "stake", "real_nats", "real_points")
    )

    def expected(kappa: float, c: float) -> Any:
        most = np.maximum(c * np.sqrt(overlap) * stake, 1e-6)
        return -most * np.expm1(-kappa * curved / most)

    grid = [(kappa, c) for kappa in (1.0, 2.0, 3.0, 5.0, 10.0) for c in (0.2, 0.3, 0.45, 0.6, 0.9)]
    kappa, c = min(grid, key=lambda one: float(np.square(nats - expected(*one)).mean()))
    found = expected(kappa, c)
    per_nat = float((points * nats).sum() / np.square(nats).sum())
    lines = [f"κ = {kappa}, c = {c}, points per nat {per_nat:.0f}"]
    for unit, real, said, floor in (("nats", nats, found, 0.1), ("points", points, per_nat * found, 4.0)):
        low, high = np.quantile((real - said) / (said + floor), (0.1, 0.9))
        lines.append(f"{unit}: below {-low:.2f}, above {high:.2f}, floor {floor}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/forecast"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/forecast-before.jsonl")
    parser.add_argument("--streams", nargs="+", default=list(STREAMS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--render", action="store_true", help="print the table, and measure nothing")
    parser.add_argument("--fit", action="store_true", help="print constants that suit these results")
    given = parser.parse_args()
    place = given.results
    rows = [json.loads(line) for line in place.read_text("utf-8").splitlines()] if place.is_file() else []
    known, base = {(row["stream"], row["method"], row["seed"]) for row in rows}, None
    for seed in [] if given.render or given.fit else given.seeds:
        for stream in given.streams:
            for method in given.methods:
                if (stream, method, seed) in known:
                    continue
                base = base or experiment.load_for(
                    experiment.resolve(LearnerSpec, {"model": "minilm", "method": method}, SETTINGS, rate=0.003)
                )
                rows.append(learned(stream, method, seed, given.data_dir, given.out, copy.deepcopy(base)))
                with place.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(fit([pair for row in rows for pair in row["pairs"]]) if given.fit else table(rows))


if __name__ == "__main__":
    main()
