"""Describes a trained stage for its COMMIT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from everlora.archive.commits import ProbedRise, StageFacts
from everlora.archive.records import Holdings, Seconds
from everlora.core.updates import Updates
from everlora.data.task import Task
from everlora.learner.state import LearnerState
from everlora.training import memory, rehearsal
from everlora.training.stages import Stage, task_metadata
from everlora.training.task_trainer import TrainingResult


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
        folder: where all of this was saved, to be committed.
    """

    update: Updates
    memory: memory.Memory
    rows: list[Task]
    probes: list[Task]
    probed: ProbedRise | None
    training: TrainingResult
    folder: Path


def stage_facts(
    learner: LearnerState, stage: Stage, seconds: Seconds | float, learned: LearnedTask | None
) -> StageFacts:
    """Describe a finished stage for its COMMIT; ``learned`` is None where nothing was trained."""
    training, rows = (learned.training, [*learned.rows, *learned.probes]) if learned else (None, [])
    holdings = learner.holdings_after(learned.update, learned.memory, rows) if learned else Holdings(kept_bytes=0)
    return StageFacts(
        **task_metadata(stage.tasks, learner.base.family).model_dump(),
        labels=list(learner.base.family.labels),
        seconds=seconds,
        warning="; ".join(training.chain.warnings) or None if training else None,
        strengths=training.chain.strengths() if training else {},
        cut=training.cut if training else 0,
        predicted_rise=training.predicted_rise if training else None,
        probed=learned.probed if learned else None,
        epochs=training.epochs if training else None,
        kept_rows=rehearsal.count(rows),
        kept_row_bytes=rehearsal.size(rows),
        written_rows=training.written_rows if training else None,
        holdings=holdings,
    )
