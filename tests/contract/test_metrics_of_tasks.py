"""A task's metric, from the answers to the run's record; and prompts that are cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_runs
from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.learner import experiment
from everlora.metrics import answer_metrics
from everlora.models.families.base import Limits
from everlora.models.families.prompt import Prompter


def test_scores_and_rows_left_out_reach_the_record(tmp_path: Path) -> None:
    plain, scored = tiny_runs.stream("tiny-llama")
    rows = tuple(replace(row, also=(row.target + " indeed",)) for row in scored.test)
    scored = replace(scored, test=rows, metric="rouge_l", left_out={"train: test has the same text": 3})
    learner = tiny_runs.train_sequence("tiny-llama", "seqlora", tmp_path / "run", tasks=(plain, scored))
    record = experiment.finish(learner, learner.follow((plain, scored))).record
    assert record.metric == {scored.name: "rouge_l"}
    assert record.left_out == {scored.name: {"train: test has the same text": 3}}
    assert len(str(record.order_digest)) == 16
    stage = learner.folder.stages()[-1]
    assert stage.facts.metric == record.metric
    found = [json.loads(line) for line in stage.predictions.read_text().splitlines()]
    of_task = {name: [row for row in found if row["task"] == name] for name in (plain.name, scored.name)}
    assert all("score" not in row and "correct" in row for row in of_task[plain.name])
    asked = zip(of_task[scored.name], rows, strict=True)
    wanted = [answer_metrics()["rouge_l"].row(row.answered(said["prediction"])) for said, row in asked]
    assert [row["score"] for row in of_task[scored.name]] == pytest.approx(wanted, abs=1e-6)
    assert record.matrix[1][1] == pytest.approx(sum(wanted) / len(wanted))
    text = (tmp_path / "run" / "README.md").read_text()
    assert "rouge l after the last task" in text
    assert "exact match after the last task" in text


def test_a_prompt_of_its_own_is_cut_in_the_middle() -> None:
    tokenizer = tiny_runs.base("tiny-llama").family.processor
    one = Example("Say it. " + "word " * 40 + "Answer:", "yes")
    task = Task(name="t", train=(one,), test=(one,), form="prompted")
    whole, none = Prompter(tokenizer, Limits(context=4096)).prompt(one, task, room=4)
    assert none == 0
    ids, cut = Prompter(tokenizer, Limits(context=4096, source=21)).prompt(one, task, room=4)
    assert (len(ids), cut) == (21, len(whole) - 21)
    assert ids == [*whole[:11], *whole[-10:]]
    with pytest.raises(DataError, match="set --max-source-length to cut prompts in the middle"):
        Prompter(tokenizer, Limits(context=20)).prompt(one, task, room=4)
