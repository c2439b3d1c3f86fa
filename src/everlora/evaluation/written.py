"""Shows an answer while it is written, token by token."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers.generation import BaseStreamer

from everlora.data.task import Task
from everlora.models.families.writer import Writer

HALF = "\ufffd"
"""What stands for a character of which not all tokens are written yet."""


class Shown(BaseStreamer):
    """Gives the text of one answer on, piece by piece; together the pieces are the answer.

    Args:
        family: that writes it.
        task: as whose row.
        show: is given the pieces.
    """

    def __init__(self, family: Writer, task: Task, show: Callable[[str], None]) -> None:
        self.family, self.task, self.show = family, task, show
        self.tokens: list[int] = []
        self.shown, self._begun = "", False

    def put(self, value: Tensor) -> None:
        """Take a token; the first call is of what the model was given."""
        if not self._begun:
            self._begun = True
            return
        self.tokens += value.reshape(-1).tolist()
        # Blanks at either end are no part of an answer, and half a character is none yet.
        text = self.family.decode([self.tokens], self.task)[0].strip()
        if text.startswith(self.shown) and not text.endswith(HALF):
            self._give(text)

    def end(self) -> None:
        """Take that the answer is written; `finish` is given what it is."""

    def finish(self, answer: str) -> None:
        """Show what is left of an answer, or all of it where it is another than was shown so far."""
        if answer.startswith(self.shown):
            self._give(answer)
        else:
            self.show(f"\n{answer}")

    def _give(self, text: str) -> None:
        if len(text) > len(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text
