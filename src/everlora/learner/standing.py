"""Tells what a learner need not do again: tasks that it has in memory, files at the root that are there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from everlora.archive.committed import Committed
from everlora.archive.folder import read_matrix
from everlora.archive.manifest import read_manifest
from everlora.archive.results import ExportLoss
from everlora.archive.root import MATRIX, hash_of
from everlora.learner.state import LearnerState
from everlora.metrics.scores import ScoreMatrix
from everlora.models.families import Classifier
from everlora.runtime.progress import spent
from everlora.training import rehearsal
from everlora.training.stages import Stage


def in_memory(learner: LearnerState, committed: Sequence[Committed]) -> bool:
    """Return whether all that was committed is in memory, as a learner that goes on from task to task has it.

    Not of a head, whose rows questions may have changed, nor where rows are those of the tasks that are given.
    """
    if learner.standing != tuple(one.seal.commit for one in committed) or not all(one.evaluated for one in committed):
        return False
    fixed = learner.method.consolidator.rule != "keep" and not isinstance(learner.base.family, Classifier)
    return fixed and not rehearsal.draws_for_every_task(learner.method.rehearsal)


def bring_back(learner: LearnerState, committed: Committed, stage: Stage, *, last: bool) -> nn.Module:
    """Bring back a committed stage and note that it is in memory; see `LearnerState.restore_task`."""
    model = learner.restore_task(committed, stage, last=last)
    learner.standing = (*learner.standing, committed.seal.commit)
    return model


def root_stands(learner: LearnerState) -> bool:
    """Return whether the files at the root are whole and of all tasks; the learner then knows what they have lost."""
    path = learner.folder.path
    known = manifest.files if (manifest := read_manifest(path)) is not None else None
    if known is None or MATRIX not in known:
        return False
    if not all((path / name).is_file() and hash_of(path / name) == digest for name, digest in known.items()):
        return False
    record = read_matrix(path)
    learner.export_loss = ExportLoss(export_rank=record.export_rank, export_error=record.export_error)
    return True


@spent("saving")
def write_root(learner: LearnerState, stage: Stage, matrix: ScoreMatrix, *, new: bool) -> None:
    """Write the learner as it stands after a stage to the root of the folder, and the matrix.

    Args:
        learner: has it in memory.
        stage: the last one that is committed.
        matrix: its scores so far.
        new: whether the stage was committed just now; otherwise what is written already stays.
    """
    if not new and root_stands(learner):
        return
    learner.folder.write_manifest()  # the files at the root are others from now on
    if stage.trains:
        learner.export()
    learner.folder.write_matrix(matrix, learner.facts())
