"""Opens a learner's folder: all that it needs to answer, to go on and to be judged stands there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from everlora.analysis.runs import method_of
from everlora.archive.commits import TaskCard
from everlora.archive.committed import Committed, read_stages
from everlora.archive.folder import read_run
from everlora.archive.history import HISTORY, Act, check_act, note, now
from everlora.archive.identity import RunRecord
from everlora.archive.manifest import is_begun
from everlora.archive.root import hash_of
from everlora.core.errors import ConfigError, DataError, FolderError, closest, nearest
from everlora.core.expressions import parse
from everlora.core.method import Method
from everlora.data.files import TaskFile
from everlora.data.task import Example, Task
from everlora.data.test_rows import entry_of, load_test
from everlora.learner import experiment
from everlora.learner.learned import stored_tests
from everlora.learner.resolve import refuse_code, resolve
from everlora.learner.same_base import weights_of
from everlora.learner.sequential import SequentialLearner
from everlora.learner.standing import bring_back
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec, RawSettings, RunSpec
from everlora.training import rehearsal
from everlora.training.stages import remembered_task, stages


def create(path: Path, *layers: RawSettings, by: str | None = None, because: str | None = None) -> RunRecord:
    """Make the folder of a learner that has learned nothing yet; its base model is loaded once, to see that it can be.

    Args:
        path: a folder that is empty, or not there.
        layers: settings of a `LearnerSpec`, the later ones winning.
        by: who makes it.
        because: why.

    Raises:
        EverloraError: settings that cannot be used, or a folder that holds something.
    """
    check_act(by, because)
    spec = resolve(LearnerSpec, *layers, rate=parse(_method(layers)).adapter.learning_rate)
    method = parse(spec.method)
    check_teachable(method)
    if path.is_file() or not is_begun(path):
        raise FolderError(f"{path} exists and is not empty; choose another folder, or teach what it holds (learn)")
    if Path(spec.model).exists():  # it must be found from wherever the learner is called
        spec = spec.model_copy(update={"model": str(Path(spec.model).absolute())})
    base = experiment.load_for(spec, style="auto")
    if base.family.limits.chat:  # every server will put questions so
        spec = spec.model_copy(update={"prompt_style": "chat"})
    learner = experiment.begin(spec, method, base, path, progress=Progress())
    with learner.writing():
        (path / HISTORY).unlink(missing_ok=True)  # of a process that ended before it had made the learner
        note(path, Act(act="init", date=now(), tasks=[], by=by, because=because))
        learner.folder.write_manifest(complete=True)
    return learner.folder.record


def _method(layers: Sequence[RawSettings]) -> str:
    named = [str(layer["method"]) for layer in layers if layer.get("method")]
    return named[-1] if named else str(LearnerSpec.model_fields["method"].default)


def check_teachable(method: Method) -> None:
    """Refuse a method that cannot be taught one more task when the data of the earlier ones are gone.

    Raises:
        ConfigError: which, and why.
    """
    if method.regime != "sequence":
        raise ConfigError(f"{method.name!r} learns no task after another; give --method another one, such as ella")
    if rehearsal.draws_for_every_task(method.rehearsal):
        raise ConfigError(
            f"{method.name!r} draws rows from the data of all earlier tasks each time, and a learner does not keep "
            f"them; take a method that stores some of its rows (replay), or none (ella)"
        )


def load_learner(
    path: Path, here: RawSettings | None = None, *, progress: Progress | None = None, read_only: bool = False
) -> SequentialLearner:
    """Load a learner with its base model.

    Args:
        path: its folder.
        here: settings of this process alone: ``device``, ``trust_remote_code``, and ``model``, where its base model is
            found now: by the hashes of its files it must be the same.
        progress: is shown every step; silent by default.
        read_only: write nothing: neither where it is used now, nor what a process that was ended has left undone.

    Raises:
        EverloraError: no learner, a damaged one, another base model, or one that cannot be loaded.
    """
    record = read_run(path)
    method = method_of(path, record)
    spec = spec_of(path, record, here or {})
    base = experiment.load_for(spec, path)
    folder = experiment.open_folder(base, path, record, resume=True, read_only=read_only)
    return SequentialLearner(base, method, spec, folder, progress or Progress())


def tasks_of(learner: SequentialLearner) -> list[Task]:
    """Return the tasks of a learner, as far as their test rows are at hand."""
    return [task for stage in learner.folder.stages() for task in remembered(stage)]


def spec_of(path: Path, record: RunRecord, here: RawSettings) -> LearnerSpec:
    """Return the settings of a learner, with those of this process over them."""
    kind = RunSpec if isinstance(record.settings, RunSpec) else LearnerSpec
    plain = record.settings.model_dump(mode="json")
    weights = weights_of(path)
    typed = {"device": "auto", **({"dtype": weights} if weights else {}), **here}
    learned_with = refuse_code(plain, typed, path / "run.yaml")
    return resolve(kind, learned_with, typed)


def remembered(stage: Committed) -> list[Task]:
    """Make the tasks of a committed stage of their cards, with the test rows that were stored, or are where they were.

    Raises:
        FolderError: the folder is of an everlora that kept no cards.
    """
    stored = stored_tests(stage)
    found = []
    for name in stage.facts.data:
        card = stage.facts.cards.get(name)
        if card is None:
            raise FolderError(
                f"{stage.path} was written by an older everlora, which kept no card of a task; go on with its data, "
                f"and run --resume"
            )
        found.append(remembered_task(name, stage.facts, at_hand(name, card) or stored.get(name, ())))
    return found


def at_hand(name: str, card: TaskCard) -> Sequence[Example]:
    """Read the test rows of a task again, if they still are where they were, and the same; nothing if not."""
    if card.test is None or not Path(card.test.path).is_file() or hash_of(Path(card.test.path)) != card.test.sha256:
        return ()
    try:
        entry = TaskFile(name=name, train=card.test.path, test=card.test.path, **card.test.columns)
        return load_test(entry, card.labels)
    except DataError:
        return ()  # what reads files may have changed since; scores must not depend on how


def restore(learner: SequentialLearner, known: Sequence[Task], task: Task | None = None) -> nn.Module:
    """Bring back all that a learner has learned, and return the model that answers.

    Args:
        learner: just loaded.
        known: its tasks.
        task: whose own adapter answers, where the method has one for each; by default the newest.
    """
    learner.reset()
    learner.backend.plan_tasks(len(known))
    each = learner.method.consolidator.rule == "keep"
    there = learner.folder.stages()
    if [one.facts.name for one in there] != [one.name for one in stages(learner.method, known)]:
        raise FolderError(f"{learner.folder.path} was changed by another process meanwhile; give the command again")
    for stage, committed in zip(stages(learner.method, known), there, strict=True):
        if each and task is not None and stage.tasks[0].name != task.name:
            continue
        bring_back(learner, committed, stage, last=each or stage.number == len(known))
        learner.backend.detach()
    return learner.inference_model()


def task_named(path: Path, known: Sequence[Task], name: str | None) -> Task:
    """Return a task of a learner by its name, or the newest.

    Raises:
        FolderError: it has learned nothing yet.
        ConfigError: it has not learned that.
    """
    if not known:
        raise FolderError(f"{path} holds no learned task yet; teach it one (everlora learn {path} --name … --data …)")
    found = next((one for one in known if one.name == name), None) if name is not None else known[-1]
    if found is None:
        names = [one.name for one in known]
        meant = f"; did you mean {close!r}?" if (close := closest(str(name), names)) is not None else ""
        raise ConfigError(f"{path} has not learned {name!r}{meant}; it knows {', '.join(names)}")
    return found


def given_tests(path: Path, files: Mapping[str, Path], columns: Mapping[str, str]) -> dict[str, Sequence[Example]]:
    """Read test rows of tasks that a learner has learned from files.

    Raises:
        EverloraError: it has not learned such a task, or a file or row cannot be used.
    """
    cards = {name: card for stage in read_stages(path, hashes=False) for name, card in stage.facts.cards.items()}
    found = {}
    for name, file in files.items():
        if name not in cards:
            raise ConfigError(f"{path} has not learned {name!r}{nearest(name, cards)}")
        entry = entry_of(name=name, train=str(file.resolve()), test=str(file.resolve()), **columns)
        found[name] = load_test(entry, cards[name].labels)
    return found
