"""How well is forgetting predicted? Predicted against real rises of earlier tasks' losses, for every pair of tasks.

A stream is learned by each method. When a task ends, its Kronecker curvature is measured as ``kfac`` measures it. When
a later one ends, what its update is predicted to cost each earlier task (from that task's curvature alone, nats per
row, to second order) is written beside what it did cost: the mean loss on the rows that the curvature was measured on,
and on rows that are held out, after it and before it. A row's loss is that of its whole answer; with a head and
``scoring: labels`` it is taken over the labels of its task. Writes a JSON list of points:

    method, seed, earlier, later    which run, and which pair of tasks
    predicted                       rise that the later task's update is predicted to make
    evidence, held_out              rise that it made, on the rows of the evidence and on the rows that are scored
    since: {the same three}         of all tasks behind the earlier one together

python benchmarks/forecast.py --config recipes/small-standard.yaml --data-dir ../shared/data/cl_benchmark --method kfac
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from everlora.core.expressions import parse
from everlora.core.roles import State, TaskContext
from everlora.core.updates import LowRank, Updates, concatenate, difference, stack
from everlora.learner import experiment
from everlora.learner.sequential import SequentialLearner
from everlora.parts.kronecker import KroneckerCurvature
from everlora.settings.spec import RunSpec
from everlora.training.evidence import draw_rows, observe
from everlora.training.evidence_rows import AT_ONCE, Rows, to_batch, untouched
from everlora.training.memory import Memory
from everlora.training.stages import Stage
from everlora.training.trainer import token_mean

Losses = dict[str, float]
"""Mean loss of one task, in nats per row, on the rows of its evidence and on rows that are held out."""


class Forecaster(SequentialLearner):
    """A learner that measures, whenever a task ends, what the tasks before it were predicted to lose, and lost.

    Attributes:
        part: predicts.
        points: as the module's docstring lists them, without method and seed.
    """

    part = KroneckerCurvature()

    def reset(self) -> None:
        super().reset()
        self.points: list[dict[str, object]] = []
        self.rows: list[dict[str, Rows]] = []
        self.curvatures: list[dict[str, State]] = []
        self.moved: list[dict[str, LowRank]] = []
        self.losses: list[list[Losses]] = []

    def remember(self, stage: Stage, model: nn.Module, update: Updates) -> Memory:
        start = self.adapter_start() or {}
        sites = {name: site for name, site in update.items() if isinstance(site, LowRank)}
        self.moved.append({n: difference(site, start[n]) if n in start else site for n, site in sites.items()})
        held_out = [(row, task) for task in stage.tasks for row in getattr(task, self.spec.evaluation.split)]
        self.rows.append({"evidence": draw_rows(self.part, stage, self.spec.seed), "held_out": held_out})
        self.losses.append([{kind: self.loss(model, some) for kind, some in each.items()} for each in self.rows])
        for earlier in range(len(self.curvatures)):
            self.points.append(
                {
                    "earlier": self.plan[earlier].name,
                    "later": stage.name,
                    **self.rise(earlier, before=len(self.losses) - 2),
                    "since": self.rise(earlier, before=earlier),
                }
            )
        seen = observe(self.part, stage, model, self.base.family, self.backend, self.spec.seed)
        self.curvatures.append({name: self.part.remember(site, {}, seen[name]) for name, site in sites.items()})
        return super().remember(stage, model, update)

    def rise(self, earlier: int, before: int) -> Losses:
        """What task ``earlier`` was predicted to lose, and lost, by the tasks behind ``before`` up to the newest."""
        predicted = 0.0
        for name, held in self.curvatures[earlier].items():
            state = self.part.prepare(TaskContext(memory={key: tensor[None] for key, tensor in held.items()}))
            assert state is not None
            together = concatenate([moved[name] for moved in self.moved[before + 1 :]])
            predicted += float(self.part.value_and_grad(stack([together]), state).value)
        now, then = self.losses[-1][earlier], self.losses[before][earlier]
        return {"predicted": predicted, **{kind: now[kind] - then[kind] for kind in now}}

    @torch.no_grad()
    def loss(self, model: nn.Module, rows: Rows) -> float:
        """The mean loss of rows, in nats per row."""
        total = 0.0
        with untouched(model):
            for k in range(0, len(rows), AT_ONCE):
                batch = to_batch(model, self.base.family, rows[k : k + AT_ONCE])
                total += float(token_mean(*self.base.family.logits(model, batch), 1))
        return total / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--method", nargs="+", default=["kfac", "inclora"])
    parser.add_argument("--order", default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--lora-alpha", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/forecast.json"))
    wish = parser.parse_args()
    typed = {
        "data_dir": wish.data_dir,
        "order": wish.order,
        "lora": {"lora_alpha": wish.lora_alpha},
        "train": {"learning_rate": wish.learning_rate},
        "evaluation": {"schedule": "diagonal"},
    }
    points: list[dict[str, object]] = []
    base = None
    for method in wish.method:
        for seed in wish.seeds:
            spec = experiment.resolve(
                RunSpec, experiment.read_recipe(wish.config), typed, {"method": method, "seed": seed}
            )
            base = base or experiment.load_for(spec)
            found = forecast(spec, copy.deepcopy(base))
            points += [{"method": method, "seed": seed, **point} for point in found]
            wish.out.parent.mkdir(parents=True, exist_ok=True)
            wish.out.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
            for point in found:
                print(method, seed, json.dumps(point), file=sys.stdout, flush=True)


def forecast(spec: RunSpec, base: experiment.Loaded) -> list[dict[str, object]]:
    """Learn one stream, in a folder that is thrown away; return its points."""
    method, tasks, quiet = parse(spec.method), experiment.stream_for(spec, base).tasks, experiment.Progress()
    with tempfile.TemporaryDirectory(prefix="everlora-") as scratch:
        folder = experiment.begin(spec, method, base, Path(scratch) / "run", progress=quiet).folder
        learner = Forecaster(base, method, spec, folder, quiet)
        learner.follow(tasks)
    return learner.points


if __name__ == "__main__":
    main()
