"""Defines encoders with a classification head that grows with the labels: of texts, and what images share.

One row per label of each task: labels of one name mean something else in every task, unless both tasks say that they
are shared (`Task.shared_labels`). Rows of labels that are not being learned get neither gradient nor decay. Where the
task is known when answers are made (``labels``), the loss of a row is taken over the labels of its own task, as its
answer is. Where it is not (``generate``), the loss is taken over the labels of all tasks that are learned or rehearsed
together, and answering considers all labels so far.

With ``fixed`` rows nothing of the head is trained: the row of a label is the unit embedding of its name by the model
as it was loaded, so that whatever is learned or forgotten is so in the body.

The head is the last linear layer. Layers between a model's body and the head (a pooler, a dense layer) belong to the
model: a method that trains adapters leaves them as they are. Where the checkpoint has no weights for them they are
drawn from a fixed seed, and written with what is learned, so that any reader finds the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from everlora.core.errors import DataError
from everlora.core.plain import JsonObject
from everlora.data.task import Example, Task
from everlora.models.families.base import GREEDY, Batch, Family, Features, GenerationInput, Limits, Scoring, right_pad
from everlora.models.families.heads import evaluating
from everlora.models.families.label_names import as_named_by, check_label_names, is_word
from everlora.models.families.pooled import Pooling
from everlora.models.families.prompt import cut_middle
from everlora.models.families.store import TokenStore


class Classifier(Family):
    """Answers by a classification head, which grows with the labels.

    Attributes:
        labels: the names of the rows so far: of row k, label k; with its task behind it where another has that name.
        fixed: whether the rows are made of the labels' names, and stay as they are.
        by_task: whether the task of a row is known when it is answered, so that its labels alone are considered.
        head_rows: rows that the model's head has at present.
        n_known: labels known before the present tasks: the first rows of the head.
        trained_rows: rows over which the loss is taken, those of all tasks that are learned together.
    """

    head: str | None = "classifier"
    saved_modules: tuple[str, ...] = ("classifier",)

    def __init__(self, processor: Any, limits: Limits) -> None:
        super().__init__(processor, limits)
        self.by_task = False
        self.known_tokens = TokenStore()
        self._rows: dict[tuple[str | None, str], int] = {}
        self.head_rows = 0
        self.n_known = 0
        self.trained_rows: list[int] = []

    def check(self, task: Task) -> None:
        super().check(task)
        if not task.labels:
            raise DataError(f"task {task.name!r} has no label set, which a classification head needs")

    def prepare(self, model: PreTrainedModel, tasks: Sequence[Task], generator: torch.Generator) -> None:
        super().prepare(model, tasks, generator)
        self.n_known = len(self.labels)
        for task in tasks:
            self._add_rows(task)
        self.trained_rows = sorted({row for task in tasks for row in self.label_rows(task)})
        self.resize(model, generator)

    def snapshot(self, model: PreTrainedModel) -> Any:
        # A copy of the head is trained, so that the module itself stays as it was.
        return list(self.labels), dict(self._rows), self.head_rows, model.get_submodule(str(self.head))

    def restore(self, model: PreTrainedModel, before: Any) -> None:
        super().restore(model, before)
        self.labels, self._rows, self.head_rows, head = before
        model.set_submodule(str(self.head), head)

    def reset(self) -> None:
        super().reset()
        self.labels, self._rows, self.head_rows = [], {}, 0

    def resize(self, model: PreTrainedModel, generator: torch.Generator) -> None:
        """Give the head one row per label: known rows stay, new ones are from N(0, 0.02²) with bias 0.

        >>> from everlora import load
        >>> base = load("tiny-bert", labels=["ham"])
        >>> base.family.labels.append("spam")
        >>> base.family.resize(base.model, torch.Generator().manual_seed(0))
        >>> base.model.config.id2label
        {0: 'ham', 1: 'spam'}
        """
        old = model.get_submodule(str(self.head))
        assert isinstance(old, nn.Linear)
        rows, known = len(self.labels), self.head_rows
        if known == rows and old.out_features == rows:
            return
        new = nn.Linear(old.in_features, rows, dtype=torch.float32, device=old.weight.device)
        with torch.no_grad():
            # Random numbers for all rows, known ones too: those of a new row depend on its index alone.
            fresh = torch.randn(rows, old.in_features, generator=generator) * 0.02
            if self.fixed:
                fresh = self.named_rows(model)
            new.weight.copy_(fresh)
            new.bias.zero_()
            new.weight[:known] = old.weight[:known].float()
            new.bias[:known] = old.bias[:known].float()
        # The head is fp32 even in a bf16 model, and its input is converted.
        new.register_forward_pre_hook(lambda layer, args: (args[0].to(layer.weight.dtype),))
        model.set_submodule(str(self.head), new)
        model.num_labels = rows
        model.config.id2label = dict(enumerate(self.labels))
        model.config.label2id = {label: k for k, label in enumerate(self.labels)}
        self.head_rows = rows

    def named_rows(self, model: PreTrainedModel) -> Tensor:
        """Return what the head reads of each label's name, at length 1, (labels, h): one by one, so that it stays.

        Raises:
            DataError: the family reads no names.
        """
        raise DataError(f"a model of family {self.name!r} reads no names of labels; leave out --head")

    def label_rows(self, task: Task) -> list[int]:
        return [self._row(task, label) for label in task.labels]

    def adopt(self, task: Task, rows: Sequence[int]) -> None:
        """Give the labels of a task the rows they had when it was learned: earlier versions shared those of words."""
        for label, row in zip(task.labels, rows, strict=False):
            if row < len(self.labels):
                self._rows.setdefault(_key(task, label), row)

    def plan_rows(self, tasks: Sequence[Task]) -> tuple[list[str], dict[str, list[int]]]:
        """Return the names of the rows of a head that learns tasks in order, and by task the rows of its labels."""
        self.reset()
        for task in tasks:
            self._add_rows(task)
        found = list(self.labels), {task.name: self.label_rows(task) for task in tasks}
        self.reset()
        return found

    def _row(self, task: Task, label: str) -> int:
        """Return the row of a label; a head that was loaded by names has no tasks and is searched by name."""
        row = self._rows.get(_key(task, label))
        return self._named(task, label) if row is None else row

    def _named(self, task: Task, label: str) -> int:
        """Return the row of a label in a head that was loaded by names: the task's own, where it has one."""
        own = f"{label} ({task.name})"
        return self.labels.index(own if own in self.labels and not task.shares_labels else label)

    def _add_rows(self, task: Task) -> None:
        """Name a row for each label that has none yet."""
        taken = {known for _, known in self._rows}
        for label in task.labels:
            key = _key(task, label)
            if key in self._rows:
                continue
            owned = label in taken
            if not owned and label in self.labels:  # a head that was loaded by names
                self._rows[key] = self._named(task, label)
                continue
            self._rows[key] = len(self.labels)
            self.labels.append(f"{label} ({task.name})" if owned else label)

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.logits_with_known(model, batch)[:2]

    def logits_with_known(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "allowed")}
        logits = self.run(model, inputs).logits.float()
        # Rows of other labels get no gradient: otherwise each row of this task would push them down, which is
        # forgetting. What is compared with former answers is unmasked, since it is of the labels of earlier tasks.
        return logits.masked_fill(~batch["allowed"], -torch.inf), batch["labels"], logits[:, : self.n_known]

    def columns(self, task: Task) -> list[int]:
        """Return the labels over which the loss of a row of a task is taken."""
        return self.label_rows(task) if self.by_task else self.trained_rows

    def _allowed(self, rows: Sequence[Features]) -> Tensor:
        """Return the labels over which the loss of each row is taken, (b, labels)."""
        allowed = torch.zeros(len(rows), len(self.labels), dtype=torch.bool)
        for k, row in enumerate(rows):
            allowed[k, row["columns"]] = True
        return allowed

    def _answer(self, logits: Tensor, task: Task, scoring: Scoring) -> list[str]:
        """Return the label of the largest logit (b, labels), of the task's own or of all."""
        if scoring == "labels":
            return [task.labels[k] for k in logits[:, self.label_rows(task)].argmax(-1).tolist()]
        # A word is an answer whichever task's row gives it; a number of another task says nothing of this one.
        words = dict(enumerate(self.labels)) | {row: word for (_, word), row in self._rows.items() if is_word(word)}
        words |= dict(zip(self.label_rows(task), task.labels, strict=True))
        return [words[k] for k in logits.argmax(-1).tolist()]


