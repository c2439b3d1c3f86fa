"""What the engine asks of a model family: four verbs, the same for decoders, encoder-decoders and classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from everlora.core.errors import DataError, ModelError
from everlora.data.task import Example, Task
from everlora.data.template import Template

Scoring = Literal["generate", "labels"]
Features = dict[str, Any]
Batch = dict[str, Tensor]

IGNORE = -100
"""Target of a position that carries no loss."""


GREEDY: Mapping[str, Any] = {"do_sample": False}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How prompts are written, and lengths in tokens.

    Attributes:
        context: the longest sequence that the model takes, without what is reserved.
        source: longest prompt; longer texts are cut at their end, the instruction and the answer never.
        answer: longest answer that is generated where the label set is open.
        template: how a row of text and label is shown.
        reserved: what stands among a text's tokens and is none of them (soft prompts).
    """

    context: int
    source: int | None = None
    answer: int = 50
    template: Template = field(default_factory=Template)
    reserved: int = 0


class Family(ABC):
    """How one kind of model reads examples, learns from them and answers."""

    name: ClassVar[str]
    modality: ClassVar[Literal["text", "image"]] = "text"
    peft_task: ClassVar[str | None]
    head: ClassVar[str | None] = None
    """Name of the classification head inside the model, saved with the adapter; None where answers are text."""

    def __init__(self, processor: Any, limits: Limits) -> None:
        self.processor = processor
        self.limits = limits
        self.truncated = 0
        """Times that a text was cut to `Limits.source`."""
        self.prompt_mask: Tensor | None = None
        """While `logits` runs: where the prompt stands in sequences that the answer follows, (b, s); else None."""
        self._full_limits = limits

    def reserve(self, tokens: int) -> None:
        """Keep ``tokens`` of the model's context free for what is put among a text's tokens (soft prompts).

        Raises:
            ModelError: the context has no room for them.
        """
        if tokens >= self._full_limits.context:
            raise ModelError(
                f"prompts of {tokens} tokens leave no room in a context of {self._full_limits.context}; shorten them"
            )
        self.limits = replace(self._full_limits, context=self._full_limits.context - tokens, reserved=tokens)

    def check(self, task: Task) -> None:
        """Look at a task, row by row, before anything is trained: a bad last row must not cost the earlier days.

        Raises:
            DataError: this family, or this model's processor, cannot read it; the message names the row.
        """
        if task.form == "image" and self.modality != "image":
            raise DataError(f"task {task.name!r} holds images; a model of family {self.name!r} reads text")
        for split in ("train", "dev", "test"):
            for row, example in enumerate(getattr(task, split), start=1):
                if self._surely_fits(example, task):
                    continue
                try:
                    self.length(example, task)
                except DataError as error:
                    # Rows may have been left out before it, so its number alone does not find it in the file.
                    begin = f", which begins {example.input[:40]!r}" if isinstance(example.input, str) else ""
                    raise DataError(f"{error} ({split} row {row}{begin})") from None

    def _surely_fits(self, example: Example, task: Task) -> bool:
        """Whether a text need not be tokenised to know that it fits: there are no more tokens than bytes."""
        if task.form != "labelled":
            return False
        parts = (example.input, task.instruction, *task.labels, example.target)
        size = sum(len(part.encode()) + 2 for part in parts) + 64 + (0 if task.labels else self.limits.answer)
        return size <= min(self.limits.context, self.limits.source or self.limits.context)

    def prepare(self, model: PreTrainedModel, tasks: Sequence[Task], generator: torch.Generator) -> None:
        """Make the bare model ready for ``tasks``: classifiers grow their head here."""
        self.truncated = 0

    def snapshot(self, model: PreTrainedModel) -> Any:
        """What `restore` needs to undo a task that was begun and not finished."""
        return None

    def restore(self, model: PreTrainedModel, before: Any) -> None:
        """Bring back what `snapshot` saw."""
        self.truncated = 0

    def reset(self) -> None:
        """Forget what `begin` has built up: the next task starts from the bare model."""
        self.truncated = 0

    @abstractmethod
    def features(self, example: Example, task: Task) -> Features:
        """Turn one training example into plain lists of numbers."""

    def continuation(self, before: str, text: str) -> Features | None:
        """What `features` makes of a row, of plain text whose end alone carries loss; None where no text is written.

        No end of sequence follows; what is longer than the context loses its end.
        """
        return None

    @abstractmethod
    def collate(self, rows: Sequence[Features]) -> Batch:
        """Pad rows to one batch; ``labels`` are aligned with the logits, `IGNORE` where there is no loss."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the model; return the logits (n, v) of the n positions that carry loss, and their targets (n,)."""

    def logits_with_known(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """`logits`, and beside them the logits (n, u) over the u answers that were known before the task."""
        logits, targets = self.logits(model, batch)
        return logits, targets, logits

    def token_masks(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Which positions are no padding, (b, s): of the only or first stack, and of a decoder behind it.

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
        sampling: Mapping[str, Any] = GREEDY,
    ) -> list[str]:
        """Answer one batch of examples; ``sampling`` names settings of `GenerationConfig` where text is generated."""

    @abstractmethod
    def length(self, example: Example, task: Task) -> int:
        """Length of the example in tokens, for sorting."""


def left_pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Pad token rows on the left to (b, s)."""
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])


def right_pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Pad token rows on the right to (b, s)."""
    width = max(map(len, rows))
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


def positions(mask: Tensor) -> Tensor:
    """Position ids that ignore padding on the left, (b, s)."""
    return (mask.cumsum(-1) - 1).clamp_min(0)
