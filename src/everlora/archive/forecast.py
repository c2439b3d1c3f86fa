"""Defines what is said, before the first step of a task, of what earlier tasks will lose by it."""

from __future__ import annotations

from pydantic import Field

from everlora.archive.schema import Record

NAMED = 16
"""Earlier tasks of which a forecast says all: with all of them in every COMMIT, a folder would grow with the square of
its tasks."""


class TaskRisk(Record):
    """Holds what one earlier task is expected to lose; its loss or score may also get better.

    Attributes:
        task: the earlier one.
        nats, nats_low, nats_high: rise of its mean loss per row, and the interval that holds it in 80 % of cases.
        points, points_low, points_high: the same as a drop of its score, in points.
        overlap: of the output gradients of both tasks, from 0 to 1.
        stake: what its loss fell by when it was learned, less what was lost since, in nats.
        slope, curved: terms of the expansion of its loss, in nats, for an update as large as earlier ones were.
    """

    task: str
    nats: float
    nats_low: float
    nats_high: float
    points: float
    points_low: float
    points_high: float
    overlap: float
    stake: float
    slope: float
    curved: float

    @property
    def text(self) -> str:
        """Return points and their interval in words."""
        return f"{self.points:.1f} ({self.points_low:.1f} to {self.points_high:.1f})"


class Forecast(Record):
    """Holds the forecast of a task, made before its first step.

    Attributes:
        risks: of the earlier tasks that have a summary, the largest first, and no more than `NAMED`.
        lesser: nats of the others, which are expected to lose less.
        unknown: earlier tasks that have none.
        reason: why there is no forecast at all; None where there is one.
        rows: of the new task, that were looked at.
        share: of the row passes of its training that this took.
        size: of the update, as earlier ones were: ‖ΔW‖ over all matrices.
    """

    risks: list[TaskRisk] = Field(default_factory=list)
    lesser: dict[str, float] = Field(default_factory=dict)
    unknown: list[str] = Field(default_factory=list)
    reason: str | None = None
    rows: int = 0
    share: float = 0.0
    size: float = 0.0
