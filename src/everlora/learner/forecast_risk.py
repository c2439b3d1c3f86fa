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
    """Holds an earlier task as its folder has it; its summary is read when it is needed, since many are large.

    Attributes:
        stage: as it was committed.
        moved: what it added to each matrix.
        share: of what was learned, that is still there; as forecasts have it where it is None, for want of scores.
        lost: what forecasts of later tasks said that it would lose, nats.
    """

    stage: Committed
    moved: LowRankUpdates
    share: float | None = 1.0
    lost: float = 0.0

    @property
    def summarised(self) -> bool:
        """Return whether it left a summary for forecasts."""
        return (self.stage.path / forecast_summary.FILE).is_file()

    def stake(self, summary: TaskSummary) -> float:
        """Return Q, nats."""
        learned = max(summary.before - summary.after, TINY)
        share = 1 - self.lost / learned if self.share is None else self.share
        return learned * min(max(share, LEAST), 1.0)


def earlier_tasks(learner: SequentialLearner) -> list[Earlier]:
    """Return the learned tasks that have an update of their own, oldest first, with what each of them added."""
    everything = learner.folder.stages()
    stages = [one for one in everything if one.facts.within is None]
    updates: Sequence[Updates] = learner.past.deltas
    if learner.method.consolidator.rule == "continue":
        updates = [learner.backend.load(one.path)[0] for one in stages]
    found: list[Earlier] = []
    for number, (stage, update) in enumerate(zip(stages, updates, strict=True)):
        low = {name: site for name, site in update.items() if isinstance(site, LowRank)}
        if learner.method.consolidator.rule == "continue" and number:
            before = updates[number - 1]
            low = {
                name: difference(site, old) for name, site in low.items() if isinstance(old := before[name], LowRank)
            }
        found.append(Earlier(stage, low, *still_there(everything, stage.facts.name)))
    return found


def still_there(stages: Sequence[Committed], name: str) -> tuple[float | None, float]:
    """Return which share of what was learned of a task is left by its scores, and what forecasts said it would lose.

    The share is None where it was not scored both then and last.
    """
    names = [one for stage in stages for one in stage.facts.data]
    place, number = names.index(name), next(k for k, one in enumerate(stages) if name in one.facts.data)
    scores = [row[place] if place < len(row := one.facts.row) else None for one in stages[number:]]
    if scores[0] is not None and scores[-1] is not None:
        chance = stages[number].facts.chance.get(name, 0.0)
        return (scores[-1] - chance) / max(scores[0] - chance, 1.0), 0.0
    made = [one.facts.forecast for one in stages[number + 1 :]]
    lost = [one.lesser.get(name, 0.0) + sum(r.nats for r in one.risks if r.task == name) for one in made if one]
    return None, sum(lost)


def norm(moved: LowRankUpdates) -> float:
    """Return ‖ΔW‖_F over all matrices."""
    return math.sqrt(sum(float(one.norm()) ** 2 for one in moved.values()))


def sized(moved: LowRankUpdates, size: float) -> dict[str, LowRank]:
    """Return updates as large as ``size`` over all matrices, in the direction that they have."""
    scale = size / max(norm(moved), TINY)
    return {name: LowRank(one.A, one.B, one.scale * scale) for name, one in moved.items()}


def risks_of(known: Sequence[Earlier], moved: LowRankUpdates, seen: Look) -> list[TaskRisk]:
    """Return what each earlier task that left a summary is expected to lose by an update, oldest first.

    Args:
        known: the earlier tasks, oldest first.
        moved: the update.
        seen: of the new task.
    """
    # Joined once: the tasks behind a task are the last columns and rows of what all of them have added.
    joined = {name: concatenate([one.moved[name] for one in known if name in one.moved]) for name in moved}
    found = []
    for number, one in enumerate(known, start=1):
        if (summary := forecast_summary.read(one.stage.path)) is None:
            continue
        ranks = {name: sum(k.moved[name].rank for k in known[:number] if name in k.moved) for name in moved}
        since = {name: LowRank(joined[name].A[r:], joined[name].B[:, r:]) for name, r in ranks.items()}
        found.append(risk(one.stage.facts.name, summary, one.stake(summary), moved, seen, since))
    return found


def risk(
    task: str, summary: TaskSummary, stake: float, moved: LowRankUpdates, seen: Look, since: LowRankUpdates
) -> TaskRisk:
    """Return what one earlier task is expected to lose by an update.

    Args:
        task: its name.
        summary: what it left.
        stake: what there is to lose of it, nats.
        moved: the update.
        seen: of the new task.
        since: what was added to each matrix behind the earlier task, of rank 0 where nothing was.
    """
    slope, curved, overlaps = 0.0, 0.0, []
    for name, one in summary.models.items():
        if name in moved:
            on_slope, on_curve = one.terms(moved[name], since[name] if since[name].rank else None)
            slope, curved = slope + on_slope, curved + on_curve
            overlaps.append(one.overlap(seen.sums[name].left))
    overlap = fmean(overlaps) if overlaps else 0.0
    nats = rise(curved, overlap, stake)
    low, high = interval(nats, "nats")
    points_low, points_high = interval(POINTS * nats, "points")
    return TaskRisk(
        task=task,
        nats=nats,
        nats_low=low,
        nats_high=high,
        points=POINTS * nats,
        points_low=points_low,
        points_high=points_high,
        overlap=overlap,
        stake=stake,
        slope=slope,
        curved=curved,
    )


def expected_drop(risks: Sequence[TaskRisk], share: float) -> float:
    """Return the mean drop, in points, that is expected of a share of the update that ``risks`` are of.

    >>> from everlora.archive.forecast import TaskRisk
    >>> expected_drop([], 1.0)
    0.0
    """
    return POINTS * fmean([rise(share**2 * one.curved, one.overlap, one.stake) for one in risks] or [0.0])


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
