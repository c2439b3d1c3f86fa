"""Answers, compared with targets: one score per task and every prediction kept."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from everlora.core.errors import DataError
from everlora.core.spec import EvalSpec
from everlora.core.task import Task
from everlora.engine.families import Family, Scoring
from everlora.engine.progress import Progress

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower-case, delete ASCII punctuation, collapse white space (methods of O-LoRA's line of papers)."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def exact_match(prediction: str, target: str) -> bool:
    """Equality after `normalise`; an answer that normalises to nothing equals only a target that is the same."""
    plain = normalise(prediction)
    return plain == normalise(target) if plain else prediction.strip() == target.strip()


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model answered on one task.

    Attributes:
        task: name.
        targets: what was asked for, in the order of the task's rows.
        predictions: what was answered.
        correct: per row.
    """

    task: str
    targets: tuple[str, ...]
    predictions: tuple[str, ...]
    correct: tuple[bool, ...]

    @property
    def score(self) -> float:
        """Percent correct."""
        return 100.0 * sum(self.correct) / len(self.correct)

    def rows(self) -> list[dict[str, Any]]:
        """One plain row per example, for predictions.jsonl."""
        triples = zip(self.targets, self.predictions, self.correct, strict=True)
        return [
            {"task": self.task, "row": k, "target": target, "prediction": answer, "correct": right}
            for k, (target, answer, right) in enumerate(triples)
        ]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    family: Family,
    task: Task,
    *,
    scoring: Scoring = "generate",
    batch_size: int = 16,
    split: str = "test",
    progress: Callable[[int], None] = lambda done: None,
) -> Scored:
    """Answer a split greedily, in batches of similar length; the order of rows and the batch size change nothing.

    Raises:
        DataError: labels are to be scored and the task has none.
    """
    if scoring == "labels" and not task.labels:
        raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
    was_training = model.training
    model.eval()
    rows = getattr(task, split)
    order = sorted(range(len(rows)), key=lambda k: (family.length(rows[k], task), k))
    answers: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        answers.update(zip(batch, family.predict(model, task, [rows[k] for k in batch], scoring), strict=True))
        progress(len(batch))
    model.train(was_training)
    predictions = tuple(answers[k].strip() for k in range(len(rows)))
    return Scored(
        task=task.name,
        targets=tuple(row.target for row in rows),
        predictions=predictions,
        correct=tuple(exact_match(p, row.target) for p, row in zip(predictions, rows, strict=True)),
    )


def ask(model: nn.Module, family: Family, tasks: Sequence[Task], how: EvalSpec, progress: Progress) -> list[Scored]:
    """Let a model answer the test (or dev) rows of several tasks, one after another."""
    scored = []
    for task in tasks:
        progress.phase(f"answering {task.name}", len(getattr(task, how.split)))
        scored.append(
            evaluate(
                model,
                family,
                task,
                scoring=how.scoring,
                batch_size=how.batch_size,
                split=how.split,
                progress=progress.advance,
            )
        )
        progress.done()
    return scored
