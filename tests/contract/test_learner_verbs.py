"""A learner that is taught task by task, each time from its folder alone, is the one that follows them all at once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny_runs
from everlora import Example, Learner, Task
from everlora.archive.folder import read_run, stages
from everlora.archive.manifest import read_manifest
from everlora.core.errors import ConfigError, DataError, FolderError
from everlora.learner.learned import TESTS
from everlora.learner.opened import create
from everlora.training import rehearsal

SETTINGS: dict[str, Any] = {
    "dtype": "float32", "device": "cpu", "seed": 3, "lora": {"r": 2, "lora_alpha": 4},
    "evaluation": {"scoring": "labels", "schedule": "full"}, "max_new_tokens": 4,
}  # fmt: skip
TRAIN = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 2e-2}


def made(out: Path, method: str = "ella", model: str = "tiny-llama") -> Path:
    create(out, {"model": model, "method": method, **SETTINGS}, by="ada", because="to see")
    return out


def opened(out: Path) -> Learner:
    """As another process would open it."""
    return Learner.open(out, device="cpu")


def taught(out: Path, tasks: Sequence[Task], method: str = "ella", model: str = "tiny-llama", **more: Any) -> Path:
    made(out, method, model)
    for task in tasks:
        opened(out).learn(task, train=TRAIN, **more)
    return out


def weights(out: Path) -> dict[str, bytes]:
    """Every tensor that was learned or is remembered, by file."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.safetensors"))}


@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("ella", "tiny-llama"),
        ("seqlora", "tiny-llama"),
        ("ella(store=svd,store_rank=1)+replay(ratio=0.5)", "tiny-llama"),
        ("lb-cl", "tiny-t5"),
        ("lfpt5", "tiny-t5"),
        ("ps-lora", "tiny-bert"),
        ("lwf", "tiny-bert"),
        ("per-task", "tiny-bert"),
        ("ewc", "tiny-vit"),
        ("inflora", "tiny-vit"),
    ],
)
def test_taught_one_by_one_equals_following_them_all(method: str, model: str, tmp_path: Path) -> None:
    """Bit for bit, though the rows of earlier tasks are given to nobody any more."""
    tasks = tiny_runs.stream(model, 3)
    here = taught(tmp_path / "taught", tasks, method, model)
    there = tmp_path / "followed"
    Learner(model, method=method, out=there, train=TRAIN, **SETTINGS).follow(tasks)
    found, expected = weights(here), weights(there)
    assert len(found) > 3
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    # What no process had rows of was not answered; what it had, as in the other.
    ours, theirs = (json.loads((out / "matrix.json").read_text())["matrix"] for out in (here, there))
    assert [ours[k][k] for k in range(3)] == [theirs[k][k] for k in range(3)]
    # No setting of a task is one of the learner.
    assert read_run(here).settings.train == read_run(made(tmp_path / "new", method, model)).settings.train


