"""Estimates how long a run still takes, from how long its steps and answers have taken so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENOUGH = 3.0
"""Seconds of training from which their pace is believed: the first steps are slower than the rest."""


@dataclass(frozen=True)
class Work:
    """Holds what one stage has to do.

    Attributes:
        label: of its training, as it is shown.
        rows: that it trains on, each as often as it is seen; 0 where nothing is trained.
        answers: rows that are answered after it.
    """

    label: str
    rows: float
    answers: int


@dataclass(frozen=True)
class Plan:
    """Holds what a learner is about to do with tasks.

    Attributes:
        works: of the stages that are still to be done, in order.
        tasks: names of all tasks, in order.
        done: scores of the stages that are done, percent by task.
        folder: of the learner.
        guess: seconds that it may take, from a few rows that were read; None where nobody looked.
        steps: counts those that the stages which are done were trained for, from their logs.
        draw: makes a picture (PNG) of the matrix of such scores; None where nothing draws.
        known: how many of the tasks are learned after each stage; empty for one more after each.
    """

    works: Sequence[Work]
    tasks: Sequence[str] = ()
    done: Sequence[Mapping[str, float]] = ()
    folder: Path | None = None
    guess: float | None = None
    steps: Callable[[], int] = lambda: 0
    draw: Callable[[Sequence[Mapping[str, float]]], bytes | None] | None = None
    known: Sequence[int] = ()

    def learned(self, scores: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
        """Return the scores after each stage without those of tasks that were still to be learned.

        >>> Plan((), ["a", "b"]).learned([{"a": 90.0, "b": 50.0}, {"a": 80.0, "b": 90.0}])
        [{'a': 90.0}, {'a': 80.0, 'b': 90.0}]
        """
        counts = self.known or range(1, len(self.tasks) + 1)
        return [
            {name: score for name, score in row.items() if name in self.tasks[:count]}
            for row, count in zip(scores, counts, strict=False)
        ]


class TimeLeft:
    """Keeps account of what was done and how long it took.

    What lies between training and answers (writing, evidence, merging) is counted by the stage. Before anything was
    answered, the answers to come are left out, and the estimate is too short.

    >>> now = iter([0.0, 0.0, 10.0, 10.0, 14.0, 20.0, 20.0])
    >>> left = TimeLeft([Work("learning a", 100, 40), Work("learning b", 200, 80)], clock=lambda: next(now))
    >>> left.begin("learning a", 5)
    >>> left.advance(5)
    >>> left.begin("answering a", 40)
    >>> left.advance(40)
    >>> left.end_stage()
    >>> left.left()  # 200 rows at 0.1 s, 80 answers at 0.1 s, and 6 s between
    34.0

    Args:
        works: of all stages that are still to be done.
        clock: seconds, from any start.
    """

    def __init__(self, works: Sequence[Work], clock: Callable[[], float] = time.monotonic) -> None:
        self.works, self.clock = list(works), clock
        self.ended = 0
        self.rows = self.answers = 0.0
        self.training = self.answering = 0.0
        self._began = self._phase = clock()
        self._label, self._total = "", 1

    def begin(self, label: str, total: int) -> None:
        """Begin a phase of ``total`` steps, or answers."""
        self._label, self._total, self._phase = label, max(1, total), self.clock()

    def advance(self, steps: int = 1) -> None:
        """Count steps, or answers, of the phase as done."""
        now = self.clock()
        if self._work is not None and self._label == self._work.label:
            self.training += now - self._phase
            self.rows += self._work.rows * steps / self._total
        else:
            self.answering += now - self._phase
            self.answers += steps
        self._phase = now

    def end_stage(self) -> None:
        """Count the current stage as done."""
        self.ended += 1
        # What was counted is set to what was planned, so that a stage that stopped early is not waited for.
        self.rows = sum(work.rows for work in self.works[: self.ended])
        self._label = ""
        self._phase = self.clock()

    @property
    def _work(self) -> Work | None:
        return self.works[self.ended] if self.ended < len(self.works) else None

    @property
    def elapsed(self) -> float:
        """Return the seconds since the first stage began, up to what was counted last."""
        return self._phase - self._began

    @property
    def complete(self) -> bool:
        """Return whether answers were measured, without which the estimate is too short."""
        return self.answers > 0 or not any(work.answers for work in self.works)

    def left(self) -> float | None:
        """Return the seconds that are left; None before enough was measured."""
        if not self.rows or self.training < ENOUGH:
            return None
        rows = max(0.0, sum(work.rows for work in self.works) - self.rows)
        planned = sum(work.answers for work in self.works[self.ended :])
        answered = self.answers - sum(work.answers for work in self.works[: self.ended])
        pace = self.answering / self.answers if self.answers else 0.0
        between = 0.0
        if self.ended:
            rest = max(0.0, self._phase - self._began - self.training - self.answering)
            between = rest / self.ended * (len(self.works) - self.ended)
        return rows * self.training / self.rows + max(0.0, planned - max(0.0, answered)) * pace + between
