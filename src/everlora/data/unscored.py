"""Finds right answers that a task's metric counts as wrong, such as those of two lines where it reads the first."""

from __future__ import annotations

from collections.abc import Sequence

from everlora.data.task import Example, Task
from everlora.metrics.registry import METRICS, answer_metric

EXACT = ("exact_match", "accuracy", "macro_f1", "first_character")
"""How metrics begin that give a row all or nothing."""
OTHERS = ("exact_match", "exact_match_raw")
"""What is named instead: the first that counts all of the answers as right."""


def unscored(task: Task, splits: Sequence[str] = ("train", "dev", "test"), *, beyond: float = 0.0) -> str:
    """Say how many right answers of a task score nothing, word for word, and which metric counts them.

    Args:
        task: labels are compared with the metric when a label set is read, and metrics that were plugged in are taken
            at their word.
        splits: whose answers.
        beyond: the share of different answers up to which nothing is said.

    Returns:
        One sentence; empty if the metric counts them, or gives parts of a row.

    >>> rows = [Example("a", "one"), Example("b", "one and two")]
    >>> unscored(Task(name="t", train=rows, test=rows, metric="exact_match_first_line"))
    ''
    """
    if task.labels or task.metric in METRICS.from_outside() or not task.metric.startswith(EXACT):
        return ""
    rows: dict[str, Example] = {row.target: row for split in splits for row in getattr(task, split)}
    lost = [target for target, row in rows.items() if _is_lost(task.metric, row)]
    if len(lost) <= beyond * len(rows):
        return ""
    other = next((one for one in OTHERS if not any(_is_lost(one, row) for row in rows.values())), None)
    return (
        f"{task.metric} counts {len(lost)} of {len(rows)} different right answers as wrong, word for word, such as "
        f"{lost[0][:60]!r}; " + (f"use {other}" if other else "choose another metric")
    )


def _is_lost(metric: str, row: Example) -> bool:
    return answer_metric(metric).row(row.answered(row.target)) <= 0
