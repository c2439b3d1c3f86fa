"""Makes the past of a learner one update of chosen rank, from which it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from numbers import Integral
from pathlib import Path

from everlora.adapters import files as adapters
from everlora.analysis.runs import Run
from everlora.archive.atomic import explained
from everlora.archive.committed import Committed, last_scores
from everlora.archive.exchange import exchange, list_tasks, prepare
from everlora.archive.folder import read_run
from everlora.archive.history import Act, check_act, now
from everlora.archive.lock import writing
from everlora.archive.outcome import Outcome
from everlora.core.errors import ConfigError
from everlora.core.method import Method
from everlora.core.updates import LowRank, LowRankUpdates, truncated
from everlora.learner.opened import tasks_of
from everlora.learner.past import committed_tasks, copy_stage, note_act, seal_stage, sealed, settle
from everlora.learner.verbs.evaluate import judge
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings
from everlora.training.memory import FILE as MEMORY

ADAPTER = (adapters.WEIGHTS, "adapter_config.json")


class Compacted(Outcome):
    """Holds what a past of chosen rank is, and what it loses.

    Attributes:
        tasks: whose updates are one now.
        rank, rank_before: of that update, and of all of them together.
        error: ‖M − M̂‖_F / ‖M‖_F over all modules, M being the sum of the updates.
        worst, module: that of the worst module, and its name.
        bytes_before, bytes_after: of the adapters of the tasks.
        scores_before, scores: by task, percent, of those whose test rows are at hand.
        undone: the folder that the former tasks were moved to; None where they were deleted, or nothing was done.
        done: whether the learner was changed, and not only looked at.
    """

    tasks: list[str]
    rank: int
    rank_before: int
    error: float
    worst: float
    module: str
    bytes_before: int
    bytes_after: int
    scores_before: dict[str, float]
    scores: dict[str, float]
    undone: str | None
    done: bool

    def describe(self) -> str:
        """Say what is lost and what is saved."""
        return (
            f"rank {self.rank} in the place of {self.rank_before}: relative error {self.error:.3g}, worst module "
            f"{self.worst:.3g} ({self.module}); {self.bytes_before / 1e6:.2f} MB become "
            f"{self.bytes_after / 1e6:.2f} MB"
        )


def compact(
    path: Path,
    rank: int,
    *,
    by: str | None = None,
    because: str | None = None,
    discard: bool = False,
    dry_run: bool = False,
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> Compacted:
    """Put the nearest update of chosen rank in the place of the updates of all tasks; later tasks go on from it.

    Tasks, labels, stored rows and what parts remember stay. What a single task had added can no longer be told apart:
    the learner cannot be taken back to a task before the newest, nor forget one of them alone.

    Args:
        path: its folder.
        rank: at most so many directions of each module are kept.
        by: who does it, for the history.
        because: why.
        discard: delete the tasks as they were; by default they are moved to a folder below ``undone``.
        dry_run: measure what would be lost, and change nothing.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown what is done.

    Raises:
        EverloraError: a method whose past is no plain sum, or a folder that cannot be used.
    """
    check_act(by, because, discard=discard, dry_run=dry_run)
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise ConfigError(f"the rank must be a whole number, at least 1, not {rank!r}")
    read_run(path)
    with writing(path, (progress or Progress()).warn), explained(path):
        stages = committed_tasks(path)
        run = Run.read(path)
        check_compactable(run.method)
        updates, found = nearest_of(run, rank)
        if dry_run:
            return found
        (progress or Progress()).info(found.describe())  # before anything is done
        place = prepare(path, 0)
        write_compacted(stages, updates, place)
        list_tasks(place)
        learner = settle(place, here, progress)
        known = tasks_of(learner)
        before = last_scores(learner.folder.stages())
        scored = judge(learner).scores if any(len(task.test) for task in known) else {}
        note_act(place, Act(act="compact", date=now(), tasks=found.tasks, by=by, because=because), stages)
        undone = exchange(path, 0, aside=not discard)
    changed = {
        "scores_before": {name: before[name] for name in scored if name in before},
        "scores": scored,
        "undone": str(undone) if undone else None,
        "done": True,
    }
    return found.model_copy(update=changed)


def write_compacted(stages: Sequence[Committed], updates: LowRankUpdates, place: Path) -> None:
    """Write tasks into a prepared learner with one update for all of them, in the folder of the last."""
    *earlier, last = stages
    for stage in earlier:
        facts, scores = sealed(stage)
        folder = copy_stage(stage, place, facts.number, (*ADAPTER, MEMORY))
        seal_stage(folder, facts.model_copy(update={"holdings": None, "within": last.facts.name}), scores)
    facts, scores = sealed(last)
    folder = copy_stage(last, place, facts.number, ADAPTER)
    adapters.write(folder, updates, adapters.read(last.path)[1], like=last.path)
    seal_stage(folder, facts.model_copy(update={"holdings": None}), scores)


def check_compactable(method: Method) -> None:
    """Refuse a method whose past is no plain sum of updates that are read only as a sum.

    Raises:
        ConfigError: why.
    """
    why = None
    if method.consolidator.rule == "continue":
        why = "trains one adapter on and on, so that its past is one update already"
    elif method.consolidator.rule == "keep":
        why = "answers each task with an adapter of its own"
    elif method.merge is not None:
        why = "merges the tasks' updates, for which it needs each of them"
    elif not (method.adapter.loads_with_peft and method.adapter.low_rank and method.adapter.form != "svd"):
        why = f"trains one {method.adapter.noun}, and no plain low-rank updates"
    elif method.initialiser is not None and not method.initialiser.needs.first_task:
        why = "starts a task from the updates of earlier ones, for which it needs them as they were learned"
    if why:
        raise ConfigError(f"{method.name!r} {why}; it cannot be compacted")


def nearest_of(run: Run, rank: int) -> tuple[dict[str, LowRank], Compacted]:
    """Return the nearest update of at most ``rank`` by module, and what it loses."""
    past = run.past()
    updates, lost, sizes = {}, {}, {}
    for name in past.sites:
        exact = past.factors(name)
        updates[name], lost[name] = truncated(exact, rank)
        sizes[name] = float(exact.norm())
    each = {name: lost[name] / sizes[name] if sizes[name] else 0.0 for name in updates}
    worst, total = max(each, key=lambda name: each[name]), hypot(*sizes.values())
    sizes_now = [(stage.path / adapters.WEIGHTS) for stage in run.stages]
    return updates, Compacted(
        tasks=[name for stage in run.stages for name in stage.facts.data],
        rank=max(update.rank for update in updates.values()),
        rank_before=max(past.factors(name).rank for name in past.sites),
        error=hypot(*lost.values()) / total if total else 0.0,
        worst=each[worst],
        module=worst,
        bytes_before=sum(file.stat().st_size for file in sizes_now if file.is_file()),
        bytes_after=4 * sum(update.numel for update in updates.values()),
        scores_before={},
        scores={},
        undone=None,
        done=False,
    )
