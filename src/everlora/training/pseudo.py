"""Lets a model write rows of earlier tasks itself: how it learns to, and how it does so before a new task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from everlora.archive.records import WrittenRows
from everlora.core.errors import DataError
from everlora.core.roles import GenerativeReplay
from everlora.data.task import Example, Task
from everlora.models.families import Family, Features
from everlora.models.families.base import IGNORE
from everlora.runtime.seeds import seed_for
from everlora.training.trainer import REHEARSED, WEIGHT, Rows

AT_ONCE = 16


class WritingRows(Rows):
    """Holds a task's rows, rehearsed ones behind them, and behind these every row of both once more, to be written.

    A row's loss is weighted so that (1 − κ)(L_task + η L_writing) is what an epoch minimises, each term a mean over
    its own tokens: texts are fifty times as long as answers, and in one mean over all tokens they would be all there
    is. The weights are the same for every batch, so that its split changes nothing.
    """

    def __init__(
        self, part: GenerativeReplay, family: Family, tasks: Sequence[Task], rehearsed: Sequence[Task]
    ) -> None:
        super().__init__(family, tasks, rehearsed)
        self.plain, learned = len(self.rows), [*tasks, *rehearsed]
        writing = [to_write(part, family, task) for task in learned] if part.eta else []
        self.rows += [(row, task) for task in writing for row in task.train]
        counts = [
            sum(t != IGNORE for t in super(WritingRows, self).__getitem__(k)["labels"]) for k in range(len(self))
        ]
        total, answers = sum(counts), sum(counts[: self.plain])
        share = (1 - part.kappa if rehearsed else 1.0) * total
        self.weights = (share / answers, part.eta * share / max(1, total - answers))

    def __getitem__(self, index: int) -> Features:
        weight = self.weights[index >= self.plain]
        return {**super().__getitem__(index), REHEARSED: self.fresh <= index < self.plain, WEIGHT: weight}


def to_write(part: GenerativeReplay, family: Family, task: Task) -> Task:
    """Turn a task's training rows into rows whose answer is the row itself, its text cut to the part's length.

    Raises:
        DataError: rows that are no plain text.
    """
    if task.form not in ("labelled", "prompted"):
        raise DataError(f"task {task.name!r} holds {task.form} rows; only rows of plain text can be written anew")
    words: Any = family.processor

    def cut(text: str) -> str:
        ids = words(text, add_special_tokens=False, verbose=False).input_ids
        return text if len(ids) <= part.length else str(words.decode(ids[: part.length], skip_special_tokens=True))

    rows = [Example(part.cue(task.name), part.written(cut(row.input), row.target)) for row in task.train]
    return replace(task, train=rows, test=rows[:1], dev=(), labels=(), instruction="", form="prompted")


@torch.no_grad()
def write(
    part: GenerativeReplay, model: nn.Module, family: Family, tasks: Sequence[Task], *seed: int
) -> tuple[list[Task], dict[str, WrittenRows]]:
    """Let the model write rows of earlier ``tasks``: at most ``per_class`` of each label.

    Of these tasks themselves only name, labels and instruction are looked at.

    Returns:
        The tasks of which anything was written, and by task how many of the texts were rows.
    """
    device = next(model.parameters()).device
    # Written without dropout: the rows are to be those of the model that answers.
    training, found, counts = model.training, [], {}
    model.eval()
    sampling = {"do_sample": True, "top_k": part.top_k, "max_new_tokens": part.length}
    for task in tasks:
        cue = Example(part.cue(task.name), "")
        prompt = replace(task, train=[cue], test=[cue], dev=(), labels=(), instruction="", form="prompted")
        texts: list[str] = []
        # Draws of its own, so that what is written changes no draw of the training that follows.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed_for(seed[0], *seed[1:], task.name, part.name))
            while len(texts) < part.tries:
                cues = [cue] * min(AT_ONCE, part.tries - len(texts))
                texts += family.predict(model, prompt, cues, "generate", sampling)
        parsed = [row for text in texts if (row := part.read(text, task.labels)) is not None]
        counts[task.name] = WrittenRows(written=len(texts), valid=len(parsed))
        rows = first_per_class(parsed, part.per_class)
        if rows:
            found.append(replace(task, train=rows, test=rows[:1], dev=()))
    model.train(training)
    return found, counts


def first_per_class(rows: Sequence[tuple[str, str]], per_class: int) -> list[Example]:
    """Take the first ``per_class`` different rows of every label, in the order in which they were written."""
    counts: dict[str, int] = {}
    found = []
    # Each once: a model repeats itself, and copies would weigh one text more than the others.
    for text, label in dict.fromkeys(rows):
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= per_class:
            found.append(Example(text, label))
    return found
