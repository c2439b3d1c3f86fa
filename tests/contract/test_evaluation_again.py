"""An evaluation that was broken off goes on where it was, and test rows may be kept later than a task was learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everlora.archive import answers_so_far
from everlora.archive.answers_so_far import FILE, AnswersSoFar
from everlora.archive.committed import read_stages
from everlora.core.errors import ConfigError
from everlora.data.task import Task
from everlora.learner.opened import load_learner, tasks_of
from everlora.learner.sequential import SequentialLearner
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.evaluate import evaluate, judge
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.rollback import rollback
from everlora.learner.verbs.verify import verify
from everlora.runtime.progress import Progress
from taught import contents, task_of, taught, teach


@pytest.fixture(scope="module")
def rows_are_gone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner of two tasks that keeps no test row."""
    place = taught(tmp_path_factory.mktemp("gone") / "run", "ella")
    for name in ("first", "second"):
        learn(place, task_of("tiny-llama", name), Teaching(by="ada"), progress=Progress())
    return place


@pytest.fixture
def learner(rows_are_gone: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rows_are_gone, tmp_path / "run"))


def rows(*names: str) -> dict[str, Any]:
    return {name: task_of("tiny-llama", name).test for name in names or ("first", "second")}


class Pulled(Progress):
    """Ends the process, as far as a test can, when so many rows are answered."""

    def __init__(self, at: int) -> None:
        self.left = at

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt


