"""A learner follows a protocol to the letter: rows, prompt, steps by task; what stands beside the scores."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from torch import nn

import tiny_runs
from everlora import Learner
from everlora.analysis import answers, tables
from everlora.core.errors import ConfigError, DataError
from everlora.evaluation.evaluator import Evaluator
from everlora.models import environment
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec

SMALL = {"dtype": "float32", "device": "cpu", "lora": {"r": 2, "lora_alpha": 4}}


def written(path, **settings):
    path.write_text(json.dumps({"title": "t", "settings": settings}))  # JSON is YAML
    return str(path)


def test_a_learner_takes_a_protocol_with_rows_per_class_and_steps_by_task(tmp_path):
    wanted = written(
        tmp_path / "mine.yaml",
        max_train_per_class=3,
        max_eval_per_class=1,
        metric="macro_f1",
        train={"max_steps": 2, "logging_steps": 1},
        train_of={"second": {"max_steps": 4}},
        evaluation={"scoring": "labels"},
    )
    tasks = tiny_runs.stream("tiny-llama")
    learner = Learner("tiny-llama", method="seqlora", out=tmp_path / "run", protocol=wanted, **SMALL)
    matrix = learner.follow(tasks)
    seen = [len({row.target for row in task.test}) for task in tasks]
    assert list(matrix.counts) == seen
    content = json.loads((tmp_path / "run" / "matrix.json").read_text())
    assert content["metric"] == {"first": "macro_f1", "second": "macro_f1"}
    assert content["protocol"]["name"] == "mine"
    assert content["protocol"]["changed"] is True  # lora.r
    logs = [(stage.path / "training.jsonl").read_text().splitlines() for stage in learner._learner.folder.stages()]
    steps = [max(json.loads(line)["step"] for line in log) for log in logs]
    assert steps == [2, 4]


def test_arguments_of_tasks_that_are_not_there(tmp_path):
    learner = Learner("tiny-llama", out=tmp_path / "run", train_of={"frist": {"max_steps": 1}}, **SMALL)
    with pytest.raises(ConfigError, match="train_of names frist, and the tasks here are first, second"):
        learner.follow(tiny_runs.stream("tiny-llama"))


def test_classes_are_counted_where_there_are_some(tmp_path):
    free = replace(tiny_runs.stream("tiny-llama")[0], labels=())
    learner = Learner("tiny-llama", out=tmp_path / "run", max_train_per_class=3, **SMALL)
    with pytest.raises(DataError, match="no label set, so its rows cannot be counted per class"):
        learner.follow([free])


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_the_prompt_that_a_model_reads_is_the_template(model):
    from everlora.learner import experiment

    spec = tiny_runs.spec(model, "seqlora", prompt="About {task}.\n{instruction}\n<{text}> [{labels}]")
    family, task = experiment.load_for(spec).family, tiny_runs.stream(model)[0]
    row = task.test[0]
    ids, cut = family.prompter.prompt(row, task, room=8)
    said = family.processor.decode(ids, skip_special_tokens=True)
    wanted = f"About {task.name}. {task.instruction} <{row.input}> [{', '.join(task.labels)}]"
    assert cut == 0
    assert said.split() == wanted.split()


def test_every_row_says_how_it_was_made_and_what_differs_needs_a_flag(tmp_path, monkeypatch):
    tasks = tiny_runs.stream("tiny-llama")
    tiny_runs.train_sequence("tiny-llama", "seqlora", tmp_path / "a", tasks)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-llama", "seqlora", tmp_path / "b", tasks, progress=tiny_runs.Cut(), seed=1)
    part = json.loads((tmp_path / "b" / "matrix.json").read_text())
    assert len(part["protocol"]["hash"]) == 12  # also of an unfinished run
    assert len(part["fingerprints"]["rows"]) == 1
    known = environment._version
    monkeypatch.setattr(environment, "_version", lambda name: "99.0" if name == "torch" else known(name))
    tiny_runs.train_sequence("tiny-llama", "seqlora", tmp_path / "b", tasks, resume=True, seed=1)
    content = json.loads((tmp_path / "b" / "matrix.json").read_text())
    first, second = content["fingerprints"]["rows"]
    of = content["fingerprints"]["of"]
    assert part["fingerprints"]["rows"] == [first]
    assert [of[key]["versions"]["torch"] == "99.0" for key in (first, second)] == [False, True]
    for key in ("backend", "weights", "device", "scoring"):
        assert of[first][key] == {"backend": "torch", "weights": "float32", "device": "cpu", "scoring": "labels"}[key]
    runs = [answers.read(tmp_path / name) for name in "ab"]
    with pytest.raises(ConfigError) as error:
        tables.compare(runs, resamples=100)
    said = str(error.value)
    assert f"torch {known('torch')} and 99.0" in said
    assert "--mixed-fingerprints" in said
    assert "\n" not in said
    with pytest.raises(ConfigError, match="were made in different ways"):
        tables.compare(runs[1:], resamples=100)  # one run of two versions is no less mixed
    table = tables.compare(runs, resamples=100, mixed_fingerprints=True)
    assert set(table.fingerprints) == {first, second}
    assert table.sections[0].rows[0].protocols == [content["protocol"]["hash"]]


class Crowd:
    """A family that answers by how many rows are asked at once."""

    name = "crowd"

    def length(self, row, task):
        return len(row.input)

    def predict(self, model, task, rows, scoring):
        return [str(len(rows) > 1)] * len(rows)


def test_an_answer_that_depends_on_its_neighbours_is_seen(monkeypatch):
    base = tiny_runs.base("tiny-llama")
    task = replace(tiny_runs.stream("tiny-llama")[0], labels=())
    for family, invariant in ((base.family, True), (Crowd(), False)):
        how = EvalSpec(scoring="labels" if invariant else "generate", batch_size=4)
        evaluator = Evaluator(replace(base, family=family), how)
        assert evaluator.batch_invariant is None
        asked = tiny_runs.stream("tiny-llama")[0] if invariant else task
        evaluator.evaluate(base.model if invariant else nn.Linear(1, 1), [asked], Progress())
        assert evaluator.batch_invariant is invariant
