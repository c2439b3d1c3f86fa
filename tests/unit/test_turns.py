"""Of a conversation the last answer of the assistant is learned, or every one; which, stands in the task's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from everlora import load
from everlora.archive.committed import read_stages
from everlora.cli.app import run_command
from everlora.core.errors import DataError
from everlora.data.files import stream_from_yaml
from everlora.learner.given import given_tasks

TEMPLATE = (
    "{% for m in messages %}<{{m['role']}}>{{m['content']}}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
USER, ANSWER = ("user", "assistant")


def chat(*texts: str, **last: Any) -> dict[str, Any]:
    """A conversation in which user and assistant say these texts in turn."""
    turns = [{"role": (USER, ANSWER)[k % 2], "content": text} for k, text in enumerate(texts)]
    turns[-3] |= last
    return {"messages": turns}


ROWS = [chat("1?", "a", "2?", "b", "3?", "c"), chat("4?", "d", "5?", "e")]
TESTS = [chat("6?", "f", "7?", "g")]


def written(place: Path, rows: list[dict[str, Any]] = ROWS, turns: str = "all") -> Path:
    for name, content in (("train", rows), ("test", TESTS)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    text = f"tasks:\n- {{name: talk, train: train.jsonl, test: test.jsonl, learn_turns: {turns}}}\n"
    (place / "own.yaml").write_text(text)
    return place / "own.yaml"


def learned(path: Path) -> list[tuple[str, str]]:
    """What is said last before each learned answer, and that answer."""
    (task,) = stream_from_yaml(path)
    assert [row.target for row in task.test] == ["g"], "what is scored is the last answer, whatever is learned"
    return [(row.input[-1]["content"], row.target) for row in task.train]


def test_every_answer_is_a_row_with_what_was_said_before_it(tmp_path: Path) -> None:
    assert learned(written(tmp_path, turns="last")) == [("3?", "c"), ("5?", "e")]
    assert learned(written(tmp_path)) == [("1?", "a"), ("2?", "b"), ("3?", "c"), ("4?", "d"), ("5?", "e")]
    (task,) = stream_from_yaml(tmp_path / "own.yaml")
    assert task.train[2].input == ROWS[0]["messages"][:-1]
    assert "every answer of the assistant is learned: 5 in 2 conversations" in task.notes


def test_an_answer_of_weight_0_is_read_and_not_learned(tmp_path: Path) -> None:
    assert learned(written(tmp_path, [chat("1?", "a", "2?", "b", weight=0)])) == [("2?", "b")]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ({"tool_calls": [{"x": 1}]}, "row 1, message 2: it has 'tool_calls'"),
        ({"weight": 0.5}, "it has the weight 0.5"),
    ],
)
def test_an_answer_that_is_more_than_its_content_is_refused(last: dict[str, Any], why: str, tmp_path: Path) -> None:
    path = written(tmp_path, [chat("1?", "a", "2?", "b", **last)])
    with pytest.raises(DataError, match=why):
        stream_from_yaml(path)


def test_rows_that_are_no_chats_have_one_answer(tmp_path: Path) -> None:
    path = written(tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"{name}?", "completion": "a"}) + "\n")
    with pytest.raises(DataError, match="'talk': its rows are no chats and have one answer each"):
        stream_from_yaml(path)


def test_the_card_says_it_and_the_rows_are_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load("tiny-llama")
    base.family.processor.chat_template = TEMPLATE
    base.model.save_pretrained(tmp_path / "base")
    base.family.processor.save_pretrained(str(tmp_path / "base"))
    written(tmp_path)
    place, files = tmp_path / "run", {"talk": tmp_path / "train.jsonl"}
    assert run_command(["init", str(place), "-m", str(tmp_path / "base"), "--quiet"]) == 0
    data = ["--data", str(files["talk"]), "--test", str(tmp_path / "test.jsonl"), "--max-steps", "1", "--quiet"]
    assert run_command(["learn", str(place), "--name", "talk", *data, "--learn-turns", "most"]) == DataError.status
    assert run_command(["learn", str(place), "--name", "talk", *data, "--learn-turns", "all"]) == 0
    (stage,) = read_stages(place)
    card = stage.facts.cards["talk"]
    assert (card.turns, card.rows) == ("all", {"train": 5, "test": 1})
    assert len(given_tasks([stage], files, {}, {})["talk"].train) == 5
    assert run_command(["export", str(place), "--to", "peft", "-o", str(tmp_path / "out"), "-q"]) == 0
    assert "every answer of the assistant was learned" in (tmp_path / "out/README.md").read_text("utf-8")
    assert "learn-turns" in capsys.readouterr().err
