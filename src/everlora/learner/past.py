"""Changes what a learner has learned: prepares another past of it in a folder of its own, and puts that in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everlora.archive.atomic import link_tree
from everlora.archive.commits import Commit, Evaluation
from everlora.archive.committed import Committed, folder_name, read_stages
from everlora.archive.exchange import complete_exchange
from everlora.archive.folder import read_run
from everlora.archive.history import Act, learned, note, now
from everlora.archive.manifest import COMMIT
from everlora.archive.root import sha256
from everlora.archive.schema import read_json, write
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
        raise ConfigError(f"{path} has not learned {name!r}{nearest(name, names) if names else ', nor anything yet'}")
    return names.index(name) + 1


def check_own_scores(path: Path, stages: Sequence[Committed]) -> None:
    """Refuse to change what follows tasks that were scored on the one behind them, too.

    Raises:
        ConfigError: which task it is.
    """
    for stage in stages:
        if any(cell is not None for cell in stage.facts.row[stage.facts.number :]):
            raise ConfigError(
                f"{path} was scored on the task behind {stage.facts.name!r} before that was learned (schedule: "
                f"forward), and these scores would be taken for another task's; start a learner with another schedule"
            )


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


def sealed(stage: Committed) -> tuple[Commit, Evaluation | None]:
    """Read what a task's COMMIT says, and that of its newest evaluation, as they are written."""
    scores = stage.evaluation
    return read_json(Commit, stage.path / COMMIT), read_json(Evaluation, scores / COMMIT) if scores else None


def copy_stage(stage: Committed, place: Path, number: int, without: Sequence[str] = ()) -> Path:
    """Copy a task's folder into a prepared learner as its task of another number, to be changed and sealed there.

    Args:
        stage: of which the newest evaluation alone is copied.
        place: the prepared learner.
        number: from 1.
        without: files that will be others, or none.
    """
    target = place / "tasks" / folder_name(number, stage.facts.name)
    target.mkdir(parents=True)
    for inside in stage.path.iterdir():
        if inside.is_file() and inside.name not in (COMMIT, *without):
            link_tree(inside, target / inside.name)
    if stage.evaluation is not None:
        (target / "evaluation-1").mkdir()
        for inside in stage.evaluation.iterdir():
            if inside.name != COMMIT:
                link_tree(inside, target / "evaluation-1" / inside.name)
    return target


def seal_stage(folder: Path, facts: Commit, scores: Evaluation | None) -> None:
    """Write the COMMITs of a task's folder, and of its evaluation, with the hashes of what lies there."""
    write(folder / COMMIT, facts.model_copy(update={"files": _hashes(folder)}))
    if scores is not None:
        place = folder / "evaluation-1"
        write(place / COMMIT, scores.model_copy(update={"files": _hashes(place)}))


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != COMMIT}
