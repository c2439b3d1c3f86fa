"""Defines what a teacher says of a task when a learner is taught it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from everlora.archive.commits import TestFile


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
    """

    by: str | None = None
    because: str | None = None
    train: Mapping[str, JsonValue] = field(default_factory=dict)
    test: TestFile | None = None
    keep_tests: int = 0
    may_lose: float | None = None
    force: bool = False
    forecast: bool = False
