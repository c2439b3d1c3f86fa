"""Describes a trained stage for its COMMIT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from everlora.archive.commits import HistoryEntry, ProbedRise, SpentBudget, StageFacts, TaskCard
from everlora.archive.committed import Committed
from everlora.archive.forecast import Forecast
from everlora.archive.history import now
from everlora.archive.records import Holdings, Seconds
from everlora.core.updates import Updates
from everlora.data.task import Example, Task
from everlora.learner.state import LearnerState
from everlora.runtime.memory import peak_memory
from everlora.training import memory, rehearsal
from everlora.training.stages import Stage, task_card, task_metadata
from everlora.training.task_trainer import TrainingResult

TESTS = "tests.jsonl"
"""Test rows of a task that its teacher lets the learner keep."""


@dataclass(frozen=True)
class LearnedTask:
    """Holds what a trained stage leaves behind.

    Attributes:
        update: the adapter, as it answers from now on.
        memory: what parts remember.
        rows: of the task, that are stored to be learned again.
        probes: rows of the task, that are stored to be looked at.
        probed: what those of all tasks showed.
        training: figures of the training.
        spent: of a budget of forgetting.
        folder: where all of this was saved, to be committed.
        forecast: what earlier tasks were expected to lose.
    """

    update: Updates
    memory: memory.Memory
    rows: list[Task]
    probes: list[Task]
    probed: ProbedRise | None
    training: TrainingResult
    folder: Path
    spent: SpentBudget | None = None
    forecast: Forecast | None = None


def stage_facts(
    learner: LearnerState, stage: Stage, seconds: Seconds | float, learned: LearnedTask | None
) -> StageFacts:
    """Describe a finished stage for its COMMIT; ``learned`` is None where nothing was trained."""
    teaching = learner.teaching
    before = learner.folder.stages()[-1:]
    training, rows = (learned.training, [*learned.rows, *learned.probes]) if learned else (None, [])
    holdings = learner.holdings_after(learned.update, learned.memory, rows) if learned else Holdings(memory_bytes=0)
    return StageFacts(
        **{**task_metadata(stage.tasks, learner.base.family).model_dump(), "cards": cards_of(learner, stage)},
        labels=list(learner.base.family.labels),
        seconds=seconds,
        warning="; ".join(training.chain.warnings) or None if training else None,
        strengths=training.chain.strengths() if training else {},
        cut=training.cut if training else 0,
        predicted_rise=training.predicted_rise if training else None,
        probed=learned.probed if learned else None,
        epochs=training.epochs if training else None,
        stored_rows=rehearsal.count(rows),
        stored_row_bytes=rehearsal.size(rows),
        written_rows=training.written_rows if training else None,
        holdings=holdings,
        history=HistoryEntry(
            date=now(before[0].facts.history if before else None),
            by=teaching.by,
            because=teaching.because,
            train=dict(teaching.train),
            everlora=version("everlora"),
        ),
        spent=learned.spent if learned else None,
        forecast=learned.forecast if learned else None,
        peak_bytes=peak_memory() if learned else None,
    )


def cards_of(learner: LearnerState, stage: Stage) -> dict[str, TaskCard]:
    """Describe the tasks of a stage without their rows."""
    where = {"test": learner.teaching.test}
    return {task.name: task_card(task, learner.base.family).model_copy(update=where) for task in stage.tasks}


def select_tests(tasks: Sequence[Task], most: int, seed: int) -> list[Task]:
    """Draw the test rows of tasks that a learner may keep, as training rows of tasks, to be written."""
    drawn = [task.take(evaluate=most, seed=seed) for task in tasks if most]
    return [replace(task, train=task.test) for task in drawn]


def stored_tests(stage: Committed) -> dict[str, Sequence[Example]]:
    """Read the test rows of a stage's tasks that the learner may keep; those of its evaluation are the newer ones."""
    places = [stage.path, *([stage.evaluation] if stage.evaluation else [])]
    return {task.name: task.train for place in places for task in rehearsal.read_rows(place / TESTS)}