def test_the_data_may_be_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line, with files that are gone when the next task is taught."""
    followed = []
    for one in tiny_runs.stream("tiny-bert", 3):
        seen = {row.input for row in one.test}  # a file of test rows that are in another is refused
        task = replace(one, train=[row for row in one.train if row.input not in seen])
        for split in ("train", "test"):
            rows = [{"text": row.input, "label": row.target} for row in getattr(task, split)]
            (tmp_path / f"{task.name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        followed.append(task)
    out = tmp_path / "taught"
    common = ("--model", "tiny-bert", "--method", "ella", "--seed", "3", "--dtype", "float32", "--device", "cpu")
    command(capsys, "init", str(out), *common, "--lora-r", "2", "--lora-alpha", "4", "--max-new-tokens", "4")
    for task in followed:
        files = [tmp_path / f"{task.name}-{split}.jsonl" for split in ("train", "test")]
        said = command(
            *(capsys, "learn", str(out), "--name", task.name, "--data", str(files[0]), "--test", str(files[1])),
            *("--instruction", task.instruction, "--labels", ",".join(task.labels), "--device", "cpu"),
            *("--max-steps", "2", "--per-device-train-batch-size", "8", "--learning-rate", "2e-2", "--json"),
        )
        assert json.loads(said.splitlines()[-1])["scores"].keys() == {task.name}
        for file in files:
            file.unlink()
    there = tmp_path / "followed"
    Learner("tiny-bert", method="ella", out=there, train=TRAIN, **{**SETTINGS, "evaluation": {}}).follow(followed)
    assert weights(out) == weights(there)


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    from everlora.cli.app import run_command

    capsys.readouterr()
    status = run_command(list(argv))
    found = capsys.readouterr()
    assert not status, found.err
    return found.out


# --- learn -----------------------------------------------------------------------------------------------------------


def test_a_task_says_what_came_of_it(tmp_path: Path) -> None:
    first, second = tiny_runs.stream("tiny-bert")
    out = made(tmp_path / "a", model="tiny-bert")
    one = opened(out).learn(first, by="ada", because="new", keep_probe=2, train=TRAIN)
    assert (one.task, one.number, one.before, one.scores.keys()) == ("first", 1, {}, {"first"})
    two = opened(out).learn(second, train={**TRAIN, "max_steps": 1})
    assert (two.number, two.before, two.scores.keys()) == (2, one.scores, {"first", "second"})
    assert [len((s.path / "training.jsonl").read_text().splitlines()) > 0 for s in stages(out)] == [True, True]
    history = [stage.facts.history for stage in stages(out)]
    assert [(entry.by, entry.because, entry.train["max_steps"]) for entry in history if entry] == [
        ("ada", "new", 2),
        (None, None, 1),
    ]
    acts = opened(out).history()
    assert [(act.act, act.tasks, act.by, act.because) for act in acts] == [
        ("init", [], "ada", "to see"),
        ("learn", ["first"], "ada", "new"),
        ("learn", ["second"], None, None),
    ]
    assert [act.date for act in acts] == sorted(act.date for act in acts)


def test_a_name_is_taken_by_one_task(tmp_path: Path) -> None:
    first, second = tiny_runs.stream("tiny-bert")
    out = taught(tmp_path / "a", (first, second), model="tiny-bert")
    before = weights(out)
    for task, why in (
        (tiny_runs.text_task("first", ("yes", "no"), seed=9), "'first' is the name of a task that it has learned"),
        (first, "'first' is learned already"),
    ):
        with pytest.raises(FolderError, match=f"{why}; give the new task another --name"):
            opened(out).learn(task, train=TRAIN)
    opened(out).learn(second, train=TRAIN)  # the newest again: what a process had left undone, which here is nothing
    assert weights(out) == before


def test_what_was_cut_off_before_its_scores_is_made_up_for_by_the_same_call(tmp_path: Path) -> None:
    tasks = tiny_runs.stream("tiny-bert")
    whole, out = (
        taught(tmp_path / "whole", tasks, model="tiny-bert"),
        taught(tmp_path / "a", tasks[:1], model="tiny-bert"),
    )

    def cut(task: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Learner.open(out, device="cpu", progress=tiny_runs.Watch(answering=cut)).learn(tasks[1], train=TRAIN)
    assert [stage.evaluated for stage in stages(out)] == [True, False]
    again = opened(out).learn(tasks[1], train=TRAIN)
    assert again.number == 2
    assert weights(out) == weights(whole)
    assert [s.predictions.read_bytes() for s in stages(out)] == [s.predictions.read_bytes() for s in stages(whole)]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("mtl", "learns no task after another"),
        ("zero-shot", "learns no task after another"),
        ("ella+replay(resample=each-task)", "draws rows from the data of all earlier tasks each time"),
    ],
)
def test_methods_that_need_all_data_are_refused(method: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        made(tmp_path / "a", method, "tiny-bert")
    assert not (tmp_path / "a").exists()
    first, second = tiny_runs.stream("tiny-bert")
    Learner("tiny-bert", method=method, out=tmp_path / "run", train=TRAIN, **SETTINGS).follow([first])
    before = weights(tmp_path / "run")
    with pytest.raises(ConfigError, match=why):
        opened(tmp_path / "run").learn(second, train=TRAIN)
    assert weights(tmp_path / "run") == before


# --- init ------------------------------------------------------------------------------------------------------------


def test_a_full_folder_is_no_place_for_a_new_learner(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("ten years")
    (tmp_path / "file").write_text("x")
    for place in ("mine", "file"):
        with pytest.raises(
            FolderError, match="exists and is not empty; choose another folder, or teach what it holds"
        ):
            made(tmp_path / place, model="tiny-bert")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "thesis.tex"]
    made(tmp_path / "a", model="tiny-bert")
    with pytest.raises(FolderError, match="exists and is not empty"):
        made(tmp_path / "a", model="tiny-bert")
    (tmp_path / "empty").mkdir()
    made(tmp_path / "empty", model="tiny-bert")


def test_a_new_learner_is_whole_and_knows_nothing(tmp_path: Path) -> None:
    out = made(tmp_path / "a", model="tiny-bert")
    manifest = read_manifest(out)
    assert manifest is not None
    assert (manifest.run, manifest.tasks) == (read_run(out).id, [])
    for verb in (lambda: opened(out).ask(["who?"]), lambda: opened(out).evaluate()):
        with pytest.raises(FolderError, match="holds no learned task yet; teach it one"):
            verb()


# --- eval ------------------------------------------------------------------------------------------------------------


def test_test_rows_that_may_be_kept_are(tmp_path: Path) -> None:
    tasks = tiny_runs.stream("tiny-bert")
    out = taught(tmp_path / "a", tasks, model="tiny-bert", keep_probe=2)
    kept = [task for stage in stages(out) for task in rehearsal.read_rows(stage.path / TESTS)]
    for task, known in zip(tasks, kept, strict=True):
        assert (known.name, len(known.train)) == (task.name, 2)
        assert set(known.train) <= set(task.test)
    before = [stage.facts.row for stage in stages(out)]
    found = opened(out).evaluate()
    assert (found.rows, found.missing) == ({"first": 2, "second": 2}, [])
    assert found.other_rows == ["first", "second"], "two of six rows are not those that it was scored on"
    assert [stage.facts.row for stage in stages(out)] == before
    assert taught(tmp_path / "b", tasks[:1], model="tiny-bert")
    assert not (stages(tmp_path / "b")[0].path / TESTS).exists()
    assert opened(tmp_path / "b").evaluate().missing == ["first"]


def test_scores_now_stand_beside_those_when_it_was_learned(tmp_path: Path) -> None:
    first, second = tiny_runs.stream("tiny-bert")
    out = taught(tmp_path / "a", (first, second), model="tiny-bert")
    before = stages(out)
    assert before[-1].facts.row[0] is None, "nobody had its rows"
    found = opened(out).evaluate({"first": first.test, "second": second.test})
    assert found.when_learned == {"first": before[0].facts.row[0], "second": before[1].facts.row[1]}
    assert (found.rows, found.missing, found.other_rows) == ({"first": 4, "second": 4}, [], [])
    assert found.scores["second"] == found.when_learned["second"]
    now = stages(out)
    assert now[-1].facts.row == [found.scores["first"], found.scores["second"]]
    assert (now[0].facts, now[-1].evaluation) == (before[0].facts, now[-1].path / "evaluation-2")
    matrix = json.loads((out / "matrix.json").read_text())["matrix"]
    assert matrix == [[before[0].facts.row[0], None], now[-1].facts.row]
    there = tmp_path / "followed"
    Learner("tiny-bert", method="ella", out=there, train=TRAIN, **SETTINGS).follow((first, second))
    assert json.loads((there / "matrix.json").read_text())["matrix"] == matrix
    assert sorted(now[-1].predictions.read_text().splitlines()) == sorted(
        stages(there)[-1].predictions.read_text().splitlines()
    )


def test_scores_on_other_rows_are_shown_and_not_noted(tmp_path: Path) -> None:
    first, second = tiny_runs.stream("tiny-bert")
    out = taught(tmp_path / "a", (first, second), model="tiny-bert")
    before = {path: path.read_bytes() for path in (out / "tasks").rglob("*") if path.is_file()}
    found = opened(out).evaluate({"first": first.train[:3]})
    assert (found.rows, found.other_rows, found.missing) == ({"first": 3}, ["first"], ["second"])
    assert {path: path.read_bytes() for path in (out / "tasks").rglob("*") if path.is_file()} == before
    opened(out).evaluate({"first": first.train[:3], "second": second.test})
    assert stages(out)[-1].facts.row[0] is None
    with pytest.raises(ConfigError, match=r"has not learned 'frist'.*'first'"):
        opened(out).evaluate({"frist": first.test})


def test_test_rows_that_are_where_they_were_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"a {w} film {k}", "label": w} for k in range(6) for w in ("good", "bad")]
    for name, part in (("train", rows[:8]), ("test", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    out = made(tmp_path / "a", model="tiny-bert")
    data = ("--data", str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "test.jsonl"))
    command(capsys, "learn", str(out), "--name", "films", *data, "--max-steps", "1", "--device", "cpu", "-q")
    said = json.loads(command(capsys, "eval", str(out), "--json", "--device", "cpu").splitlines()[-1])
    assert (said["rows"], said["missing"], said["other_rows"]) == ({"films": 4}, [], [])
    assert said["scores"] == said["when_learned"]
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]) + "\n")  # they are others now
    said = json.loads(command(capsys, "eval", str(out), "--json", "--device", "cpu").splitlines()[-1])
    assert (said["rows"], said["missing"]) == ({}, ["films"])
    given = ("--data", f"films={tmp_path / 'test.jsonl'}")
    said = json.loads(command(capsys, "eval", str(out), *given, "--json", "--device", "cpu").splitlines()[-1])
    assert (said["rows"], said["other_rows"]) == ({"films": 1}, ["films"])


# --- ask -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "model"), [("ella", "tiny-bert"), ("per-task", "tiny-bert"), ("ella", "tiny-llama")]
)
def test_it_answers_as_a_row_of_a_task(method: str, model: str, tmp_path: Path) -> None:
    first, second = tiny_runs.stream(model)
    out = taught(tmp_path / "a", (first, second), method, model)
    texts = [str(row.input) for row in first.test]
    learner = opened(out)
    of_first, of_newest = learner.ask(texts, task="first"), learner.ask(texts)
    assert set(of_first) <= set(first.labels)
    assert set(of_newest) <= set(second.labels)
    assert learner.ask(texts, task="second") == of_newest
    assert learner.ask(texts[:1], task="first") == of_first[:1], "whatever was asked before"
    # As its own evaluation answers the same rows.
    learner.evaluate({"first": first.test})
    rows = [json.loads(line) for line in stages(out)[-1].predictions.read_text().splitlines()]
    assert [row["prediction"] for row in rows if row["task"] == "first"] == of_first


def test_a_question_that_is_none_is_refused(tmp_path: Path) -> None:
    learner = opened(taught(tmp_path / "a", tiny_runs.stream("tiny-bert")[:1], model="tiny-bert"))
    with pytest.raises(DataError, match="the question is empty"):
        learner.ask([" "])
    with pytest.raises(DataError, match="has texts for rows, and the question is none"):
        learner.ask([[{"role": "user", "content": "who?"}]])
    with pytest.raises(ConfigError, match=r"has not learned 'frist'.*it knows first"):
        learner.ask(["who?"], task="frist")


def test_questions_come_from_the_line_a_file_or_stdin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    first, second = tiny_runs.stream("tiny-bert")
    out = str(taught(tmp_path / "a", (first, second), model="tiny-bert"))
    texts = [str(row.input) for row in first.test[:3]]
    expected = Learner.open(out, device="cpu").ask(texts, task="first")
    here = ("--task", "first", "--device", "cpu")
    assert command(capsys, "ask", out, *texts, *here).splitlines() == expected
    lines = f"{texts[0]}\n\n{json.dumps({'text': texts[1]})}\n{json.dumps(texts[2])}\n"
    (tmp_path / "q.jsonl").write_text(lines)
    assert command(capsys, "ask", out, "--file", str(tmp_path / "q.jsonl"), *here).splitlines() == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    found = [json.loads(line) for line in command(capsys, "ask", out, "--file", "-", *here, "--json").splitlines()]
    assert found == [{"question": q, "answer": a, "task": "first"} for q, a in zip(texts, expected, strict=True)]


# --- the card --------------------------------------------------------------------------------------------------------


def test_a_card_says_what_a_task_is_without_its_rows(tmp_path: Path) -> None:
    task = tiny_runs.text_task("news", ("no", "great music"), seed=3)
    out = taught(tmp_path / "a", [task])
    card = stages(out)[0].facts.cards["news"]
    assert (card.labels, card.instruction, card.form) == (["no", "great music"], "Answer it.", "labelled")
    assert card.rows == {"train": 24, "test": 4}
    text = (out / "tasks/01-news/COMMIT").read_text()
    assert not [row for row in (*task.train, *task.test) if len(str(row.input)) > 12 and str(row.input) in text]


def test_a_bad_row_of_the_new_task_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    out = taught(tmp_path / "a", tiny_runs.stream("tiny-llama")[:1])
    before = weights(out)
    rows = [Example("a b", "b a"), Example("c d", "d c")]
    free = Task(name="free", instruction="Say it.", metric="rouge_l", train=rows, test=rows)
    with pytest.raises(DataError, match=re.escape("task 'free' has no label set to score")):
        opened(out).learn(free, train=TRAIN)
    assert weights(out) == before
