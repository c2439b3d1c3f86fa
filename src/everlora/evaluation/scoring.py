"""Scores a model on a task: its answers compared with the targets, one score per task and one mark per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from everlora.archive.answers_so_far import AnswersSoFar
from everlora.archive.records import AnswerRow
from everlora.core.errors import DataError
from everlora.data.task import Example, Task, digest_of_rows
from everlora.metrics import answer_metric
from everlora.metrics.answers import AS_WRITTEN, DEFAULT, correct
from everlora.models.families import Family, Scoring

TOKENS = 1024
"""Most tokens of a batch that a CPU answers: more of them are not faster, and pad short rows to the longest."""


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Holds what a model answered on one task, and how good that is.

    Attributes:
        task: name.
        targets: the right answers, in the order of the task's rows.
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

    def rows(self) -> list[AnswerRow]:
        """Return one row per example, for predictions.jsonl."""
        plain = self.metric == DEFAULT  # then whether an answer is right says all
        return [
            AnswerRow(
                task=self.task,
                row=k,
                target=self.targets[k],
                prediction=self.predictions[k],
                correct=self.correct[k],
                metric=None if plain else self.metric,
                score=None if plain else round(self.each[k], 6),
                share=round(self.shares[k], 6) if self.shares else None,
            )
            for k in range(len(self.targets))
        ]


def batches(order: Sequence[int], lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Cut rows into batches of at most so many rows, and of at most so many tokens with their padding.

    >>> batches([2, 0, 1], [3, 8, 2], rows=2, tokens=10)
    [[2, 0], [1]]

    Args:
        order: numbers of rows, the shortest first.
        lengths: of each row by number, in tokens.
        rows: most rows of a batch.
        tokens: most rows times length of a batch of more than one row.
    """
    found: list[list[int]] = []
    for k in order:
        if not found or len(found[-1]) == rows or (len(found[-1]) + 1) * lengths[k] > tokens:
            found.append([])
        found[-1].append(k)
    return found


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
    so_far: AnswersSoFar | None = None,
) -> list[str]:
    """Let a model answer rows, greedily, in batches of similar length; answers come in the rows' order.

    Batches that were answered ``so_far`` are not answered again.
    """
    was_training = model.training
    model.eval()
    # Similar lengths together have little padding. Equal ones go by number, so that batches, on which last bits
    # depend, are the same each time.
    lengths = [family.length(row, task) for row in rows]
    order = sorted(range(len(rows)), key=lambda k: (lengths[k], k))
    digest = digest_of_rows(rows, task.form) if so_far is not None else ""
    found = so_far.known(task.name, digest) if so_far is not None else {}
    on_cpu = next(model.parameters()).device.type == "cpu"
    for batch in batches(order, lengths, batch_size, TOKENS if on_cpu else 32 * TOKENS):
        if not found.keys() >= set(batch):
            new = dict(zip(batch, family.predict(model, task, [rows[k] for k in batch], scoring), strict=True))
            found.update(new)
            if so_far is not None:
                so_far.add(task.name, digest, new)
        progress(len(batch))
    model.train(was_training)
    # Blanks are part of an answer only where nothing of ours stands between it and the prompt.
    bare = task.form == "labelled" or not answer_metric(task.metric).blanks
    return [found[k].strip() if bare else found[k] for k in range(len(rows))]


def score_task(
    model: nn.Module,
    family: Family,
    task: Task,
    *,
    scoring: Scoring = "generate",
    batch_size: int = 16,
    split: str = "test",
    progress: Callable[[int], None] = lambda done: None,
    so_far: AnswersSoFar | None = None,
) -> TaskScore:
    """Let a model answer one split of a task, and score its answers; the order of rows changes nothing.

    Raises:
        DataError: labels are to be scored and the task has none.
    """
    if scoring == "labels" and not task.labels:
        raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
    rows = getattr(task, split)
    predictions = tuple(
        answer_rows(model, family, task, rows, scoring, batch_size=batch_size, progress=progress, so_far=so_far)
    )
    answered = [row.answered(prediction) for row, prediction in zip(rows, predictions, strict=True)]
    metric = answer_metric(task.metric)
    score, each = metric.score(answered, task.labels)
    return TaskScore(
        task=task.name,
        targets=tuple(row.target for row in rows),
        predictions=predictions,
        correct=tuple(value > 0 for value in each) if task.metric in AS_WRITTEN else tuple(map(correct, answered)),
        metric=task.metric,
        each=each,
        shares=metric.shares_of(answered, task.labels),
        score=score,
    )
