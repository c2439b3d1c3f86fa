"""Texts longer than a context: a benchmark's are cut in the middle by its own limit, a user's own are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlora import Example, Task, load
from everlora.benchmarks import open_stream
from everlora.core.errors import DataError
from everlora.learner import sweep
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec
from everlora.training.stages import validate_task

LONG = "first " + "word " * 900 + "last"


def task(form: Any, limit: int | None) -> Task:
    rows = [Example(LONG, "good"), Example("short", "good")]
    return Task(name="t", train=rows, test=rows[1:], labels=("good", "bad"), form=form, prompt_limit=limit)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5", "tiny-bert"])
@pytest.mark.parametrize("form", ["labelled", "prompted"])
def test_a_benchmarks_texts_are_cut_in_their_middle_and_counted(model: str, form: str) -> None:
    family = load(model).family
    family.reserve(family.limits.context - 128)
    lines: list[str] = []

    class Heard(Progress):
        def warn(self, line: str) -> None:
            lines.append(line)

    validate_task(task(form, 64), family, EvalSpec(), Heard())
    assert lines == ["task 't': 1 of 3 texts are longer than the model reads and are cut"]
    limited = task(form, 64)
    if model != "tiny-bert":
        tokens, cut = family.prompter.prompt(limited.train[0], limited, room=10)  # type: ignore[attr-defined]
        assert (len(tokens), cut > 0) == (64, True)
        wide, _ = family.prompter.prompt(limited.train[0], task(form, 512), room=10)  # type: ignore[attr-defined]
        assert len(wide) == 128 - 10, "room is left for the answer"
        text = family.processor.decode(tokens)
        assert "first" in text
        assert "last" in text
    with pytest.raises(DataError, match="longer than"):
        validate_task(task(form, None), family, EvalSpec(), Progress())


def test_texts_that_fit_a_context_are_not_cut_by_a_benchmarks_limit() -> None:
    family = load("tiny-llama").family
    rows = [Example("word " * 20, "good")]
    one = Task(name="t", train=rows, test=rows, form="prompted", prompt_limit=5)
    assert family.prompter.prompt(rows[0], one, room=10)[1] == 0  # type: ignore[attr-defined]


def test_a_benchmarks_tasks_know_its_limit(tmp_path: Path) -> None:
    for name in ("agnews", "dbpedia"):
        (tmp_path / name).mkdir()
        for split, text in (("train", "a"), ("test", "b")):
            (tmp_path / name / f"{split}.jsonl").write_text(f'{{"text": "{text}", "label": "World"}}\n')
        (tmp_path / name / "labels.json").write_text('["World"]')
    for benchmark in ("standard", "long"):
        found = open_stream(benchmark, data_dir=tmp_path, tasks=["agnews", "dbpedia"])
        assert [task.prompt_limit for task in found] == [512, 512]


def test_a_sweep_finds_what_no_method_could_learn_before_anything_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name} {LONG}", "label": "good"}}\n')
    (tmp_path / "mine.yaml").write_text("tasks:\n  - {name: t, train: a.jsonl, test: b.jsonl}\n")
    layers = [{"model": "tiny-llama", "benchmark": str(tmp_path / "mine.yaml")}]
    todo = sweep.jobs(layers, ["seqft", "seqlora"], [0], tmp_path / "out")
    failed: list[sweep.Failed] = []
    with pytest.raises(DataError, match="set --max-source-length"):
        sweep.work(todo, load("tiny-llama"), failed=failed.append)
    assert not failed
    assert not (tmp_path / "out").exists()
