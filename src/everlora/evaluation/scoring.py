"""Answers, compared with targets: one score per task and every prediction kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.metrics import answer_metric
from everlora.metrics.answers import DEFAULT, correct
from everlora.models.families import Family, Scoring


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """What a model answered on one task.

    Attributes:
        task: name.
        targets: what was asked for, in the order of the task's rows.
        predictions: what was answered.
        correct: per row, whether the answer exactly matches one that is accepted, whatever the metric.
        metric: how the task is scored.
        each: the metric of each row by itself.
        shares: what each row adds to a score that is no mean over rows; empty for all other metrics.
        score: the task's score, percent.
    """

    task: str
    targets: tuple[str, ...]
    predictions: tuple[str, ...]
    correct: tuple[bool, ...]
    metric: str = DEFAULT
    each: tuple[float, ...]
    shares: tuple[float, ...] = ()
    score: float

    def rows(self) -> list[dict[str, Any]]:
        """One plain row per example, for predictions.jsonl; ``score`` where `correct` does not say all.

        The mean of ``share``, where it is there, else of ``score``, else of ``correct`` is the score of the task.
        """
        columns = zip(self.targets, self.predictions, self.correct, self.each, strict=True)
        return [
            {"task": self.task, "row": k, "target": target, "prediction": answer, "correct": right}
            | ({} if self.metric == DEFAULT else {"metric": self.metric, "score": round(value, 6)})
            | ({"share": round(self.shares[k], 6)} if self.shares else {})
            for k, (target, answer, right, value) in enumerate(columns)
        ]


@torch.no_grad()
def answer_rows(
    model: nn.Module,
    family: Family,
    task: Task,
    rows: Sequence[Example],
    scoring: Scoring,
    *,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """What a model answers to rows of a task, greedily, in batches of similar length."""
    was_training = model.training
    model.eval()
    order = sorted(range(len(rows)), key=lambda k: (family.length(rows[k], task), k))
    found: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        found.update(zip(batch, family.predict(model, task, [rows[k] for k in batch], scoring), strict=True))
        progress(len(batch))
    model.train(was_training)
    return [found[k].strip() for k in range(len(rows))]


def score_task(
    model: nn.Module,
    family: Family,
    task: Task,
    *,
    scoring: Scoring = "generate",
    batch_size: int = 16,
    split: str = "test",
    progress: Callable[[int], None] = lambda done: None,
) -> TaskScore:
    """Answer a split greedily, in batches of similar length; the order of rows and the batch size change nothing.

    Raises:
        DataError: labels are to be scored and the task has none.
    """
    if scoring == "labels" and not task.labels:
        raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
    rows = getattr(task, split)
    predictions = tuple(answer_rows(model, family, task, rows, scoring, batch_size=batch_size, progress=progress))
    answered = [row.answered(prediction) for row, prediction in zip(rows, predictions, strict=True)]
    metric = answer_metric(task.metric)
    score, each = metric.score(answered, task.labels)
    return TaskScore(
        task=task.name,
        targets=tuple(row.target for row in rows),
        predictions=predictions,
        correct=tuple(map(correct, answered)),
        metric=task.metric,
        each=each,
        shares=metric.shares(answered, task.labels) if metric.shares else (),
        score=score,
    )
