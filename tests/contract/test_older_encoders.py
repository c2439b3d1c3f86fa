"""Folders that an earlier everlora learned on an encoder: other pooling, and labels of one name in one row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_runs
from everlora import Example, Task
from everlora.core.errors import FolderError
from everlora.learner import experiment
from oracle import models
from sealing import edit, read


def test_a_learner_pools_as_it_did_when_it_learned(tmp_path: Path) -> None:
    """A checkpoint without a dense layer got a random one; now its tokens' mean is read, but not in this folder."""
    model, out = str(models.build("encoder", "roberta", tmp_path)), tmp_path / "run"
    spec = tiny_runs.spec(model, "inclora")
    before = tiny_runs.train_sequence(model, "inclora", out, loaded=tiny_runs.fresh(model, pooling="head"))
    assert read(out / "environment.json")["pooling"] == "head"
    edit(out / "environment.json", lambda noted: noted.pop("pooling"))
    with pytest.raises(FolderError, match="was learned with pooling head and would go on with mean"):
        tiny_runs.begin(model, "inclora", out, resume=True)
    loaded = experiment.load_for(spec, out)
    assert loaded.family.pooling == "head"  # type: ignore[attr-defined]
    after = tiny_runs.begin(model, "inclora", out, resume=True, loaded=loaded)
    after.follow(tiny_runs.stream("tiny-bert"))
    for task in tiny_runs.stream("tiny-bert"):
        here, there = (tiny_runs.outputs(one.inference_model(), one.base.family, task) for one in (after, before))
        assert torch.equal(here, there)
    assert experiment.load_for(spec, tmp_path / "none").family.pooling == "mean"  # type: ignore[attr-defined]


def test_labels_that_shared_a_row_go_on_sharing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Example("a film", "no"), Example("a team", "yes")]
    tasks = [Task(name=name, train=rows, test=rows, labels=("no", "yes")) for name in ("a", "b", "c")]
    with monkeypatch.context() as patched:
        patched.setattr(Task, "shares_labels", True)
        before = tiny_runs.train_sequence("tiny-bert", "seqlora", tmp_path / "run", tasks[:2])
    after = tiny_runs.begin("tiny-bert", "seqlora", tmp_path / "run", resume=True)
    after.follow(tasks[:2])
    assert tiny_runs.largest_difference(tiny_runs.adapter(after), tiny_runs.adapter(before)) == 0
    after.follow(tasks)
    assert [after.base.family.label_rows(task) for task in tasks] == [[0, 1], [0, 1], [2, 3]]
