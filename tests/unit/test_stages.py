"""How a run is planned, by closed tables: stages, who is evaluated when, rows of the matrix, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora.core.errors import ConfigError, DataError, FolderError
from everlora.core.expressions import parse
from everlora.data.task import Example, Remembered, Task, digest_of_rows
from everlora.metrics.answers import DEFAULT
from everlora.metrics.scores import ScoreMatrix
from everlora.models.families.base import Limits
from everlora.settings.spec import EvalSpec, LearnerSpec
from everlora.training.stages import (
    chance_level,
    check_enough_rows,
    check_same_tasks,
    matrix_row,
    remembered_task,
    shared_rows,
    stages,
    task_metadata,
    tasks_to_evaluate,
    validate_task,
)

SEQUENCE, BY_TASK_ID, JOINT, FROZEN = parse("seqlora"), parse("per-task"), parse("mtl"), parse("zero-shot")


def task(name: str, rows: int = 2, labels: tuple[str, ...] = ("yes", "no"), **more: Any) -> Task:
    examples = [Example(f"{name} {k}", labels[k % len(labels)] if labels else f"{k}") for k in range(rows)]
    return Task(name=name, train=examples, test=examples, labels=labels, **more)


TASKS = [task(name) for name in "abc"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (SEQUENCE, [(1, "a", "a", 0, True, 1), (2, "b", "b", 1, True, 2), (3, "c", "c", 2, True, 3)]),
        (BY_TASK_ID, [(1, "a", "a", 0, True, 1), (2, "b", "b", 1, True, 1), (3, "c", "c", 2, True, 1)]),
        (JOINT, [(1, JOINT.name, "abc", 2, True, 1)]),
        (FROZEN, [(1, FROZEN.name, "abc", 2, False, 1)]),
    ],
    ids=["sequence", "independent", "joint", "frozen"],
)
def test_a_stream_is_divided_into_stages(method: Any, expected: list[tuple[Any, ...]]) -> None:
    found = [
        (one.number, one.name, "".join(task.name for task in one.tasks), one.row, one.trains, one.seeded)
        for one in stages(method, TASKS)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("schedule", "include_next", "by_task_id", "names"),
    [
        ("full", False, False, ["a", "ab", "abc"]),
        ("forward", True, False, ["ab", "abc", "abc"]),
        ("diagonal", False, False, ["a", "b", "abc"]),
        ("diagonal", True, False, ["ab", "bc", "abc"]),
        ("final", False, False, ["", "", "abc"]),
        ("full", False, True, ["a", "b", "c"]),
        ("final", False, True, ["a", "b", "c"]),
        ("forward", True, True, ["ab", "bc", "c"]),
    ],
)
def test_which_tasks_are_evaluated_after_each_stage(
    schedule: Any, include_next: bool, by_task_id: bool, names: list[str]
) -> None:
    method = BY_TASK_ID if by_task_id else SEQUENCE
    found = [
        "".join(task.name for task in tasks_to_evaluate(stage, TASKS, schedule, method, include_next))
        for stage in stages(method, TASKS)
    ]
    assert found == names


def test_rows_of_the_matrix() -> None:
    """With one adapter per task an earlier score stands for good, and a new one takes the place of an old one."""
    first, second, _ = stages(SEQUENCE, TASKS)
    matrix = ScoreMatrix.empty("abc", [2, 2, 2]).with_row(0, [50.0, 20.0, None])
    assert matrix_row(second, TASKS, {"b": 60.0}, matrix, SEQUENCE) == [None, 60.0, None]
    assert matrix_row(second, TASKS, {"b": 60.0}, matrix, BY_TASK_ID) == [50.0, 60.0, None]
    assert matrix_row(second, TASKS, {"b": 0.0, "c": 5.0}, matrix, BY_TASK_ID) == [50.0, 0.0, 5.0]
    assert matrix_row(first, TASKS, {"a": 50.0}, ScoreMatrix.empty("abc", [2, 2, 2]), BY_TASK_ID) == [50.0, None, None]
    with pytest.raises(ValueError, match="longer"):
        matrix_row(second, TASKS, {"b": 60.0}, ScoreMatrix.empty("ab", [2, 2]), BY_TASK_ID)


def test_arguments_of_a_task_are_over_those_of_the_run() -> None:
    spec = LearnerSpec(model="m", train={"learning_rate": 0.1, "max_steps": 5}, train_of={"b": {"max_steps": 7}})
    assert [one.arguments(spec)["max_steps"] for one in stages(SEQUENCE, TASKS)] == [5, 7, 5]
    assert all(one.arguments(spec)["learning_rate"] == 0.1 for one in stages(SEQUENCE, TASKS))
    own = LearnerSpec(model="m", train={"max_steps": 5}, train_of={"a": {"max_steps": 7}})
    assert stages(JOINT, TASKS)[0].arguments(own)["max_steps"] == 5, "a stage of several tasks has no task of its own"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("drops", [False, True])
def test_a_stage_without_a_full_batch_is_refused_where_others_are_dropped(processes: int, drops: bool) -> None:
    """At the default of 8 rows a process, rows of all tasks of the stage counted."""
    spec = LearnerSpec(model="m", train={"dataloader_drop_last": drops})
    for rows, method in ((8 * processes - 1, SEQUENCE), (8 * processes, SEQUENCE), (4 * processes, JOINT)):
        (stage,) = stages(method, [task("a", rows), task("b", rows)][: 1 + (method is JOINT)])
        if drops and rows % 2:
            with pytest.raises(ConfigError, match=f"{rows} training rows, fewer than a batch of {8 * processes}"):
                check_enough_rows(spec, stage, processes)
        else:
            check_enough_rows(spec, stage, processes)


@given(st.integers(1, 12))
def test_labels_of_an_earlier_task_are_listed_up_to_eight(n: int) -> None:
    labels = tuple(f"l{k:02}" for k in range(n))
    first, second, other = task("a", n, labels), task("b", n, labels, shared_labels=True), task("c", 2)
    (line,) = shared_rows([first, other, second])
    assert shared_rows([first, other, replace(second, remembered=Remembered(digest="x"))]) == [], (
        "it was said when b was learned"
    )
    listed = ", ".join(map(repr, labels[:8])) + (", ..." if n > 8 else "")
    own, same = "have rows of their own, apart from", "share rows of the head with"
    cure = "shared_labels: true in both shares them"
    assert line == f"task 'b': its labels {listed} {own} those of 'a'; {cure}"
    (line,) = shared_rows([replace(first, shared_labels=True), other, second])
    cure = "shared_labels: false keeps them apart"
    assert line == f"task 'b': its labels {listed} {same} those of 'a'; {cure}"


@pytest.mark.parametrize(
    ("labels", "metric", "level"),
    [
        (("yes", "no"), DEFAULT, 50.0),
        (("a", "b", "c", "d"), DEFAULT, 25.0),
        (("yes", "Yes."), DEFAULT, None),  # one answer, once it is normalised
        (("yes", "no"), "rouge_l", None),
        ((), DEFAULT, None),
    ],
)
def test_the_level_of_chance(labels: tuple[str, ...], metric: str, level: float | None) -> None:
    assert chance_level(cast(Any, SimpleNamespace(labels=labels, metric=metric))) == level


def test_what_is_recorded_of_tasks() -> None:
    plain, free = task("a"), task("b", labels=(), metric="rouge_l", left_out={"too long": 3})
    limits = SimpleNamespace(template=SimpleNamespace(text="{instruction} {input}"))
    family = SimpleNamespace(lengthened=lambda one: None if one.labels else 40, limits=limits)
    found = task_metadata([plain, free], cast(Any, family))
    assert found.data == {"a": plain.digest(), "b": free.digest()}
    assert (found.chance, found.metric, found.left_out) == ({"a": 50.0}, {"b": "rouge_l"}, {"b": {"too long": 3}})
    assert (found.label_rows, found.max_new_tokens) == ({}, {"b": 40})
    assert {name: card.labels for name, card in found.cards.items()} == {"a": list(plain.labels), "b": []}
    card = found.cards["a"]
    assert (card.template, card.tests) == ("{instruction} {input}", digest_of_rows(plain.test, plain.form))
    assert card.rows == {"train": len(plain.train), "test": len(plain.test)}


def test_a_card_is_enough_to_know_a_task_again() -> None:
    family: Any = SimpleNamespace(
        lengthened=lambda one: 40, limits=SimpleNamespace(template=SimpleNamespace(text="t"))
    )
    one = task("b", labels=(), metric="rouge_l", instruction="Sum it up.", source="here", prompt_limit=9)
    known = remembered_task("b", task_metadata([one], family))
    assert (known.train, known.test, known.dev) == ((), (), ())
    assert known.digest() == one.digest()
    assert replace(known, train=one.train, test=one.test, dev=one.dev, remembered=None).digest() == one.digest()
    assert (known.metric, known.source, known.prompt_limit) == ("rouge_l", "here", 9)
    assert known.remembered is not None
    assert known.remembered.answer_tokens == 40
    assert remembered_task("b", task_metadata([one], family), one.test).test == one.test


class Lines:
    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.info, self.warn = self.infos.append, self.warnings.append


class Cutting:
    """A family that cuts some texts of every task and has a remark on it."""

    def __init__(self, cut: int, source: int | None = None) -> None:
        self.truncated, self.cut, self.limits = 99, cut, Limits(context=64, source=source)

    def check(self, task: Task) -> None:
        self.truncated += self.cut

    def remarks(self, task: Task) -> list[str]:
        return ["a remark"]


@pytest.mark.parametrize(
    ("labels", "scoring", "remarked"),
    [(("yes", "no"), "labels", False), (("yes", "no"), "generate", True), ((), "generate", True)],
)
def test_what_is_reported_of_a_task_before_it_is_learned(
    labels: tuple[str, ...], scoring: Any, remarked: bool
) -> None:
    one = task("a", 3, labels, left_out={"no text": 2}, notes=("a note",))
    one = replace(one, dev=one.train[:1])
    for cut, source, most in ((0, None, ""), (1, None, "the model reads"), (1, 32, "--max-source-length")):
        lines = Lines()
        validate_task(one, cast(Any, Cutting(cut, source)), EvalSpec(scoring=scoring), cast(Any, lines))
        texts = f"task 'a': 1 of 7 texts are longer than {most} and are cut"
        assert lines.warnings == ["task 'a': a remark"] * remarked + [texts] * cut + ["task 'a': a note"]
        assert lines.infos == ["task 'a': 2 rows left out (no text)"]


def test_a_task_that_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no label set to score"):
        validate_task(task("a", labels=()), cast(Any, Cutting(0)), EvalSpec(scoring="labels"), cast(Any, Lines()))
    with pytest.raises(DataError, match="no dev rows"):
        validate_task(task("a"), cast(Any, Cutting(0)), EvalSpec(split="dev"), cast(Any, Lines()))


def committed(*tasks: Task) -> list[Any]:
    return [
        SimpleNamespace(path=Path(f"tasks/{one.name}"), facts=SimpleNamespace(name=one.name, data=data))
        for one in tasks
        for data in [{one.name: one.digest()}]
    ]


def test_other_tasks_than_the_folder_holds_are_refused() -> None:
    a, b, c = TASKS
    planned, folder = stages(SEQUENCE, [a, b]), Path("run")
    for done in ([], [a], [a, b]):
        check_same_tasks(committed(*done), planned, folder)
    for done, said in [
        ([a, b, c], "holds 3 learned tasks, more than the 2"),
        ([b], "holds task 'b', not 'a'"),
        ([a, c], "holds task 'c', not 'b'"),
        ([a, task("b", 3)], "learned from other data"),
    ]:
        with pytest.raises(FolderError, match=said):
            check_same_tasks(committed(*done), planned, folder)
