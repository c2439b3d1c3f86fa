"""Rows of a growing head: labels of one name are each task's own, unless the tasks say that they are shared."""

from __future__ import annotations

import pytest
import torch

from everlora import Example, Task, load
from everlora.models.families.classifier import Classifier
from everlora.training.stages import shared_rows


def task(name: str, *labels: str, shared: bool | None = None) -> Task:
    rows = [Example(f"{name} {label}", label) for label in labels]
    return Task(name=name, train=rows, test=rows, labels=labels, shared_labels=shared)


def prepared(*tasks: Task) -> tuple[Classifier, list[list[int]]]:
    base = load("tiny-bert")
    family = base.family
    assert isinstance(family, Classifier)
    for one in tasks:
        family.prepare(base.model, [one], torch.Generator().manual_seed(0))
    return family, [family.label_rows(one) for one in tasks]


@pytest.mark.parametrize(
    ("labels", "shared", "rows", "names"),
    [
        (("0", "1"), None, [[0, 1], [2, 3]], ["0", "1", "0 (b)", "1 (b)"]),
        (("0", "1"), True, [[0, 1], [0, 1]], ["0", "1"]),
        (("no", "yes"), None, [[0, 1], [2, 3]], ["no", "yes", "no (b)", "yes (b)"]),
        (("no", "yes"), True, [[0, 1], [0, 1]], ["no", "yes"]),
        (("no", "yes"), False, [[0, 1], [2, 3]], ["no", "yes", "no (b)", "yes (b)"]),
    ],
)
def test_labels_of_one_name(
    labels: tuple[str, ...], shared: bool | None, rows: list[list[int]], names: list[str]
) -> None:
    first, second = task("a", *labels, shared=shared), task("b", *labels, shared=shared)
    family, found = prepared(first, second)
    assert (found, family.labels) == (rows, names)
    (line,) = shared_rows([first, second])
    assert ("share rows of the head with those of 'a'" in line) == (rows[0] == rows[1])
    assert ("shared_labels: false" in line) == (rows[0] == rows[1])


def test_numbers_that_no_other_task_has_keep_their_names() -> None:
    family, found = prepared(task("a", "0", "1"), task("b", "2", "3"))
    assert (found, family.labels) == ([[0, 1], [2, 3]], ["0", "1", "2", "3"])
    assert shared_rows([task("a", "0", "1"), task("b", "2", "3")]) == []


def test_a_row_of_another_task_is_no_right_answer() -> None:
    first, second = task("a", "0", "1"), task("b", "0", "1")
    family, _ = prepared(first, second)
    logits = torch.eye(4)
    assert family._answer(logits, first, "generate") == ["0", "1", "0 (b)", "1 (b)"]
    assert family._answer(logits[2:], second, "generate") == ["0", "1"]
    assert family._answer(logits[2:], second, "labels") == ["0", "1"]
    assert family.features(second.train[1], second)["label"] == 3


def test_a_word_is_the_answer_whichever_task_it_was_learned_in() -> None:
    first, second = task("a", "no", "yes"), task("b", "no", "yes")
    family, _ = prepared(first, second)
    assert family._answer(torch.eye(4), first, "generate") == ["no", "yes", "no", "yes"]
    assert family._answer(torch.eye(4)[2:], second, "labels") == ["no", "yes"]


def test_a_task_that_fails_gives_its_rows_back() -> None:
    base = load("tiny-bert")
    base.family.prepare(base.model, [task("a", "0", "1")], torch.Generator().manual_seed(0))
    before = base.family.snapshot(base.model)
    base.family.prepare(base.model, [task("b", "0", "1")], torch.Generator().manual_seed(0))
    base.family.restore(base.model, before)
    base.family.prepare(base.model, [task("c", "0", "1")], torch.Generator().manual_seed(0))
    assert base.family.labels == ["0", "1", "0 (c)", "1 (c)"]  # type: ignore[attr-defined]


def test_shared_labels_are_part_of_a_task() -> None:
    assert task("a", "0", "1").digest() != task("a", "0", "1", shared=True).digest()
