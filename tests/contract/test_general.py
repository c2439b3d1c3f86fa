"""General ability and forward transfer over a whole run: measured before and after, kept, resumed, undefined."""

from __future__ import annotations

import json

import pytest

import tiny_runs
from everlora.archive.identity import RunRecord
from everlora.archive.references import write_single_task_scores
from everlora.core.errors import FolderError
from everlora.evaluation.general import builtin
from everlora.learner import experiment
from everlora.models.loading import load
from everlora.settings.spec import EvalSpec, RunSpec

GENERAL = {"evaluation": {"schedule": "forward", "general": "builtin", "scoring": "labels"}}
FORMS = ("ella", "per-task", "ps-lora", "zero-shot", "mtl", "l2p", "progprompt", "seqft")


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Of the built-in sets a few; that they are whole is looked at elsewhere."""
    monkeypatch.setattr(builtin, "PASSAGES", builtin.PASSAGES[:1])
    monkeypatch.setattr(builtin, "QUESTIONS", builtin.QUESTIONS[:6])


def content(learner, tasks):
    learner.folder.write_matrix(learner.follow(tasks), learner.facts())
    return json.loads((learner.folder.path / "matrix.json").read_text())


@pytest.mark.parametrize("method", FORMS)
def test_every_form_is_measured_before_and_after(method, tmp_path):
    tasks = tiny_runs.stream("tiny-llama", 3)
    learner = tiny_runs.begin("tiny-llama", method, tmp_path / "run", **GENERAL)
    found = content(learner, tasks)
    untouched = builtin.measure(tiny_runs.fresh("tiny-llama").model, tiny_runs.base("tiny-llama").family)
    assert found["general"]["before"] == pytest.approx(untouched, rel=1e-6)
    stages = 3 if learner.method.regime == "sequence" else 1
    assert len(found["general"]["after"]) == stages
    assert found["chance"] == pytest.approx([50, 100 / 3, 50])
    last = found["general"]["after"][-1]
    assert found["metrics"]["general_delta"] == pytest.approx(last["probe"] - untouched["probe"], abs=1e-6)
    if method == "zero-shot":
        assert last == pytest.approx(untouched)
        assert found["base"] == found["matrix"][-1]
    else:
        assert last["perplexity"] != pytest.approx(untouched["perplexity"], rel=1e-6)
    if stages == 3:
        ahead = [found["matrix"][j - 1][j] for j in (1, 2)]
        gained = [a - b for a, b in zip(ahead, found["base"][1:], strict=True)]
        assert found["metrics"]["fwt_base"] == pytest.approx(sum(gained) / 2)
        assert found["metrics"]["fwt_chance"] is not None
        assert found["matrix"][0][2] is None
    if learner.method.task_id_at_inference:
        assert found["metrics"]["bwt"] == 0


def test_the_row_before_survives_an_interruption(tmp_path):
    tasks, out = tiny_runs.stream("tiny-llama"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.begin("tiny-llama", "ella", out, progress=tiny_runs.Cut("first", 1), **GENERAL).follow(tasks)
    sealed = (out / "before" / "COMMIT").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.begin("tiny-llama", "ella", out, resume=True, progress=tiny_runs.Cut(), **GENERAL).follow(tasks)
    again = tiny_runs.begin("tiny-llama", "ella", out, resume=True, **GENERAL)
    found = content(again, tasks)
    whole = content(tiny_runs.begin("tiny-llama", "ella", tmp_path / "whole", **GENERAL), tasks)
    assert (out / "before" / "COMMIT").read_bytes() == sealed
    for key in ("matrix", "metrics", "base", "general", "chance"):
        assert found[key] == whole[key]


def test_a_run_that_grows_in_a_new_process_knows_the_base_of_its_new_tasks(tmp_path):
    tasks, out = tiny_runs.stream("tiny-llama", 3), tmp_path / "run"
    tiny_runs.begin("tiny-llama", "ella", out, **GENERAL).follow(tasks[:2])
    grown = content(tiny_runs.begin("tiny-llama", "ella", out, resume=True, **GENERAL), tasks)
    assert None not in grown["base"]
    rows = [json.loads(line)["task"] for line in (out / "before" / "predictions.jsonl").read_text().splitlines()]
    assert sorted(set(rows)) == sorted(task.name for task in tasks)
    assert grown["metrics"]["fwt_base"] is None  # the cell before the third task was never asked


def test_another_run_does_not_take_over_the_row_before(tmp_path):
    tasks, out = tiny_runs.stream("tiny-llama"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.begin("tiny-llama", "ella", out, progress=tiny_runs.Cut("first", 1), **GENERAL).follow(tasks)
    other = tiny_runs.begin("tiny-llama", "ella", out, seed=5, **GENERAL)  # nothing was learned: it may start anew
    assert other.folder.before() is None


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_where_it_does_not_apply_one_line_says_so(model, tmp_path):
    watch = tiny_runs.Watch()
    learner = tiny_runs.begin(model, "ella", tmp_path / "run", progress=watch, **GENERAL)
    found = content(learner, tiny_runs.stream(model))
    assert [line for line in watch.warnings if "general ability is not measured" in line]
    assert "general" not in found
    assert "base" not in found
    assert found["metrics"]["general_delta"] is None
    assert found["metrics"]["fwt_base"] is None


def test_without_being_asked_nothing_is_measured_and_the_run_is_told_by_nothing_more(tmp_path):
    learner = tiny_runs.begin("tiny-llama", "ella", tmp_path / "run")
    learner.follow(tiny_runs.stream("tiny-llama"))
    assert not (tmp_path / "run" / "before").exists()
    record = learner.folder.record
    evaluation = {"scoring": "labels", "schedule": "final"}  # what earlier versions had to set
    assert (
        RunRecord.of(record.settings.model_copy(update={"evaluation": EvalSpec(**evaluation)}), record.composition).id
        == record.id
    )


def test_tasks_learned_alone_give_intransigence(tmp_path):
    flags = {
        "model": "tiny-llama", "tasks": ["reviews", "news"], "max_train_samples": 16, "max_eval_samples": 6,
        "train": {"max_steps": 2}, "evaluation": {"scoring": "labels"}, "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    alone = experiment.run(experiment.resolve(RunSpec, flags, {"method": "per-task"}), tmp_path / "alone")
    spec = experiment.resolve(RunSpec, flags, {"method": "seqlora"})
    run = experiment.run(spec, tmp_path / "run", single=tmp_path / "alone")
    assert run.record.single == list(alone.matrix.diagonal)
    gaps = [s - a for s, a in zip(alone.matrix.diagonal, run.matrix.diagonal, strict=True)]
    assert run.record.metrics["intransigence"] == pytest.approx(sum(gaps) / 2)
    with pytest.raises(FolderError, match="needs a run with per-task"):
        experiment.run(spec, tmp_path / "more", single=tmp_path / "run")
    other = experiment.resolve(RunSpec, flags, {"method": "seqlora", "stream_seed": 3})
    with pytest.raises(FolderError, match="did not learn task 'reviews', or from other rows"):
        experiment.run(other, tmp_path / "more", single=tmp_path / "alone")
    with pytest.raises(FolderError, match="has other scores"):
        write_single_task_scores(tmp_path / "run", tmp_path / "x", {"reviews": 1.0})


def test_training_texts_that_were_cut_are_counted(tmp_path):
    tasks = (tiny_runs.text_task("long", ("yes", "no"), seed=1), tiny_runs.text_task("short", ("yes", "no"), seed=2))
    family = tiny_runs.base("tiny-llama").family
    limit = 24
    cut = {t.name: sum(len(family.prompter.prompt(row, t, room=8)[0]) > limit for row in t.train) for t in tasks}
    loaded = load("tiny-llama", dtype="float32", device="cpu", max_source_length=limit)
    learner = tiny_runs.begin("tiny-llama", "seqlora", tmp_path / "run", loaded=loaded, max_source_length=limit)
    assert content(learner, tasks)["cut"] == cut
    assert 0 < cut["long"] < 24
