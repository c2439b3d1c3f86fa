"""Rows that one learner answers right and another wrong; rows with other targets are other rows."""

from __future__ import annotations

from everlora.archive.records import AnswerRow
from everlora.learner.verbs.diff import compare_answers


def answers(*rows: tuple[str, int, str, str]) -> dict[tuple[str, int], AnswerRow]:
    return {
        (task, row): AnswerRow(task=task, row=row, target=target, prediction=said, correct=said == target)
        for task, row, target, said in rows
    }


def test_answers_are_compared_row_by_row():
    a = answers(("t", 0, "x", "x"), ("t", 1, "x", "y"), ("t", 2, "x", "x"), ("u", 0, "x", "x"), ("u", 1, "x", "x"))
    b = answers(("t", 0, "x", "z"), ("t", 1, "x", "x"), ("t", 2, "x", "x"), ("u", 0, "w", "v"), ("v", 0, "x", "x"))
    compared, changes = compare_answers(a, b)
    assert compared == {"t": 3}
    assert [(one.task, one.row, one.a, one.b, one.right) for one in changes] == [
        ("t", 0, "x", "z", False),
        ("t", 1, "y", "x", True),
    ]
