"""Answers are shown while they are written, and questions are taken one by one, as they come."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everlora import Example, Learner, Task
from everlora.cli.app import run_command
from everlora.core.errors import DataError, printable
from everlora.learner.opened import create

QUESTIONS = ["a film", "ein Stück"]


def made(place: Path, model: str, labels: tuple[str, ...] = ()) -> Path:
    answers = labels or ("it is a long — and ünusual — film of old", "no, not any more")
    rows = [Example(f"row {n}", answers[n % 2]) for n in range(6)]
    scoring = {"scoring": "labels" if labels else "generate"}
    create(place, {"model": model, "method": "ella", "max_new_tokens": 12, "evaluation": scoring})
    task = Task(name="talk", train=rows[:4], test=rows[4:], labels=labels)
    Learner.open(place).learn(task, train={"max_steps": 2})
    return place


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("writer") / "run", "tiny-llama")


@pytest.mark.parametrize("model", ["tiny-llama", pytest.param("tiny-t5", marks=pytest.mark.full)])
def test_the_pieces_of_an_answer_are_the_answer(model: str, writer: Path, tmp_path: Path) -> None:
    learner = Learner.open(writer if model == "tiny-llama" else made(tmp_path / "run", model))
    wanted, pieces = learner.ask(QUESTIONS), list[str]()
    shown: list[str] = []
    for answer in learner.stream(QUESTIONS, show=pieces.append):
        shown.append("".join(pieces))
        assert shown[-1] == answer
        pieces.clear()
    assert shown == wanted
    list(learner.stream(QUESTIONS[:1], show=pieces.append))
    assert len(pieces) > 1
    assert learner.ask(QUESTIONS) == wanted, "nothing is shown any more"


@pytest.mark.parametrize(("model", "labels"), [("tiny-bert", ("good", "bad"))])
def test_an_answer_that_is_chosen_comes_at_once(model: str, labels: tuple[str, str], tmp_path: Path) -> None:
    learner, pieces = Learner.open(made(tmp_path / "run", model, labels)), list[str]()
    assert list(learner.stream(QUESTIONS, show=pieces.append)) == learner.ask(QUESTIONS) == pieces


def test_a_question_is_answered_before_the_next_is_taken(writer: Path) -> None:
    answered: list[str] = []

    def coming() -> Iterator[Any]:
        for number, question in enumerate(QUESTIONS):
            assert len(answered) == number
            yield question
        yield {"no": "text"}

    answers = Learner.open(writer).stream(coming())
    answered += [next(answers)]
    answered += [next(answers)]
    with pytest.raises(DataError, match="the question is none"):
        next(answers)
    assert len(answered) == 2, "those before it stand"


class Lines(io.RawIOBase):
    """Gives a line at a time, and notes what was printed when each was asked for."""

    def __init__(self, lines: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
        self.lines, self.capsys, self.printed = lines, capsys, list[str]()

    def __iter__(self) -> Iterator[bytes]:  # type: ignore[override]
        for line in self.lines:
            self.printed.append(self.capsys.readouterr().out)
            yield line


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_stdin_are_answered_as_they_come(
    as_json: bool, writer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = Lines([b'\xef\xbb\xbf{"text": "a film"}\r\n', b"\n", "ein Stück\n".encode()], capsys)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stdin}))
    words = ["--json"] if as_json else []
    assert run_command(["ask", str(writer), "--file", "-", "--stream", "--quiet", *words]) == 0
    first, second = stdin.printed[1], capsys.readouterr().out
    wanted = [answer if as_json else printable(answer) for answer in Learner.open(writer).ask(QUESTIONS)]
    found = [json.loads(one)["answer"] for one in (first, second)] if as_json else [first[:-1], second[:-1]]
    assert found == wanted


def test_a_line_that_is_none_ends_it_in_one_line(
    writer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = Lines([b'{"text": "a film"}\n', b'{"text": \n'], capsys)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stdin}))
    assert run_command(["ask", str(writer), "--file", "-", "--stream", "--quiet"]) == DataError.status
    assert "everlora: -, line 2: no sound JSON" in capsys.readouterr().err
