"""A user's own YAML stream, from the command line to the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Everlora, Said, committed, write_rows, write_stream

LABELLED = {"name": "a", "train": "a.jsonl", "test": "at.jsonl", "labels": ["yes", "no"]}
PROMPTED = {"name": "p", "train": "p.jsonl", "test_fraction": 0.3}


@pytest.fixture
def follow(everlora: Everlora, tmp_path: Path) -> Any:
    for name, word, count in (("a", "good", 12), ("at", "bad", 4)):
        rows = [{"text": f"{word} movie {i}", "label": "yes" if i % 2 else "no"} for i in range(count)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    write_rows(tmp_path / "p.jsonl", [{"prompt": f"say {i}", "completion": f"word {i}"} for i in range(12)])
    write_rows(tmp_path / "long.jsonl", [{"prompt": f"say {i} " * 600, "completion": "word"} for i in range(12)])
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    write_rows(
        tmp_path / "m.jsonl",
        [{"messages": [{"role": "user", "content": f"hi {i}"}, chat[1]]} for i in range(12)],
    )
    write_rows(tmp_path / "columns.jsonl", [{"txt": "a", "lab": "b"}] * 3)
    write_rows(tmp_path / "outside.jsonl", [{"text": "zz", "label": "maybe"}])
    write_rows(tmp_path / "empty.jsonl", [])

    def call(model: str, *tasks: dict[str, Any], flags: tuple[str, ...] = ()) -> Said:
        stream = write_stream(tmp_path / "own.yaml", *tasks)
        common = ("--model", model, "--out", "run", "--max-steps", "2", "--max-new-tokens", "4", "--json")
        return everlora("run", "--benchmark", stream, *common, *flags)

    return call


@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("tiny-llama", (LABELLED, PROMPTED)),
        ("tiny-t5", (LABELLED, PROMPTED)),
        ("tiny-bert", (LABELLED, {**LABELLED, "name": "b"})),
    ],
)
def test_own_stream_end_to_end(follow: Any, model: str, tasks: tuple[dict[str, Any], ...]) -> None:
    found = follow(model, *tasks).json
    assert found["tasks"] == [task["name"] for task in tasks]
    assert found["matrix"][0][1] is None
    assert all(isinstance(cell, float) for cell in found["matrix"][1])


BAD = [
    ("tiny-llama", {**LABELLED, "train": "columns.jsonl"}, (), "no usable columns (found: txt, lab)"),
    ("tiny-llama", {**LABELLED, "label_column": "lab"}, (), "no column 'lab'"),
    ("tiny-llama", {**LABELLED, "test": "empty.jsonl"}, (), "empty.jsonl is empty"),
    ("tiny-llama", {**LABELLED, "test": "gone.jsonl"}, (), "gone.jsonl does not exist"),
    ("tiny-llama", {**LABELLED, "test": "outside.jsonl"}, (), "outside.jsonl, row 1: label 'maybe' is outside"),
    ("tiny-llama", {**LABELLED, "name": "[bold]x[/x]"}, (), "task name '[bold]x[/x]' must consist of"),
    ("tiny-llama", {**LABELLED, "name": "../../evil"}, (), "task name '../../evil' must consist of"),
    ("tiny-llama", {**LABELLED, "tain": "x"}, (), "unknown key in task 'a'"),
    ("tiny-llama", {**PROMPTED, "train": "long.jsonl"}, (), "is longer than the 50"),
    ("tiny-llama", {**PROMPTED, "train": "m.jsonl"}, (), "no chat template; give prompt/completion columns"),
    ("tiny-bert", PROMPTED, (), "no label set, which a classification head needs"),
    ("tiny-vit", {**LABELLED, "name": "t"}, (), "holds text; a model of family 'image-classifier' reads images"),
    ("tiny-llama", PROMPTED, ("--eval-scoring", "labels"), "no label set to score"),
    ("tiny-llama", {**LABELLED, "name": "t"}, ("--eval-split", "dev"), "no dev rows to be scored on"),
]


@pytest.mark.parametrize(("model", "task", "flags", "expected"), BAD, ids=[expected for *_, expected in BAD])
def test_bad_data_is_one_line_before_anything_is_trained(
    follow: Any, tmp_path: Path, model: str, task: dict[str, Any], flags: tuple[str, ...], expected: str
) -> None:
    """The bad task comes second: the first must not be learned before it is looked at."""
    first = task if "bert" in model or "vit" in model or task["name"] == "a" else LABELLED
    tasks = (task,) if first is task else (first, task)
    said = follow(model, *tasks, flags=flags)
    assert said.status == 2
    assert expected in said.line
    assert len(said.err.splitlines()) == 1
    assert committed(tmp_path / "run") == {}


def test_data_that_changed_are_refused_on_resume(follow: Any, tmp_path: Path) -> None:
    assert follow("tiny-llama", LABELLED).status == 0
    before = committed(tmp_path / "run")
    write_rows(tmp_path / "at.jsonl", [{"text": "something else", "label": "yes"}])
    assert "other data" in follow("tiny-llama", LABELLED, flags=("--resume",)).line
    assert committed(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--benchmark", "standrad"), "unknown benchmark 'standrad'; did you mean 'standard'"),
        (("--benchmark", "standard", "--order", "99"), "standard has no order 99"),
        (("--model", "tiny-bert", "--lora-layers", "1-2"), "there are no layers 1-2 with modules to adapt"),
    ],
)
def test_a_dry_run_looks_up_what_is_named(everlora: Everlora, words: tuple[str, ...], line: str) -> None:
    said = everlora("run", "--dry-run", *words)
    assert said.status == 2
    assert line in said.line
