"""What was learned stands before it is scored: a process that ends between the two has only scores to make up for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_runs
from everlora.archive.folder import stages
from everlora.learner import experiment
from everlora.learner.sequential import SequentialLearner

FULL = {"evaluation": {"schedule": "full", "scoring": "labels"}}
PAIRS = [
    ("ella", "tiny-llama"),
    ("ps-lora", "tiny-bert"),
    ("lb-cl", "tiny-t5"),
    ("seqlora", "tiny-llama"),
    ("ewc", "tiny-vit"),
    ("per-task", "tiny-bert"),
    ("zero-shot", "tiny-llama"),
]


def run(method: str, model: str, out: Path, **options: Any) -> SequentialLearner:
    learner = tiny_runs.begin(model, method, out, **FULL, **options)
    experiment.finish(learner, learner.follow(tiny_runs.stream(model, 3)))
    return learner


def answers(folder: Path) -> list[bytes]:
    return [stage.predictions.read_bytes() for stage in stages(folder)]


def matrix(folder: Path) -> list[list[float | None]]:
    return json.loads((folder / "matrix.json").read_text())["matrix"]


@pytest.mark.parametrize("at", ["second", "third"])
@pytest.mark.parametrize(("method", "model"), PAIRS)
def test_only_the_scores_are_made_again(method: str, model: str, at: str, tmp_path: Path) -> None:
    """The process ends while the newest task is answered; another one answers byte for byte as it would have."""
    last = "third" if method == "zero-shot" else at
    number = 1 if method == "zero-shot" else {"second": 2, "third": 3}[at]
    run(method, model, tmp_path / "whole")

    def cut(task: str) -> None:
        if task == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(method, model, tmp_path / "cut", progress=tiny_runs.Watch(answering=cut))
    left = stages(tmp_path / "cut")
    assert [stage.evaluated for stage in left] == [True] * (number - 1) + [False]
    before = {path: path.read_bytes() for stage in left for path in stage.path.rglob("*") if path.is_file()}

    learned: list[str] = []
    torch.manual_seed(12345)
    again = run(method, model, tmp_path / "cut", resume=True, progress=tiny_runs.Watch(learning=learned.append))
    assert learned == ([] if method == "zero-shot" else list(tiny_runs.NAMES[number:]))
    assert {path: path.read_bytes() for path in before} == before
    assert answers(tmp_path / "cut") == answers(tmp_path / "whole")
    assert matrix(tmp_path / "cut") == matrix(tmp_path / "whole")
    if method != "zero-shot":
        for name in ("adapter_model.safetensors", f"tasks/03-third/{'adapter_model.safetensors'}"):
            assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [stage.evaluated for stage in again.folder.stages()] == [True] * len(left[: number - 1] + learned + [at])
