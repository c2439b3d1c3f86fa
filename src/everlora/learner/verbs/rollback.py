"""Takes a learner back to what it was right after one of its tasks."""

from __future__ import annotations

from pathlib import Path

from everlora.archive.atomic import explained
from everlora.archive.exchange import exchange, prepare
from everlora.archive.folder import read_run
from everlora.archive.history import Act, check_act, now
from everlora.archive.lock import writing
from everlora.archive.outcome import Outcome
from everlora.core.errors import ConfigError
from everlora.learner.past import check_own_scores, committed_tasks, note_act, number_of, settle
from everlora.learner.removal import drop_baseline
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings

START = "start"


class RolledBack(Outcome):
    """Holds what was taken back.

    Attributes:
        task: the last that is known now; None where the learner knows nothing any more.
        number: how many tasks it knows.
        removed: tasks that were taken back.
        undone: the folder that they were moved to; None where they were deleted.
    """

    task: str | None
    number: int
    removed: list[str]
    undone: str | None


def rollback(
    path: Path,
    to: str,
    *,
    by: str | None = None,
    because: str | None = None,
    discard: bool = False,
    here: RawSettings | None = None,
    progress: Progress | None = None,
) -> RolledBack:
    """Take a learner back to what it was right after a task: it is as one that was never taught those behind it.

    Args:
        path: its folder.
        to: name of the task, or ``start`` for a learner that knows nothing.
        by: who does it, for the history.
        because: why.
        discard: delete what is taken away; by default it is moved to a folder below ``undone``.
        here: settings of this process, see `everlora.learner.opened.load_learner`.
        progress: is shown what is done.

    Raises:
        EverloraError: no such task, none behind it, or a folder that cannot be used; the learner is as it was.
    """
    check_act(by, because, discard=discard)
    read_run(path)
    with writing(path, (progress or Progress()).warn), explained(path):
        stages = committed_tasks(path)
        named = any(stage.facts.name == to for stage in stages)
        keep = 0 if to == START and not named else number_of(path, stages, to)
        removed = stages[keep:]
        if not removed:
            what = f"{to!r} is the last task that {path} has learned" if keep else f"{path} has learned nothing yet"
            raise ConfigError(f"{what}, so there is nothing to take back")
        if keep and (holder := stages[keep - 1].facts.within) is not None:
            raise ConfigError(
                f"{to!r} was compacted into one update with the tasks up to {holder!r}, and the learner cannot be "
                f"taken back to what it was between them; the tasks as they were may lie in {path / 'undone'}"
            )
        check_own_scores(path, stages[:keep])
        place = prepare(path, keep)
        names = [name for stage in removed for name in stage.facts.data]
        drop_baseline(place, names)
        if keep:
            settle(place, here, progress)
        note_act(place, Act(act="rollback", date=now(), tasks=names, by=by, because=because), stages)
        undone = exchange(path, keep, aside=not discard)
    last = stages[keep - 1].facts.name if keep else None
    return RolledBack(task=last, number=keep, removed=names, undone=str(undone) if undone else None)
