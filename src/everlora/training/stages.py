"""Plans a run: which tasks are learned together, which are evaluated when, and which row of the matrix that fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from everlora.archive.commits import TaskCard, TaskMetadata
from everlora.archive.committed import Committed
from everlora.core.errors import ConfigError, DataError, FolderError
from everlora.core.method import Method
from everlora.data.task import Example, Form, Remembered, Task, digest_of_rows
from everlora.metrics.answers import AS_WRITTEN, DEFAULT, label_key
from everlora.metrics.scores import Cell, ScoreMatrix
from everlora.models.families import Classifier, Family, Writer
from everlora.runtime.progress import Progress
from everlora.settings.spec import EvalSpec, LearnerSpec, Schedule
from everlora.settings.training import TrainingArgumentsInput, numeric_argument


@dataclass(frozen=True)
class Stage:
    """Holds tasks that are learned together, and the row of the matrix that is filled when they are.

    Attributes:
        number: from 1.
        name: of the task; of the method where several are learned at once.
        tasks: most often one.
        row: of the matrix, from 0.
        trains: whether anything is trained.
        seeded: what random draws depend on: the number, or 1 where tasks know nothing of one another, so that each is
            learned as in a run of its own.
    """

    number: int
    name: str
    tasks: tuple[Task, ...]
    row: int
    trains: bool = True
    seeded: int = 1

    def arguments(self, spec: LearnerSpec) -> TrainingArgumentsInput:
        """Return the training arguments of this stage: those of the run, overridden by those of its task."""
        own = spec.train_of if len(self.tasks) == 1 else None
        return {**spec.train, **(own or {}).get(self.tasks[0].name, {})}


def stages(method: Method, tasks: Sequence[Task]) -> list[Stage]:
    """Divide a stream into stages: one per task, or a single one for the joint and frozen references."""
    last = len(tasks) - 1
    if method.regime == "sequence":
        seeded = [1 if method.independent_tasks else k + 1 for k in range(len(tasks))]
        return [Stage(k + 1, task.name, (task,), k, seeded=seeded[k]) for k, task in enumerate(tasks)]
    return [Stage(1, method.name, tuple(tasks), last, trains=method.regime == "joint")]


def validate_task(task: Task, family: Family, evaluation: EvalSpec, progress: Progress) -> None:
    """Refuse, before anything is trained, a task that could not be learned or answered when its turn comes.

    Rows that were left out of its source are reported, as is whatever else was done to its data.

    Raises:
        DataError: no rows to be scored on, no labels where labels are scored, or rows that the family cannot read.
    """
    if not len(getattr(task, evaluation.split)):
        raise DataError(f"task {task.name!r} has no {evaluation.split} rows to be scored on")
    if evaluation.scoring == "labels" and not task.labels:
        raise DataError(f"task {task.name!r} has no label set to score; evaluate it with generate")
    # Counted from here, so that the warning is of this task alone.
    family.truncated = 0
    family.check(task)
    if evaluation.scoring == "generate" or not task.labels:
        for remark in family.remarks(task):
            progress.warn(f"task {task.name!r}: {remark}")
    if family.truncated:
        rows = len(task.train) + len(task.dev) + len(task.test)
        most = "the model reads" if family.limits.source is None else "--max-source-length"
        progress.warn(f"task {task.name!r}: {family.truncated} of {rows} texts are longer than {most} and are cut")
    for why, count in task.left_out.items():
        progress.info(f"task {task.name!r}: {count} rows left out ({why})")
    for note in task.notes:
        progress.warn(f"task {task.name!r}: {note}")


def shared_rows(tasks: Sequence[Task]) -> list[str]:
    """Say of new tasks with labels that have the names of an earlier one's whether a head takes them for the same."""
    lines = []
    for number, task in enumerate(tasks):
        if task.remembered is not None:  # this was said when it was learned
            continue
        for earlier in tasks[:number]:
            if both := [label for label in task.labels if label in earlier.labels]:
                same = task.shares_labels and earlier.shares_labels
                what = "share rows of the head with" if same else "have rows of their own, apart from"
                named = ", ".join(map(repr, both[:8])) + (", ..." if len(both) > 8 else "")
                other = "shared_labels: false keeps them apart" if same else "shared_labels: true in both shares them"
                lines.append(f"task {task.name!r}: its labels {named} {what} those of {earlier.name!r}; {other}")
                break
    return lines


def check_enough_rows(spec: LearnerSpec, stage: Stage, processes: int) -> None:
    """Refuse a stage none of whose batches is full, where batches that are not full are dropped.

    Raises:
        ConfigError: nothing would be trained.
    """
    train, rows = stage.arguments(spec), sum(len(task.train) for task in stage.tasks)
    batch = int(numeric_argument(train, "per_device_train_batch_size", 8)) * processes
    if train.get("dataloader_drop_last") and rows < batch:
        raise ConfigError(
            f"task {stage.name!r} has {rows} training rows, fewer than a batch of {batch}, and dataloader_drop_last "
            f"drops what does not fill a batch, so that nothing would be learned; lower the batch size, or leave "
            f"dataloader_drop_last out"
        )


