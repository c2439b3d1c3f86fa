"""A limit on rows draws them: every label keeps its share, one seed means one choice, and what vanishes is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from everlora.benchmarks import open_stream
from everlora.data.stream import TaskStream
from everlora.data.task import Example, Task, sample_rows
from everlora.learner.experiment import adapt_tasks
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec, RunSpec
from everlora.training.stages import validate_task


def films(counts: dict[str, int], **more: Any) -> Task:
    rows = [Example(f"{label} film {n}", label) for label, count in counts.items() for n in range(count)]
    return Task(name="films", train=rows, test=rows, labels=tuple(counts), **more)


def test_a_sorted_file_keeps_both_classes_in_both_splits(tmp_path: Path) -> None:
    for name, word in (("a", "item"), ("at", "thing")):
        rows = [{"text": f"the {label} {word} {n}", "label": label} for label in ("bad", "good") for n in range(50)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = tmp_path / "mine.yaml"
    mine.write_text("tasks:\n  - {name: films, train: a.jsonl, test: at.jsonl}\n")
    (task,) = open_stream(mine, max_train_samples=20, max_eval_samples=10)
    assert Counter(row.target for row in task.train) == {"bad": 10, "good": 10}
    assert Counter(row.target for row in task.test) == {"bad": 5, "good": 5}
    assert (
        open_stream(mine, max_train_samples=20, max_eval_samples=10).digest()
        == open_stream(mine, max_train_samples=20, max_eval_samples=10).digest()
    )
    assert open_stream(mine, max_train_samples=20, seed=1).tasks[0].train != task.train


def test_labels_keep_their_shares_and_rows_their_order() -> None:
    task = films({"rare": 10, "often": 90})
    few = task.take(20)
    assert Counter(row.target for row in few.train) == {"rare": 2, "often": 18}
    places = [task.train.index(row) for row in few.train]
    assert places == sorted(places)
    assert len(few.test) == 100
    assert set(films({"rare": 10, "often": 90}).take(8).train) <= set(few.train)


def test_no_label_vanishes_while_there_is_room_for_it() -> None:
    assert {row.target for row in films({"rare": 1, "often": 500}).take(2).train} == {"rare", "often"}


def test_a_split_within_the_limit_is_untouched() -> None:
    task = films({"a": 3, "b": 2})
    assert task.take(5, 5) == task
    assert task.take(5).train is task.train


def test_free_text_is_drawn_too_and_not_by_its_answer() -> None:
    rows = [Example(f"question {n}", "yes" if n < 90 else f"answer {n}") for n in range(100)]
    few = Task(name="chat", train=rows, test=rows).take(50)
    assert [row.input for row in few.train] != [row.input for row in rows[:50]]
    assert sum(row.target == "yes" for row in few.train) > 35, "a rare answer has no share of its own"


def test_labels_that_vanish_are_named_when_the_run_begins() -> None:
    lines: list[str] = []

    class Heard(Progress):
        def warn(self, line: str) -> None:
            lines.append(line)

    class Reads:
        def remarks(self, task: Task) -> list[str]:
            return []

        def check(self, task: Task) -> None:
            del task

    task = films({"a": 9, "b": 9, "c": 9}).take(2)
    gone = ({"a", "b", "c"} - {row.target for row in task.train}).pop()
    family: Any = Reads()
    validate_task(task, family, EvalSpec(), Heard())
    assert lines == [f"task 'films': 2 train rows are fewer than the labels: none is left of 1 ({gone!r})"]


@pytest.mark.parametrize("most", [0, 1, 7, 99])
def test_a_sample_has_its_size(most: int) -> None:
    found = sample_rows(30, most, 3, [n % 4 for n in range(30)])
    assert len(set(found)) == min(most, 30)
    assert found == sorted(found)


def test_a_limit_per_class_draws_by_seed_and_no_class_vanishes() -> None:
    task = films({"rare": 2, "often": 90, "sorted": 30})
    few = task.take_of_each(5, 3, seed=1)
    assert Counter(row.target for row in few.train) == {"rare": 2, "often": 5, "sorted": 5}
    assert Counter(row.target for row in few.test) == {"rare": 2, "often": 3, "sorted": 3}
    firsts = [row for row in task.train if int(row.input.split()[-1]) < 5]
    assert few.train != firsts, "the first of a file are no draw"
    places = [task.train.index(row) for row in few.train]
    assert places == sorted(places)
    assert task.take_of_each(5, 3, seed=1) == few
    assert task.take_of_each(5, 3, seed=2).train != few.train
    assert set(few.test) <= set(task.take_of_each(5, 5, seed=1).test), "fewer rows are among the more"
    assert task.take_of_each(90).train == task.train


def test_the_seed_of_a_stream_is_that_of_its_limit_per_class() -> None:
    settings = {"method": "seqlora", "benchmark": "builtin", "model": "tiny-llama", "max_train_per_class": 2}
    stream = TaskStream(name="mine", tasks=(films({"a": 40, "b": 40}),))
    drawn = [adapt_tasks(stream, RunSpec(**settings), seed).digest() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
