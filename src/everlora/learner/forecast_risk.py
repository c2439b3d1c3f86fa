"""Tells what an update will cost earlier tasks, of the summaries that they left and of what became of them since.

For an update D and each earlier task three figures are taken:

    E  expansion  what D adds to its loss to second order: `everlora.training.forecast_summary.LossModel.terms`
    Q  at stake   what its loss fell by when it was learned, less what was lost since
    o  overlap    of both tasks' output gradients, the mean over matrices, from 0 to 1

The expansion is exact where a loss is quadratic. Real updates are too large for it, and cannot lose more than was
learned:

    rise = S (1 − exp(−κ C / S)),  S = c · √o · Q

with C the part of E that is curved: its slope was found to tell nothing, and so was how far off a learner's earlier
forecasts had been. κ and c are `CURVED` and `STAKED`, and `SPREAD` is how far off such forecasts were; docs/results.md
has what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from everlora.archive.committed import Committed
from everlora.archive.forecast import TaskRisk
from everlora.core.updates import LowRank, LowRankUpdates, Updates, concatenate, difference
from everlora.training import forecast_summary
from everlora.training.forecast_summary import TaskSummary
from everlora.training.forecast_sums import Look

if TYPE_CHECKING:
    from everlora.learner.sequential import SequentialLearner

CURVED, STAKED = 5.0, 0.45
"""κ and c, fitted to other learners than those that docs/results.md judges them by, as all constants here."""
SPREAD = {"nats": (0.6, 0.9, 0.1), "points": (1.0, 0.9, 4.0)}
"""Of an interval: by how many (forecast + third) it reaches below and above the forecast."""
POINTS = 35.0
"""Points that a score drops by for one nat that the loss rises by."""
LEAST = 0.05
"""Of what was learned, that is at stake at least, whatever was lost since."""
TINY = 1e-6


@dataclass(frozen=True)
class Earlier:
    """Holds an earlier task as its folder has it.

    Attributes:
        stage: as it was committed.
        moved: what it added to each matrix.
        summary: what it left for forecasts; None where its folder has nothing.
        share: of what was learned, that is still there.
    """

    stage: Committed
    moved: LowRankUpdates
    summary: TaskSummary | None
    share: float = 1.0

    @property
    def stake(self) -> float:
        """Return Q, nats."""
        return max(self.summary.before - self.summary.after, TINY) * self.share if self.summary else 0.0


def earlier_tasks(learner: SequentialLearner) -> list[Earlier]:
    """Return the learned tasks that have an update of their own, oldest first, with what each of them added."""
    everything = learner.folder.stages()
    stages = [one for one in everything if one.facts.within is None]
    summed = learner.method.consolidator.rule == "sum"
    updates: Sequence[Updates] = list(learner.past) if summed else [learner.backend.load(s.path)[0] for s in stages]
    found: list[Earlier] = []
    for number, (stage, update) in enumerate(zip(stages, updates, strict=True)):
        low = {name: site for name, site in update.items() if isinstance(site, LowRank)}
        if learner.method.consolidator.rule == "continue" and number:
            before = updates[number - 1]
            low = {
                name: difference(site, old) for name, site in low.items() if isinstance(old := before[name], LowRank)
            }
        summary = forecast_summary.read(stage.path)
        share = still_there(everything, stage.facts.name, summary)
        found.append(Earlier(stage, low, summary, share))
    return found


def still_there(stages: Sequence[Committed], name: str, summary: TaskSummary | None) -> float:
    """Return which share of what was learned of a task is left: by its scores, or as forecasts have it without any."""
    names = [one for stage in stages for one in stage.facts.data]
    place, number = names.index(name), next(k for k, one in enumerate(stages) if name in one.facts.data)
    scores = [row[place] if place < len(row := one.facts.row) else None for one in stages[number:]]
    if scores[0] is not None and scores[-1] is not None:
        chance = stages[number].facts.chance.get(name, 0.0)
        share = (scores[-1] - chance) / max(scores[0] - chance, 1.0)
    else:
        made = [one.facts.forecast for one in stages[number + 1 :]]
        lost = sum(risk.nats for one in made if one for risk in one.risks if risk.task == name)
        share = 1 - lost / max(summary.before - summary.after, TINY) if summary else 1.0
    return min(max(share, LEAST), 1.0)


def norm(moved: LowRankUpdates) -> float:
    """Return ‖ΔW‖_F over all matrices."""
    return math.sqrt(sum(float(one.norm()) ** 2 for one in moved.values()))


def sized(moved: LowRankUpdates, size: float) -> dict[str, LowRank]:
    """Return updates as large as ``size`` over all matrices, in the direction that they have."""
    scale = size / max(norm(moved), TINY)
    return {name: LowRank(one.A, one.B, one.scale * scale) for name, one in moved.items()}


def risk(earlier: Earlier, moved: LowRankUpdates, seen: Look, since: Sequence[LowRankUpdates]) -> TaskRisk:
    """Return what one earlier task is expected to lose by an update.

    Args:
        earlier: the task, with its summary.
        moved: the update.
        seen: of the new task.
        since: updates of the tasks behind the earlier one.
    """
    slope, curved, overlaps = 0.0, 0.0, []
    for name, one in (earlier.summary.models if earlier.summary else {}).items():
        if name in moved:
            before = [update[name] for update in since]
            on_slope, on_curve = one.terms(moved[name], concatenate(before) if before else None)
            slope, curved = slope + on_slope, curved + on_curve
            overlaps.append(one.overlap(seen.sums[name].left))
    overlap = fmean(overlaps) if overlaps else 0.0
    nats = rise(curved, overlap, earlier.stake)
    low, high = interval(nats, "nats")
    points_low, points_high = interval(POINTS * nats, "points")
    return TaskRisk(
        task=earlier.stage.facts.name,
        nats=nats,
        nats_low=low,
        nats_high=high,
        points=POINTS * nats,
        points_low=points_low,
        points_high=points_high,
        overlap=overlap,
        stake=earlier.stake,
        slope=slope,
        curved=curved,
    )


def rise(curved: float, overlap: float, stake: float) -> float:
    """Return the rise of a task's loss that is expected of these figures, in nats per row.

    >>> rise(0.2, 0.5, 1.0) > rise(0.1, 0.5, 1.0) > rise(0.1, 0.4, 1.0) > 0
    True
    """
    most = max(STAKED * math.sqrt(max(overlap, 0.0)) * stake, TINY)
    return -most * math.expm1(-CURVED * curved / most)


def interval(expected: float, unit: str) -> tuple[float, float]:
    """Return between which figures a loss or a score will change in 80 % of cases.

    >>> low, high = interval(2.0, "points")
    >>> low < 0 < 2 < high
    True
    """
    below, above, floor = SPREAD[unit]
    return expected - below * (expected + floor), expected + above * (expected + floor)