def tasks_to_evaluate(
    stage: Stage, tasks: Sequence[Task], schedule: Schedule, method: Method, include_next: bool = False
) -> list[Task]:
    """Choose the tasks whose test rows are answered after a stage; with ``include_next`` also the one that follows.

    That one has not been learned: where a task id chooses an adapter, the newest answers.
    """
    last = stage.row == len(tasks) - 1
    following = list(tasks[stage.row + 1 : stage.row + 2]) if include_next else []
    if method.task_id_at_inference or (schedule == "diagonal" and not last):
        return [stage.tasks[0], *following]
    return [] if schedule == "final" and not last else [*tasks[: stage.row + 1], *following]


def matrix_row(
    stage: Stage, tasks: Sequence[Task], scores: Mapping[str, float], matrix: ScoreMatrix, method: Method
) -> list[Cell]:
    """Make the row of the matrix that a stage fills; None where nothing was evaluated."""
    row = [scores.get(task.name) for task in tasks]
    if not method.task_id_at_inference:
        return row
    # Each task is answered by its own adapter, which never changes again: a[i][j] = a[j][j].
    earlier = matrix.cells[stage.row - 1] if stage.row else (None,) * len(tasks)
    return [old if new is None else new for old, new in zip(earlier, row, strict=True)]


def task_card(task: Task, family: Family) -> TaskCard:
    """Describe a task without its rows, so that it can be answered, gone on from and judged when they are gone."""
    return TaskCard(
        form=task.form,
        instruction=task.instruction,
        labels=list(task.labels),
        shared_labels=task.shared_labels,
        prompt_limit=task.prompt_limit,
        source=task.source,
        template=family.limits.template.text if task.form == "labelled" else None,
        rows={split: len(rows) for split in ("train", "dev", "test") if (rows := getattr(task, split))},
        special=family.special_names(task) if isinstance(family, Writer) and not task.labels else [],
        tests=digest_of_rows(task.test, task.form),
        turns=task.turns,
    )


def remembered_task(name: str, facts: TaskMetadata, test: Sequence[Example] = ()) -> Task:
    """Make a task of what a folder says of it, with whatever test rows of it are at hand."""
    card = facts.cards[name]
    known = Remembered(
        digest=facts.data[name], answer_tokens=facts.max_new_tokens.get(name), special=tuple(card.special)
    )
    return Task(
        name=name,
        train=(),
        test=test,
        labels=tuple(card.labels),
        instruction=card.instruction,
        form=cast(Form, card.form),
        metric=facts.metric.get(name, DEFAULT),
        source=card.source,
        shared_labels=card.shared_labels,
        prompt_limit=card.prompt_limit,
        remembered=known,
    )


def task_metadata(tasks: Sequence[Task], family: Family) -> TaskMetadata:
    """Describe tasks for the record: digests, and where it applies the metric, rows left out, chance and length."""
    lengths = {task.name: family.lengthened(task) for task in tasks}
    levels = {task.name: chance_level(task) for task in tasks}
    return TaskMetadata(
        data={task.name: task.digest() for task in tasks},
        chance={name: level for name, level in levels.items() if level is not None},
        metric={task.name: task.metric for task in tasks if task.metric != DEFAULT},
        left_out={task.name: dict(task.left_out) for task in tasks if task.left_out},
        label_rows={task.name: family.label_rows(task) for task in tasks} if isinstance(family, Classifier) else {},
        max_new_tokens={name: length for name, length in lengths.items() if length is not None},
        cards={task.name: task_card(task, family) for task in tasks},
    )


def chance_level(task: Task) -> float | None:
    """Compute the percentage that guessing among the labels scores; None of free answers and of corpus metrics."""
    names = {label_key(label, task.metric) for label in task.labels}
    known = task.metric in (DEFAULT, *AS_WRITTEN) and task.labels and len(names) == len(task.labels)
    return 100.0 / len(task.labels) if known else None


def check_same_tasks(committed: Sequence[Committed], planned: Sequence[Stage], folder: Path) -> None:
    """Refuse tasks other than those that the folder holds, before anything is touched.

    Raises:
        FolderError: other tasks, fewer tasks, or other data.
    """
    if len(committed) > len(planned):
        raise FolderError(
            f"{folder} holds {len(committed)} learned tasks, more than the {len(planned)} given now; give the same "
            f"tasks, and new ones behind them"
        )
    for done, stage in zip(committed, planned, strict=False):
        if done.facts.name != stage.name:
            raise FolderError(f"{done.path} holds task {done.facts.name!r}, not {stage.name!r}")
        # By content and not by name: a file that was edited since would be taken for what was learned.
        if done.facts.data != {task.name: task.digest() for task in stage.tasks}:
            raise FolderError(f"{done.path} was learned from other data than these; choose another --out")
