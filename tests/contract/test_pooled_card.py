"""A stranger with transformers and PEFT gets the learner's answers by the lines of its model card."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny_runs
from everlora.archive.records import Fingerprint
from everlora.archive.results import MatrixRecord
from everlora.archive.schema import read_json
from everlora.learner import experiment
from oracle import models


@pytest.mark.parametrize(
    ("kind", "method", "pooling"),
    [("bert", "inclora", "mean"), ("roberta", "seqlora", "cls"), ("bert", "seqft", "cls")],
)
def test_the_lines_of_the_card_give_the_learners_answers(kind: str, method: str, pooling: str, tmp_path: Path) -> None:
    folder, out = models.build("encoder", kind, tmp_path), tmp_path / "run"
    switch = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({switch: True}))
    settings: dict[str, Any] = {"evaluation": {"schedule": "diagonal"}}
    learner = tiny_runs.begin(str(folder), method, out, **settings)
    experiment.finish(learner, learner.follow(tiny_runs.stream("tiny-bert")))
    found = read_json(MatrixRecord, out / "matrix.json")
    prints: list[Fingerprint] = list(found.fingerprints.of.values())
    assert [one.model_dump()["pooling"] for one in prints] == [pooling]

    card = (out / "README.md").read_text()
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "def answer" in block]
    assert "everlora" not in lines
    asked = {
        task.name: ([row.input for row in task.train], learner.base.family.label_rows(task))
        for task in tiny_runs.stream("tiny-bert")
    }
    given = tmp_path / "given.json"
    given.write_text(json.dumps(asked))
    more = f"import json\nprint(json.dumps([answer(*one) for one in json.load(open({str(given)!r})).values()]))"
    done = subprocess.run([sys.executable, "-c", f"{lines}\n{more}"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, family = learner.inference_model(), learner.base.family
    expected = [family.predict(model, task, task.train, "labels") for task in tiny_runs.stream("tiny-bert")]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    assert len({word for words in expected for word in words}) > 2  # they are not all the same
