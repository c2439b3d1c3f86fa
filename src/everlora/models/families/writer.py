"""Defines what decoders and encoder-decoders share: how an answer in text is written, ends, and is read back."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import GenerationConfig
from transformers.generation import BaseStreamer

from everlora.core.errors import DataError
from everlora.core.plain import JsonObject
from everlora.data.task import Example, Task
from everlora.data.unscored import unscored
from everlora.metrics import answer_metric
from everlora.models.families.base import Family, GenerationInput, Limits
from everlora.models.families.prompt import Prompter

MARGIN = 4
"""Tokens that an answer may be longer than the longest target; a tenth of that target if it is more."""


@dataclass(frozen=True)
class Targets:
    """Holds what the targets of a task ask of the answers.

    Attributes:
        longest: tokens that an answer may have.
        special: special tokens that stand in targets, which decoding must not strip.
    """

    longest: int
    special: frozenset[int]


class Writer(Family):
    """Is the base of families that answer in text.

    Attributes:
        prompter: writes prompts and answers in tokens.
        pad: the token that fills a batch up.
        ends: tokens at which an answer ends; the first is the one that is learned.
        streamer: what is given each token of an answer as it is written; answers are then written one by one.
    """

    spaced: ClassVar[bool]
    """Whether a blank is written between the template's cue and an answer."""

    def __init__(self, processor: Any, limits: Limits) -> None:
        super().__init__(processor, limits)
        self.prompter = Prompter(processor, limits)
        self.pad = int(processor.pad_token_id if processor.pad_token_id is not None else processor.eos_token_id)
        self.ends: tuple[int, ...] = (int(processor.eos_token_id),)
        self.streamer: BaseStreamer | None = None
        self._targets: dict[int, tuple[weakref.ref[Task], Targets]] = {}

    def reserve(self, tokens: int) -> None:
        super().reserve(tokens)
        self.prompter.limits = self.limits

    def answering(self) -> JsonObject:
        longest = "as targets" if self.limits.follow_targets else self.limits.answer
        found: JsonObject = {"end_tokens": list(self.ends), "max_new_tokens": longest}
        return found | ({"chat_date": self.prompter.date} if self.prompter.date else {})

    def lengthened(self, task: Task) -> int | None:
        longest = None if task.labels else self.targets(task).longest
        return longest if longest is not None and longest > self.limits.answer else None

    def special_names(self, task: Task) -> list[str]:
        """Return the special tokens that stand in a task's targets, by name."""
        return [str(self.processor.added_tokens_decoder[number]) for number in sorted(self.targets(task).special)]

    def answer(self, target: str, task: Task) -> list[int]:
        """Return the tokens of an answer, with the token that ends it."""
        return self.prompter.answer(target, task, spaced=self.spaced)

    def targets(self, task: Task) -> Targets:
        """Return what the targets of a task ask of the answers; it is computed once for each task."""
        # By identity, since a hash would read all rows; and weakly, since a task may end and its id be given to
        # another.
        known = self._targets.get(id(task))
        if known is None or known[0]() is not task:
            found = Targets(self._longest(task), self._special(task))
            known = self._targets[id(task)] = weakref.ref(task), found
        return known[1]

    def _longest(self, task: Task) -> int:
        """Return the tokens that an answer may have: `Limits.answer`, or more where training rows have longer targets.

        A given limit stands. The longest prompt and the answer must fit the context together.
        """
        if task.labels:
            return max(len(self.answer(label, task)) for label in task.labels) + 4
        if task.remembered is not None:
            return task.remembered.answer_tokens or self.limits.answer
        if not self.limits.follow_targets:
            return self.limits.answer
        longest = max(len(self.answer(target, task)) for target in {row.target for row in task.train})
        wanted = longest + max(MARGIN, longest // 10)
        if wanted <= self.limits.answer:
            return self.limits.answer
        return max(self.limits.answer, min(wanted, self._space(task)))

    def _space(self, task: Task) -> int:
        """Return the tokens that the context leaves to an answer after the longest prompt of a task."""
        return self.limits.context

    def _special(self, task: Task) -> frozenset[int]:
        """Return the special tokens other than those of the tokenizer's own bookkeeping that stand in targets."""
        own = {self.processor.bos_token_id, self.processor.unk_token_id, self.pad, *self.ends}
        names = {str(token): number for number, token in self.processor.added_tokens_decoder.items() if token.special}
        if task.remembered is not None and not task.labels:
            return frozenset(names[name] for name in task.remembered.special if name in names)
        texts = task.labels or {row.target for row in task.train}
        return frozenset(n for name, n in names.items() if n not in own and any(name in text for text in texts))

    def generation(self, task: Task, sampling: GenerationInput) -> GenerationConfig:
        """Return how answers are generated: greedy unless ``sampling`` says otherwise, and nothing of a checkpoint."""
        return GenerationConfig(
            **{"max_new_tokens": self.targets(task).longest, **sampling},
            pad_token_id=self.pad,
            eos_token_id=list(self.ends),
        )

    def decode(self, rows: Sequence[Sequence[int]], task: Task) -> list[str]:
        """Return written tokens as text, each up to the first token that ends it.

        Special tokens are left out, but for those that stand in the task's targets and so were learned.
        """
        cut = [row[: next((k for k, token in enumerate(row) if token in self.ends), len(row))] for row in rows]
        learned = self.targets(task).special
        if not learned:
            decoded: list[str] = self.processor.batch_decode(cut, skip_special_tokens=True)
            return decoded
        special = {n for n, token in self.processor.added_tokens_decoder.items() if token.special} - learned
        kept = [[token for token in row if token not in special] for row in cut]
        decoded = self.processor.batch_decode(kept, skip_special_tokens=False)
        return decoded

    def check(self, task: Task) -> None:
        """Check every row, and that no two labels are one to the tokenizer.

        Raises:
            DataError: a row cannot be read, or two labels have the same tokens.
        """
        seen: dict[tuple[int, ...], str] = {}
        for label in task.labels:
            tokens = tuple(self.answer(label, task))
            if tokens in seen:
                raise DataError(
                    f"task {task.name!r}: the labels {seen[tokens]!r} and {label!r} have the same tokens, so that no "
                    f"answer tells them apart: the model's tokenizer cannot write them; give labels other names, or "
                    f"choose a model whose tokenizer knows these letters"
                )
            seen[tokens] = label
        super().check(task)

    def remarks(self, task: Task) -> list[str]:
        """Tell which targets the metric counts as wrong, and which come back from the tokenizer as another answer."""
        rows = {row.target: row for split in (task.train, task.dev, task.test) for row in split}
        found = [why] if (why := unscored(task)) else []
        targets = list(rows)
        texts = self.decode([self.answer(target, task) for target in targets], task)
        changed = [(t, text.strip()) for t, text in zip(targets, texts, strict=True) if text.strip() != t.strip()]
        lost = [(target, text) for target, text in changed if self._worse(rows[target], text, task)]
        if not lost:
            return found
        target, text = lost[0]
        return [
            *found,
            f"{len(lost)} of {len(targets)} different answers come back from the tokenizer as other answers, so that "
            f"they cannot score: {target[:60]!r} is read back as {text[:60]!r}; special tokens, letters that the "
            f"tokenizer does not know, or the text of an end token stand in them",
        ]

    @staticmethod
    def _worse(row: Example, text: str, task: Task) -> bool:
        """Return whether a row's target, read back as ``text``, scores less than itself."""
        score = answer_metric(task.metric).score
        return score([row.answered(text)], task.labels)[0] < score([row.answered(row.target)], task.labels)[0]