def counted(opened: SequentialLearner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of every batch that the model answers from now on."""
    found: list[int] = []
    predict: Callable[..., list[str]] = opened.base.family.predict

    def counting(model: Any, task: Task, batch: Any, scoring: Any) -> list[str]:
        found.append(len(batch))
        return predict(model, task, batch, scoring)

    monkeypatch.setattr(opened.base.family, "predict", counting)
    return found


def opened_with(place: Path, progress: Progress | None = None) -> SequentialLearner:
    found = load_learner(place, progress=progress)
    found.evaluator.settings = found.evaluator.settings.model_copy(update={"batch_size": 1})
    found.evaluator.batch_invariant = True  # else a few rows are answered twice to see that
    return found


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.full), 6])
def test_an_evaluation_goes_on_where_it_was_broken_off(
    at: int, learner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two tasks of four rows each, in batches of one."""
    whole = Path(shutil.copytree(learner, tmp_path / "whole"))
    expected = judge(opened_with(whole), rows())
    with pytest.raises(KeyboardInterrupt):
        judge(opened_with(learner, Pulled(at)), rows())
    assert any("evaluation was broken off" in line for line in verify(learner, "quick").unfinished)
    again = opened_with(learner)
    answered = counted(again, monkeypatch)
    assert judge(again, rows()) == expected
    assert sum(answered) == 8 - at
    assert contents(learner) == contents(whole)
    assert not (learner / FILE).exists()
    assert verify(learner).state == "sound"


def test_answers_of_another_model_or_of_other_rows_do_not_count(
    learner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge(opened_with(learner, Pulled(6)), rows())
    other = rows()
    other["first"] = list(reversed(other["first"]))
    again = opened_with(learner)
    answered = counted(again, monkeypatch)
    again.progress = Pulled(8)
    with pytest.raises(KeyboardInterrupt):
        judge(again, other)
    assert sum(answered) == 8 - 2, "two rows of the second task were known"
    rollback(learner, "first")
    again = opened_with(learner)
    answered = counted(again, monkeypatch)
    judge(again, rows("first"))
    assert sum(answered) == 4, "another model answers them"


def test_scores_of_a_new_task_go_on_where_they_were_broken_off(
    learner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between training and the end of its evaluation, a process ends: the same command answers what is left."""

    class InScores(Progress):
        def phase(self, label: str, total: int) -> None:
            if label == "answering third":
                self.advance = Pulled(1).advance  # type: ignore[method-assign]

    whole = Path(shutil.copytree(learner, tmp_path / "whole"))
    teach(whole, "third")
    with pytest.raises(KeyboardInterrupt):
        learn(learner, task_of("tiny-llama", "third"), Teaching(by="ada", keep_tests=4), progress=InScores())
    assert [stage.evaluated for stage in read_stages(learner)] == [True, True, False]
    seen = AnswersSoFar(learner, json.loads((learner / FILE).read_text().strip().splitlines()[0])["key"])
    assert len((learner / FILE).read_text().strip().splitlines()) == 1
    teach(learner, "third")
    assert contents(learner) == contents(whole)
    assert not seen.place.exists()


def test_lines_that_are_torn_and_disks_that_are_full_cost_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = AnswersSoFar(tmp_path, "k")
    found.add("a", "d", {0: "x"})
    assert found.known("a", "d") == {}, "nothing is written before it is time to"
    found.write()
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text() + '{"key": "k", "task": "a", "row')
    monkeypatch.setattr(answers_so_far, "SECONDS", 0.0)
    found.add("a", "d", {1: "ü", 2: "\u2028"})
    assert AnswersSoFar(tmp_path, "k").known("a", "d") == {0: "x", 1: "ü", 2: "\u2028"}
    assert AnswersSoFar(tmp_path, "other").known("a", "d") == found.known("a", "other") == {}
    full = AnswersSoFar(tmp_path / "nowhere", "k")
    full.add("a", "d", {0: "x"})
    assert full.known("a", "d") == {}


# --- rows that are kept later ----------------------------------------------------------------------------------------


def kept(place: Path) -> dict[str, int]:
    return {task.name: len(task.test) for task in tasks_of(load_learner(place, read_only=True))}


def test_rows_that_are_given_may_be_kept_with_consent(learner: Path) -> None:
    assert kept(learner) == {"first": 0, "second": 0}
    assert evaluate(learner, rows()).missing == []
    assert kept(learner) == {"first": 0, "second": 0}, "nobody said that they may be"
    before = {stage.facts.name: stage.facts.row for stage in read_stages(learner)}
    found = evaluate(learner, rows("first"), keep=4)
    assert (kept(learner), found.missing) == ({"first": 4, "second": 0}, ["second"])
    assert {stage.facts.name: stage.facts.row for stage in read_stages(learner)} == before
    assert verify(learner, "data").state == "sound"
    assert evaluate(learner).scores.keys() == {"first"}, "without the rows being given again"
    evaluate(learner, rows("second"), keep=2)
    assert kept(learner) == {"first": 4, "second": 2}
    evaluate(learner, rows("second"))  # a new evaluation of the newest task takes the place of the one with its rows
    assert kept(learner) == {"first": 4, "second": 2}
    rollback(learner, "first")
    assert kept(learner) == {"first": 4}
    assert verify(learner).state == "sound"


def test_rows_that_were_kept_later_go_with_their_task_and_stay_with_others(learner: Path) -> None:
    evaluate(learner, rows(), keep=3)
    forget(learner, "first")
    assert kept(learner) == {"second": 3}
    assert [file.parent.name for file in learner.rglob("tests.jsonl") if file.stat().st_size] == ["evaluation-1"]


def test_the_command_line_keeps_rows(everlora_in: Callable[..., Any], learner: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": row.input, "label": row.target}) + "\n" for row in rows()["first"]]
    (tmp_path / "first.jsonl").write_text("".join(lines))
    words = ("eval", str(learner), "--data", f"first={tmp_path / 'first.jsonl'}", "--quiet")
    assert everlora_in(*words, "--keep-probe", "2") == 0
    assert kept(learner)["first"] == 2
    assert everlora_in(*words, "--keep-probe", "-1") == ConfigError.status


@pytest.fixture
def everlora_in() -> Callable[..., Any]:
    from everlora.cli.app import run_command

    return lambda *words: run_command(list(words))
