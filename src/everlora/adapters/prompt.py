"""Trains the form ``prompt`` (LFPT5): one soft prompt for all tasks, behind the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from everlora.adapters.prompts import PromptBackend, PromptParameters
from everlora.core.errors import ModelError
from everlora.core.updates import Updates
from everlora.data.task import Task


class SharedPromptBackend(PromptBackend):
    """Trains one prompt from task to task; it starts from words that describe the tasks."""

    forms = ("prompt",)
    behind = True

    def tokens(self) -> int:
        return int(self.settings.length)

    def initialise(self, start: Updates | None, tasks: Sequence[Task]) -> nn.Module:
        words = self.vocabulary()
        if words is None or self.base.family.head:
            raise ModelError(f"{self.base.name!r} does not answer in text, which a prompt behind the text needs")
        texts = [
            self.settings.phrase,
            *(task.name for task in tasks),
            *(name for task in tasks for name in task.labels),
        ]
        means = [words[ids].mean(0) for text in texts if (ids := self._ids(text))]
        leading = torch.stack(means)[: self.settings.length] if means else words[:0]
        # Tokenizers number their tokens by frequency, but for special ones: low ids are common words.
        special = set(self.base.family.processor.all_special_ids)
        common = [k for k in range(min(len(words), self.settings.frequent + len(special))) if k not in special]
        drawn = torch.randint(len(common), (self.settings.length - len(leading),))
        return PromptParameters(prompt=torch.cat([leading, words[torch.tensor(common)[drawn]]]))

    def _ids(self, text: str) -> list[int]:
        """Return the tokens of a text without special tokens."""
        return list(self.base.family.processor(text, add_special_tokens=False, verbose=False).input_ids)

    def prompts(self, embeds: Tensor, real: Tensor) -> Tensor:
        prompt: Tensor = self.holder.prompt
        return prompt.expand(len(embeds), -1, -1)
