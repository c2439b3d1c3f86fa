"""Makes the records of a learner: what it keeps for its next task, and what is written of it and of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from everlora.analysis.holdings import measure_holdings
from everlora.archive.records import Holdings, Score, Seconds, StageFacts
from everlora.archive.results import LearnerFacts, ScoredProtocol, Storage
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRankUpdates, Updates
from everlora.data.task import Task
from everlora.training import memory, rehearsal
from everlora.training.stages import Stage, task_metadata

if TYPE_CHECKING:
    from everlora.learner.sequential import LearnedTask, SequentialLearner


def measure_storage(
    past: UpdateHistory | None, newest: Updates, remembered: memory.Memory, rows: Sequence[Task]
) -> Storage:
    """Measure what is kept for the next task, which the method's declaration must equal.

    Args:
        past: every task's update; None where one adapter is trained on and on, which is then all there is.
        newest: the adapter of the latest task.
        remembered: what parts remember beside the updates.
        rows: the rows of earlier tasks that are stored.
    """
    adapter = sum(update.numel for update in newest.values())
    elements = adapter if past is None else past.numel
    return Storage(
        kept_elements=elements,
        adapter_elements=adapter,
        kept_bytes=4 * elements + memory.size(remembered) + rehearsal.size(rows),
        kept_rows=rehearsal.count(rows),
        kept_row_bytes=rehearsal.size(rows),
    )


def learner_facts(learner: SequentialLearner) -> LearnerFacts:
    """Describe a learner for matrix.json."""
    protocol, stages = learner.folder.record.protocol, learner.folder.stages()
    evaluation = learner.spec.evaluation.model_dump()
    return LearnerFacts(
        **learner.storage().model_dump(),
        **learner.export_loss.model_dump(),
        method=learner.method.name,
        model=learner.spec.model,
        family=learner.base.family.name,
        task_id_at_inference=learner.method.task_id_at_inference,
        replay=learner.method.sees_again,
        protocol=ScoredProtocol(**protocol.model_dump(), **evaluation) if protocol else None,
        labels=stages[-1].facts.labels,
    )


def stage_facts(
    learner: SequentialLearner, stage: Stage, row: list[Score], seconds: Seconds | float, learned: LearnedTask | None
) -> StageFacts:
    """Describe a finished stage for its COMMIT; ``learned`` is None where nothing was trained."""
    evaluator, tasks = learner.evaluator, task_metadata(stage.tasks)
    training, rows = (learned.training, learned.rows) if learned else (None, [])
    return StageFacts(
        **tasks.model_dump(),
        row=row,
        fingerprint=evaluator.fingerprint(),
        general=evaluator.general,
        labels=list(getattr(learner.base.family, "labels", [])),
        seconds=seconds,
        warning="; ".join(training.chain.warnings) or None if training else None,
        strengths=training.chain.strengths() if training else {},
        cut=training.cut if training else 0,
        kept_rows=rehearsal.count(rows),
        kept_row_bytes=rehearsal.size(rows),
        written_rows=training.written_rows if training else None,
        holdings=_holdings(learner, learned),
    )


def _holdings(learner: SequentialLearner, learned: LearnedTask | None) -> Holdings:
    """Measure what the learner holds once the stage has joined its history."""
    if learned is None:
        return Holdings(kept_bytes=learner.storage().kept_bytes)
    past, rows = learner.past_after(learned.update), [*learner.stored_rows, *learned.rows]
    continued = learner.method.consolidator.rule == "continue"
    kept = measure_storage(None if continued else past, learned.update, learned.memory, rows)
    if continued:  # then the one adapter is the past of the next task
        past = UpdateHistory((cast(LowRankUpdates, learned.update),))
    return measure_holdings(learner.method, past, learned.memory, kept.kept_bytes)