def _key(task: Task, label: str) -> tuple[str | None, str]:
    """Return what a row of the head stands for: a label of all tasks, or of one."""
    return (None if task.shares_labels else task.name, label)


class TextClassifier(Classifier):
    """Is an encoder with a head on texts; it sees no instruction, since the head stands for the task."""

    name: ClassVar[str] = "encoder"
    peft_task: ClassVar[str | None] = "SEQ_CLS"
    pooling: Pooling | None = None
    """What the head reads; None where that is not known."""

    def check(self, task: Task) -> None:
        super().check(task)
        if self.fixed:
            check_label_names(task, self.processor, self.limits.context)

    def answering(self) -> JsonObject:
        # A checkpoint's own head says nothing of it, so that its fingerprint is that of earlier versions.
        return {"pooling": self.pooling} if self.pooling not in (None, "head") else {}

    def tokens(self, example: Example, task: Task) -> list[int]:
        """Return the tokens of the text with special tokens, cut at `Limits.source` if that is set.

        Raises:
            DataError: the text is too long and may not be cut, or the task holds chat messages.
        """
        if task.form == "chat":
            raise DataError(f"task {task.name!r} holds chat messages; an encoder with a head needs text and label")
        ids = self.known_tokens.tokens(self.processor, example.input, special=True)
        limit = min(self.limits.context, self.limits.source or self.limits.context)
        if len(ids) > limit:
            if self.limits.source is None and task.prompt_limit is not None:
                self.truncated += 1
                return cut_middle(ids, min(limit, task.prompt_limit))  # its special tokens stand at the ends
            if self.limits.source is None:
                raise DataError(
                    f"task {task.name!r}: a text of {len(ids)} tokens is longer than the model's context of {limit}; "
                    f"set --max-source-length to cut texts"
                )
            self.truncated += 1
            ids = self.known_tokens.tokens(self.processor, example.input, special=True, length=limit)
        return ids

    def features(self, example: Example, task: Task) -> Features:
        return {
            "input_ids": self.tokens(example, task),
            "label": self._row(task, example.target),
            "columns": self.columns(task),
        }

    @torch.no_grad()
    def named_rows(self, model: PreTrainedModel) -> Tensor:
        read: list[Tensor] = []
        head = model.get_submodule(str(self.head))
        hook = head.register_forward_pre_hook(lambda _, args: read.append(args[0]), prepend=True)
        words = dict(enumerate(self.labels)) | {row: label for (_, label), row in self._rows.items()}
        try:
            with evaluating(model):  # no dropout in what stays
                for k in range(len(words)):
                    ids = self.processor(words[k], truncation=True, max_length=self.limits.context).input_ids
                    model(**{key: value.to(model.device) for key, value in self._inputs([ids]).items()})
        finally:
            hook.remove()
        rows = torch.cat(read).float()
        return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def _inputs(self, ids: Sequence[Sequence[int]]) -> Batch:
        """Return padded tokens and their mask, both (b, s)."""
        mask = right_pad([[1] * len(row) for row in ids], 0)
        return {"input_ids": right_pad(ids, int(self.processor.pad_token_id)), "attention_mask": mask}

    def collate(self, rows: Sequence[Features]) -> Batch:
        labels = torch.tensor([row["label"] for row in rows])
        return {**self._inputs([row["input_ids"] for row in rows]), "labels": labels, "allowed": self._allowed(rows)}

    def length(self, example: Example, task: Task) -> int:
        return len(self.tokens(example, task))

    def try_out(self, model: nn.Module, task: Task, rows: Sequence[Example]) -> None:
        device = next(model.parameters()).device
        model(**{k: v.to(device) for k, v in self._inputs([self.tokens(row, task) for row in rows]).items()})

    def predict(
        self,
        model: nn.Module,
        task: Task,
        rows: Sequence[Example],
        scoring: Scoring,
        sampling: GenerationInput = GREEDY,
    ) -> list[str]:
        device = next(model.parameters()).device
        inputs = self._inputs([self.tokens(row, task) for row in rows])
        found = self._answer(self.run(model, {k: v.to(device) for k, v in inputs.items()}).logits, task, scoring)
        return as_named_by(task, found, self.processor, self.limits.context) if self.fixed else found
