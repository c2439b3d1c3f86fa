"""The role of a part that rehearses without keeping rows: the model writes them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from everlora.core.roles import Rehearsal


@runtime_checkable
class GenerativeReplay(Rehearsal, Protocol):
    """A rehearsal that keeps no rows: before a new task, the model writes some of each earlier one from its cue.

    To be able to, it learns with every task to write that task's rows. What is minimised is
    (1 − κ) · (L_task + η · L_writing), each a mean over its own answer tokens; κ is 0 where nothing was written.

    Attributes:
        eta, kappa: η and κ.
        per_class: rows that are taken of each label.
        tries: texts that are written of each earlier task.
        top_k: a token is drawn from so many of the most likely ones.
        length: tokens of a row's text that are learned, and tokens that are written.
    """

    eta: float
    kappa: float
    per_class: int
    tries: int
    top_k: int
    length: int

    def cue(self, task: str) -> str:
        """The text from which rows of the task of this name are written."""
        ...

    def written(self, text: str, target: str) -> str:
        """A row as it is written behind its cue."""
        ...

    def read(self, said: str, labels: Sequence[str]) -> tuple[str, str] | None:
        """Text and answer of what was written; None if it is no row. ``labels`` is empty where answers are free."""
        ...
