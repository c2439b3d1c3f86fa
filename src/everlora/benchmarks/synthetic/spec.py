"""Makes a task from a generator of rows: `Spec` and its splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from everlora.benchmarks.synthetic.dice import Dice
from everlora.core.errors import DataError
from everlora.data.task import Example, Form, Task

SHORTEST_WORDS, LONGEST_WORDS = 8, 40
_PATIENCE = 400


RESERVED = 500
"""Rows of test and of dev that are kept apart from training, even if fewer are asked for."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Holds what is needed to make any number of rows of one task.

    Attributes:
        name: the task's name.
        labels: the answers, in order.
        instruction: one sentence that tells the model what to do.
        draw: makes one input for a label.
        form: ``labelled`` or ``image``.
    """

    name: str
    labels: tuple[str, ...]
    instruction: str
    draw: Callable[[Dice, str], Any]
    form: Form = "labelled"

    def task(self, *, seed: int, train: int, dev: int, test: int) -> Task:
        """Generate the task; no input occurs twice, in one split or in two."""
        # Test and dev come first, and at least RESERVED rows of each are drawn whatever is asked for: so neither more
        # training rows change the test, nor more test rows the training.
        seen: set[bytes] = set()
        drawn = {"test": max(test, RESERVED), "dev": max(dev, RESERVED), "train": train}
        rows = {split: self._rows(Dice(seed, self.name, split), count, seen) for split, count in drawn.items()}
        return Task(
            name=self.name,
            train=rows["train"],
            dev=rows["dev"][:dev],
            test=rows["test"][:test],
            labels=self.labels,
            instruction=self.instruction if self.form == "labelled" else "",
            form=self.form,
            source=f"everlora builtin, data seed {seed}",
        )

    def _rows(self, dice: Dice, count: int, seen: set[bytes]) -> list[Example]:
        rows: list[Example] = []
        while len(rows) < count:
            # Every block holds each label once, so that any first n rows are balanced.
            for label in dice.shuffled(self.labels):
                rows.append(Example(self._fresh(dice, label, seen), label))
        return rows[:count]

    def _fresh(self, dice: Dice, label: str, seen: set[bytes]) -> Any:
        for _ in range(_PATIENCE):
            made = self.draw(dice, label)
            key = made.encode() if isinstance(made, str) else made.tobytes()
            if key in seen or (isinstance(made, str) and not SHORTEST_WORDS <= len(made.split()) <= LONGEST_WORDS):
                continue
            seen.add(key)
            return made
        raise DataError(
            f"task {self.name!r} has no more distinct {label!r} rows after {len(seen)}; ask for fewer rows"
        )
