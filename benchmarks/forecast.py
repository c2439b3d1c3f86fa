"""How well is forgetting predicted? Predicted against real rises of earlier tasks' losses, for every pair of tasks.

A stream is learned by each method. When a task ends, its Kronecker curvature is measured as ``kfac`` measures it. When
a later one ends, what its update is predicted to cost each earlier task (from that task's curvature alone, nats per
row, to second order) is written beside what it did cost: the mean loss on the rows that the curvature was measured on,
and on rows that are held out, after it and before it. A row's loss is that of its whole answer; with a head it is
taken over the labels of its task. Writes a line of JSON for each pair of tasks:

    method, order, seed             which run
    earlier, task                   which pair of tasks, the later one last
    predicted                       rise of the earlier task's loss that the later one's update is predicted to make
    real, evidence                  rise that it made, on rows that are held out and on the rows of the evidence
    since: {the same three}         of all tasks behind the earlier one together

Lines of the same method, order and seed are replaced, all others stay.

python benchmarks/forecast.py --config recipes/stage-names.yaml --data-dir ../shared/data/cl_benchmark --order 1
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path

from torch import nn

from everlora.archive.atomic import write_text
from everlora.core.expressions import parse
from everlora.core.roles import State, TaskContext
from everlora.core.updates import LowRank, Updates, concatenate, difference, stack
from everlora.learner import experiment
from everlora.learner.sequential import SequentialLearner
from everlora.parts.kronecker import KroneckerCurvature
from everlora.settings.spec import RunSpec
from everlora.training.calibration import mean_loss
from everlora.training.evidence import draw_rows, observe
from everlora.training.evidence_rows import Rows
from everlora.training.memory import Memory
from everlora.training.stages import Stage

Losses = dict[str, float]
"""Mean loss of one task, in nats per row, on the rows of its evidence and on rows that are held out (``real``)."""
METHODS = [f"kfac(lam=budget(nats={nats}))" for nats in ("1e-4", "3e-4", "1e-3")]


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
        self.rows.append({"evidence": draw_rows(self.part, stage, self.spec.seed), "real": held_out})
        self.losses.append([self.of_rows(model, each) for each in self.rows])
        for earlier in range(len(self.curvatures)):
            self.points.append(
                {
                    "earlier": self.plan[earlier].name,
                    "task": stage.name,
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

    def of_rows(self, model: nn.Module, rows: dict[str, Rows]) -> Losses:
        """The mean losses of one task."""
        return {kind: mean_loss(model, self.base.family, some) for kind, some in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--order", default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=100, help="rows of each task that are held out")
    parser.add_argument("--max-train-samples", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--lora-alpha", type=float, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/forecast.jsonl"))
    wish = parser.parse_args()
    typed = {
        "data_dir": wish.data_dir,
        "order": wish.order,
        "max_train_samples": wish.max_train_samples,
        "max_eval_samples": wish.rows,
        "lora": {"lora_alpha": wish.lora_alpha},
        "train": {"learning_rate": wish.learning_rate},
        "evaluation": {"schedule": "diagonal"},
    }
    base = None
    with tempfile.TemporaryDirectory(prefix="everlora-") as features:
        for seed in wish.seeds:
            for method in wish.method:
                own = {"method": method, "seed": seed, "feature_cache": features}
                spec = experiment.resolve(RunSpec, experiment.read_recipe(wish.config), typed, own)
                base = base or experiment.load_for(spec)
                run = {"method": method, "order": spec.order or 1, "seed": seed}
                points = [{**run, **point} for point in forecast(spec, copy.deepcopy(base))]
                replace_lines(wish.out, run, points)
                for point in points:
                    print(json.dumps(point), flush=True)


def replace_lines(path: Path, run: dict[str, object], points: list[dict[str, object]]) -> None:
    """Write the points of a run in place of those that the file has of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    others = [point for point in known if any(point[key] != value for key, value in run.items())]
    write_text(path, "".join(json.dumps(point) + "\n" for point in [*others, *points]))


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
