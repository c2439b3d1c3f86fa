"""What would other merges of the same updates answer? One finished run under several merges, without training.

With ``train_past=sum`` a merge changes answers and nothing else, so `inclora+ps-merge` is an IncLoRA run answered
otherwise: the last row of its matrix is found here.

python benchmarks/merges.py runs/builtin-small/inclora-seed0 --merges sum ps-merge ties dare mean-merge
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

import everlora.methods  # noqa: F401
from everlora.adapters import files as adapters
from everlora.adapters.lora import LoraBackend
from everlora.analysis.runs import Run
from everlora.core.expressions import parse
from everlora.evaluation.evaluator import score_task
from everlora.learner import experiment
from everlora.settings.spec import RunSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--merges", nargs="+", default=["sum", "ps-merge", "ties", "dare", "mean-merge"])
    parser.add_argument("--data-dir", type=Path)
    wish = parser.parse_args()
    run = Run.read(wish.run)
    if run.method.consolidator.rule != "sum":
        parser.error(f"{run.method.name} does not sum fresh adapters")
    spec = experiment.resolve(RunSpec, run.settings, {"data_dir": wish.data_dir, "dtype": run.weights()})
    base = experiment.load_for(spec)
    tasks, past, how = experiment.stream_for(spec, base).tasks, run.past(), spec.evaluation
    backend = LoraBackend(base, spec.lora.model_dump(exclude_none=True), spec.past)
    base.family.prepare(base.model, tasks, torch.Generator())
    backend.attach(seed=0)
    backend.restore_head(adapters.read(run.stages[-1].path)[1])
    backend.detach()
    print("| answers from | OA | " + " | ".join(task.name for task in tasks) + " |")
    print("|---" * (2 + len(tasks)) + "|")
    answer = partial(score_task, scoring=how.scoring, batch_size=how.batch_size, split=how.split)
    for name in wish.merges:
        backend.set_past(past, None if name == "sum" else parse(name).merge)
        scores = [answer(base.model, base.family, task).score for task in tasks]
        print(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in [sum(scores) / len(scores), *scores]) + " |")


if __name__ == "__main__":
    main()
