"""Defines the contract of a model family, the same for decoders, encoder-decoders and classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from everlora.core.errors import DataError, ModelError
from everlora.core.plain import JsonObject
from everlora.data.task import Example, Task
from everlora.data.template import Template
from everlora.models.families.frozen import FrozenPart

Scoring = Literal["generate", "labels"]
Batch = dict[str, Tensor]

IGNORE = -100
"""Target of a position without loss."""


class Features(TypedDict, total=False):
    """Holds an example as a model reads it, before rows are padded to a batch; each family has some of these keys.

    Attributes:
        input_ids: tokens that are read.
        labels: targets by position, `IGNORE` where there is no loss.
        label: row of the classification head that is right.
        columns: rows of the head over which the loss is taken.
        example: an image, which the processor turns into pixels batch by batch.
        rehearsed: whether the row is of an earlier task; set by the trainer, where something is rehearsed.
        weight: by which the row's loss is multiplied; set by the trainer, where rows differ in it.
    """

    input_ids: list[int]
    labels: list[int]
    label: int
    columns: list[int]
    example: Example
    rehearsed: bool
    weight: float


GenerationInput = Mapping[str, object]
"""Keywords of `transformers.GenerationConfig`: which there are is for transformers to say."""
GREEDY: GenerationInput = {"do_sample": False}
"""How answers are generated where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Holds lengths in tokens, and the template of a prompt.

    Attributes:
        context: the longest sequence that the model takes, without what is reserved.
        source: longest prompt; longer texts are cut at their end, the instruction and the answer never.
        answer: longest answer that is generated where there is no label set.
        follow_targets: whether answers may be longer where the targets of training rows are.
        template: how a row of text and label is written as a prompt.
        reserved: positions for soft prompts.
        chat: whether rows of text and label, and prompts, are put as the message of a user through the model's chat
            template.
    """

    context: int
    source: int | None = None
    answer: int = 50
    follow_targets: bool = False
    template: Template = field(default_factory=Template)
    reserved: int = 0
    chat: bool = False


class Family(ABC):
    """Defines how one kind of model reads examples, computes its loss and answers.

    Attributes:
        processor: the tokenizer or the image processor.
        limits: lengths and template.
        labels: the names of the rows of the head so far; empty where there is no head.
        truncated: how often a text was cut to `Limits.source`.
        packs: whether rows that are learned are packed where a family can and it pays; set for as long as a trainer
            wants nothing of the inner layers.
        whole_prompts: whether the adapter that is attached looks at all of a prompt before it does anything, or
            draws something for each row, so that no part of a prompt may be read by itself.
        prompt_mask: while `logits` runs, the positions of the prompt in sequences that the answer follows, (b, s);
            else None.
    """

    name: ClassVar[str]
    modality: ClassVar[Literal["text", "image"]] = "text"
    peft_task: ClassVar[str | None]
    head: str | None = None
    """Name of the classification head inside the model, saved with the adapter; None where answers are text."""
    saved_modules: tuple[str, ...] = ()
    """Modules that are written with an adapter: the head, and layers before it without which it answers otherwise."""

    def __init__(self, processor: Any, limits: Limits) -> None:
        self.processor = processor
        self.limits = limits
        self.labels: list[str] = []
        self.truncated = 0
        self.prompt_mask: Tensor | None = None
        self._full_limits = limits
        self.packs = False
        self.whole_prompts = False
        self.frozen: FrozenPart | None = None
        self.fixed = False

    def run(self, model: nn.Module, inputs: Batch, **options: Any) -> Any:
        """Run a model on a batch; what is frozen below the adapted layers once for each text, see `FrozenPart`.

        Args:
            model: adapted or not.
            inputs: what it reads.
            options: further keywords of its forward pass.
        """
        return model(**inputs, **options) if self.frozen is None else self.frozen.run(model, inputs, **options)

    def reserve(self, tokens: int) -> None:
        """Keep ``tokens`` of the model's context free for soft prompts.

        Raises:
            ModelError: they fill the context.
        """
        if tokens >= self._full_limits.context:
            raise ModelError(
                f"prompts of {tokens} tokens leave no room in a context of {self._full_limits.context}; shorten them"
            )
        self.limits = replace(self._full_limits, context=self._full_limits.context - tokens, reserved=tokens)

    def check(self, task: Task) -> None:
        """Check every row of a task before anything is trained, so that no bad row ends a long run late.

        Raises:
            DataError: this family, or this model's processor, cannot read it; the message names the row.
        """
        if task.form == "image" and self.modality != "image":
            raise DataError(f"task {task.name!r} holds images; a model of family {self.name!r} reads text")
        for split in ("train", "dev", "test"):
            for row, example in enumerate(getattr(task, split), start=1):
                try:
                    if not self._surely_fits(example, task):
                        self.check_row(example, task)
                except (DataError, UnicodeEncodeError) as error:
                    half = f"task {task.name!r} holds half a character (a lone surrogate); mend the text"
                    what = half if isinstance(error, UnicodeEncodeError) else error
                    # Rows may have been left out before it, so its number alone does not find it in the file.
                    begin = f", which begins {example.input[:40]!r}" if isinstance(example.input, str) else ""
                    raise DataError(f"{what} ({split} row {row}{begin})") from None

    def check_row(self, example: Example, task: Task) -> None:
        """Check that one row fits the model.

        Raises:
            DataError: it does not.
        """
        self.length(example, task)

    def _surely_fits(self, example: Example, task: Task) -> bool:
        """Return whether a text fits without being tokenised: there are no more tokens than bytes."""
        if task.form != "labelled":
            return False
        # An upper bound that needs no tokenizer: to tokenise every row once more before training takes its time.
        parts = (example.input, task.instruction, *task.labels, example.target)
        size = sum(len(part.encode()) + 2 for part in parts) + 64 + (0 if task.labels else self.limits.answer)
        return size <= min(self.limits.context, self.limits.source or self.limits.context)

    def prepare(self, model: PreTrainedModel, tasks: Sequence[Task], generator: torch.Generator) -> None:
        """Make the base model ready to learn ``tasks``: classifiers add rows for new labels to their head.

        Args:
            model: the base model.
            tasks: the tasks that are about to be learned together.
            generator: source of the new rows.
        """
        self.truncated = 0

    def remarks(self, task: Task) -> list[str]:
        """Tell what is worth a warning before a task is learned; most families have nothing to say."""
        return []

    def lengthened(self, task: Task) -> int | None:
        """Return the length of answers to a task in tokens, where its targets made it longer than `Limits.answer`."""
        return None

    def answering(self) -> JsonObject:
        """Return how answers are made, for the fingerprint of scores; empty where a head answers."""
        return {}

    def label_rows(self, task: Task) -> list[int]:
        """Return the rows of the head that belong to the labels of a task; none where there is no head."""
        return []

    def snapshot(self, model: PreTrainedModel) -> Any:
        """Return what `restore` needs to undo the preparation of a task that is not finished."""
        return None

    def restore(self, model: PreTrainedModel, before: Any) -> None:
        """Bring back the state that `snapshot` returned."""
        self.truncated = 0

    def reset(self) -> None:
        """Forget what `prepare` has built up: the next task starts from the base model."""
        self.truncated = 0

    @abstractmethod
    def features(self, example: Example, task: Task) -> Features:
        """Return one training example as plain lists of numbers."""

    def continuation(self, before: str, text: str) -> Features | None:
        """Return plain text as `features` returns a row, with loss on ``text`` alone; None where no text is written.

        No end-of-sequence token follows; what is longer than the context loses its end.
        """
        return None

    @abstractmethod
    def collate(self, rows: Sequence[Features]) -> Batch:
        """Pad rows to one batch; ``labels`` are aligned with the logits, and `IGNORE` where there is no loss."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the model, and return the logits (n, v) of the n positions with a loss and their targets (n,)."""

    def logits_with_known(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `logits` does, and the logits (n, u) over the u answers that were known before the task."""
        logits, targets = self.logits(model, batch)
        return logits, targets, logits

    def token_masks(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the positions that are no padding, (b, s): of the first stack of layers, and of a decoder behind it.

        None where there is no padding, or no such stack.
        """
        mask = batch.get("attention_mask")
        return None if mask is None else mask.bool(), None

    @abstractmethod
    def predict(
        self,
        model: nn.Module,
        task: Task,
        rows: Sequence[Example],
        scoring: Scoring,
        sampling: GenerationInput = GREEDY,
    ) -> list[str]:
        """Answer one batch of examples; ``sampling`` names settings of `GenerationConfig` where text is generated."""

    def try_out(self, model: nn.Module, task: Task, rows: Sequence[Example]) -> None:
        """Run a model on a batch as answers begin; what comes out does not matter, nor what the head's rows mean."""
        self.predict(model, task, rows, "generate", {**GREEDY, "max_new_tokens": 1})

    @abstractmethod
    def length(self, example: Example, task: Task) -> int:
        """Return the length of an example in tokens, for sorting."""


def left_pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Return token rows padded on the left, (b, s).

    >>> left_pad([[1, 2], [3]], 0)
    tensor([[1, 2],
            [0, 3]])
    """
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])


def right_pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Return token rows padded on the right, (b, s).

    >>> right_pad([[1, 2], [3]], 0)
    tensor([[1, 2],
            [3, 0]])
    """
    width = max(map(len, rows))
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


def positions(mask: Tensor) -> Tensor:
    """Return position ids that do not count padding on the left, (b, s).

    >>> positions(torch.tensor([[0, 1, 1], [1, 1, 1]]))
    tensor([[0, 0, 1],
            [0, 1, 2]])
    """
    return (mask.cumsum(-1) - 1).clamp_min(0)
