"""Changes what a learner has learned: prepares another past of it in a folder of its own, and puts that in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.archive.committed import Committed, read_stages
from everlora.archive.exchange import complete_exchange
from everlora.archive.folder import read_run
from everlora.archive.history import Act, learned, note, now
from everlora.core.errors import ConfigError, nearest
from everlora.learner import experiment
from everlora.learner.opened import load_learner, restore, tasks_of
from everlora.learner.scoring import committed_matrix
from everlora.learner.sequential import SequentialLearner
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings


def committed_tasks(path: Path) -> list[Committed]:
    """Return the tasks of a learner that this process writes to, after what an ended process had begun is completed.

    Raises:
        FolderError: no learner, or a damaged one.
        ConfigError: it learns all tasks at once, or nothing.
    """
    record = read_run(path)
    complete_exchange(path)
    if record.composition.regime != "sequence":
        raise ConfigError(f"{record.composition.name!r} learns no task after another, so none can be taken back")
    return read_stages(path)


def number_of(path: Path, stages: Sequence[Committed], name: str) -> int:
    """Return the number of a learned task.

    Raises:
        ConfigError: it was not learned.
    """
    names = [stage.facts.name for stage in stages]
    if name not in names:
        known = f"it knows {', '.join(names)}" if names else "it knows no task yet"
        raise ConfigError(f"{path} has not learned {name!r}{nearest(name, names)}; {known}")
    return names.index(name) + 1


def settle(place: Path, here: RawSettings | None, progress: Progress | None) -> SequentialLearner:
    """Write the files at the root of a prepared learner, as if it had just learned its last task.

    Raises:
        EverloraError: its base model cannot be loaded, or is another one.
    """
    learner = load_learner(place, here, progress=progress)
    known = tasks_of(learner)
    restore(learner, known)
    learner.export()
    experiment.finish(learner, committed_matrix(learner, known))
    return learner


def note_act(place: Path, act: Act, stages: Sequence[Committed]) -> None:
    """Note an act in the history of a prepared learner, behind those by which its tasks so far were learned."""
    last = stages[-1].facts.history if stages else None
    note(place, *learned(stages), act.model_copy(update={"date": now(last)}))
