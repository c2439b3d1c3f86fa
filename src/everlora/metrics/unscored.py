"""Finds right answers that a metric counts as wrong, such as those of two lines where it reads the first."""

from __future__ import annotations

from collections.abc import Sequence

from everlora.metrics.registry import METRICS, Answer, answer_metric

EXACT = ("exact_match", "accuracy", "macro_f1", "first_character")
"""How metrics begin that give a row all or nothing."""
OTHERS = ("exact_match", "exact_match_raw")
"""What is named instead: the first that counts all of the answers as right."""


def unscored(metric: str, rows: Sequence[Answer], *, beyond: float = 0.0) -> str:
    """Say how many right answers score nothing, word for word, and which metric counts them.

    Args:
        metric: the id of a metric of answers; those that were plugged in are taken at their word.
        rows: each with its own target as the answer.
        beyond: the share of different answers up to which nothing is said.

    Returns:
        One sentence; empty if the metric counts them, or gives parts of a row.

    >>> answers = [Answer("one", ("one",)), Answer("one and two", ("one and two",))]
    >>> unscored("exact_match_first_line", answers), unscored("rouge_l", answers)
    ('', '')
    """
    if metric in METRICS.from_outside() or not metric.startswith(EXACT):
        return ""
    different = list({row.accepted[0]: row for row in rows}.values())
    lost = [row for row in different if _is_lost(metric, row)]
    if len(lost) <= beyond * len(different):
        return ""
    other = next((one for one in OTHERS if not any(_is_lost(one, row) for row in different)), None)
    return (
        f"{metric} counts {len(lost)} of {len(different)} different right answers as wrong, word for word, such as "
        f"{lost[0].accepted[0][:60]!r}; " + (f"use {other}" if other else "choose another metric")
    )


def _is_lost(metric: str, row: Answer) -> bool:
    return answer_metric(metric).row(Answer(row.accepted[0], row.accepted, row.source)) <= 0
