"""Defines what a teacher says of a task when a learner is taught it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real

from pydantic import JsonValue

from everlora.archive.commits import TestFile
from everlora.archive.history import check_act
from everlora.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Holds what a teacher says of a task, and what of it the learner may keep.

    Attributes:
        by, because: who teaches it, and why.
        train: training arguments that are the task's own.
        test: where its test rows can be read again.
        keep_tests: how many test rows the learner may keep, to be judged by when the data are gone.
        may_lose: points that earlier tasks may lose on average; None for as many as it takes.
        force: commit the task even if it loses more.
        forecast: say before the first step what earlier tasks will lose, and keep what later forecasts need.

    Raises:
        ConfigError: something of another kind, named as `Learner.learn` names it.
    """

    by: str | None = None
    because: str | None = None
    train: Mapping[str, JsonValue] = field(default_factory=dict)
    test: TestFile | None = None
    keep_tests: int = 0
    may_lose: float | None = None
    force: bool = False
    forecast: bool = False

    def __post_init__(self) -> None:
        # Here, before a step is taken: where they are used or written, the task would be trained by then.
        check_act(self.by, self.because, force=self.force, forecast=self.forecast)
        if not isinstance(self.train, Mapping):
            raise ConfigError(f"train is a mapping of names to values, not {self.train!r}")
        object.__setattr__(self, "train", dict(self.train))
        object.__setattr__(self, "keep_tests", checked_keep(self.keep_tests))
        object.__setattr__(self, "may_lose", _checked_budget(self.may_lose))


def checked_keep(rows: object) -> int:
    """Return how many test rows a learner may keep.

    >>> checked_keep(2)
    2

    Raises:
        ConfigError: it is no whole number from 0 on.
    """
    if isinstance(rows, bool) or not isinstance(rows, Integral) or rows < 0:
        raise ConfigError(f"keep_probe is a whole number of test rows, 0 or more, not {rows!r}")
    return int(rows)


def _is_finite(number: Real) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _checked_budget(points: object) -> float | None:
    """Return a budget of forgetting; one below 0 asks for a gain, and one above 100 lets everything pass."""
    if points is None:
        return None
    if isinstance(points, bool) or not isinstance(points, Real) or not _is_finite(points):
        raise ConfigError(f"may_lose {points!r} is no budget; give a finite number of points, or leave it out")
    return float(points)
