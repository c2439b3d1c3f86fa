"""Texts of test rows on a page: read again where they are at hand, and only if they are those that were answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from everlora.analysis.recorded import recorded
from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.report import questions
from everlora.report.page import render
from everlora.report.questions import questions_of, text_of
from everlora.report.run_page import run_page

from .made import make_run
from .test_run_page import EVIL, Seen

ROWS = [Example(f"{k} {EVIL}", "yes") for k in range(6)]


def test_texts_stand_beside_their_answers_and_are_not_obeyed(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run"))
    seen = Seen(render(run_page(run, {"news": [row.input for row in ROWS]})))
    answers = json.loads(seen.scripts[0])["answers"]
    texts = {task["name"]: [answers["strings"][k] for k in task["texts"]] for task in answers["tasks"]}
    assert texts == {"reviews": [], "news": [row.input for row in ROWS], "intent": []}
    assert len(seen.scripts) == 3


def test_a_page_without_texts_says_how_to_get_them(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run"))
    assert f"everlora report {run.path} reads them again" in render(run_page(run))


@pytest.mark.parametrize(
    ("digest", "rows", "shown"),
    [("digest-news", ROWS, True), ("other", ROWS, False), ("digest-news", ROWS[:5], False)],
)
def test_only_the_rows_that_were_answered_are_shown(
    digest: str, rows: list[Example], shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "_followed", lambda run: [("news", digest, rows)])
    run = recorded(make_run(tmp_path / "run"))
    assert questions_of(run) == ({"news": [row.input for row in ROWS]} if shown else {})


def test_data_that_are_gone_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(run: Any) -> Any:
        raise DataError("no such file")

    monkeypatch.setattr(questions, "_followed", gone)
    assert questions_of(recorded(make_run(tmp_path / "run"))) == {}


def test_a_benchmark_of_the_hub_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.learner import experiment

    opened: list[str] = []
    task = Task(name="reviews", train=ROWS, test=ROWS)
    stream = type("Stream", (), {"tasks": (task,)})
    monkeypatch.setattr(experiment, "rows_of", lambda spec: opened.append(spec.benchmark) or stream)
    run = recorded(make_run(tmp_path / "run"))
    assert questions_of(run) == {}  # other rows than the run's
    assert opened == ["builtin"]
    settings = run.record.settings.model_copy(update={"benchmark": "standard"})
    object.__setattr__(run.record, "settings", settings)
    assert questions_of(run) == {}
    assert opened == ["builtin"]


def test_what_a_row_asks() -> None:
    assert text_of(Example("plain", "a")) == "plain"
    assert text_of(Example([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "a")) == "u"
    assert text_of(Example([], "a")) == ""
