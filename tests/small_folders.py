"""Makes learners' folders without a learner: records, seals and lists as a run writes them, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import everlora.methods  # noqa: F401
from everlora.archive.commits import HistoryEntry, Scored, StageFacts
from everlora.archive.committed import PREDICTIONS
from everlora.archive.folder import RunFolder
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.records import AnswerRow, Environment
from everlora.archive.results import LearnerFacts
from everlora.archive.schema import write, write_rows
from everlora.core.expressions import parse
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import LearnerSpec

NAMES = ("a", "b", "c")


def record(seed: int = 0) -> RunRecord:
    return RunRecord.of(LearnerSpec(model="m", seed=seed), Composition.of(parse("ella").describe()))


def train(folder: RunFolder, name: str, *, date: str = "2026-01-02T03:04:05Z") -> None:
    """Commit one more task, which is not scored yet."""
    number = len(folder.stages()) + 1
    history = HistoryEntry(date=date, by="ada", because=f"task {number}")
    facts = StageFacts(
        data={name: f"digest-of-{name}"}, labels=[], seconds=1.0, warning=None, strengths={}, cut=0, history=history
    )
    with folder.commit(number, name, facts) as path:
        (path / "adapter_model.safetensors").write_bytes(f"{folder.id} {name}".encode())


def score(folder: RunFolder, *row: float, warning: str | None = None) -> None:
    """Commit an evaluation of the newest task."""
    stage = folder.stages()[-1]
    facts = Scored(row=list(row), seconds=2.0, counts=[2] * len(row), warning=warning)
    with folder.commit_evaluation(stage, facts) as path:
        write_rows(
            path / PREDICTIONS,
            [AnswerRow(task=stage.facts.name, row=k, target="t", prediction=f"{row}", correct=False) for k in (0, 1)],
        )


def make(path: Path, names: Sequence[str] = NAMES, *, seed: int = 0) -> RunFolder:
    """Make a folder with a finished run of these tasks."""
    folder = RunFolder(path, record(seed))
    write(path / "environment.json", Environment(python="3", platform="here", packages={}, threads=1, processes=1))
    matrix = ScoreMatrix.empty(list(names), [2] * len(names))
    for number, name in enumerate(names):
        train(folder, name)
        row = [10.0 * (number + k) for k in range(number + 1)]
        score(folder, *row)
        matrix = matrix.with_row(number, [*row, *[None] * len(names)][: len(names)])
    if names:
        folder.write_matrix(matrix, LearnerFacts(stored_elements=0, adapter_elements=0, memory_bytes=0, method="ella"))
    (path / "README.md").write_text("card")
    folder.write_manifest(complete=True)
    return folder
