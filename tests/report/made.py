"""Makes folders of runs without a model: records, answers and logs as a run writes them, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import everlora.methods  # noqa: F401
from everlora.archive.commits import HistoryEntry, Scored, StageFacts, TaskCard
from everlora.archive.committed import PREDICTIONS
from everlora.archive.folder import RunFolder
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.records import AnswerRow, Environment, Fingerprint, Seconds
from everlora.archive.results import LearnerFacts
from everlora.archive.schema import write, write_rows
from everlora.core.expressions import parse
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import LearnerSpec, RunSpec

TASKS = ("reviews", "news", "intent")
Right = Callable[[int, int, int], bool]
"""Whether a row is answered rightly: stage, task, row, all from 0."""
PRINT = Fingerprint(
    backend="torch",
    weights="float32",
    device="cpu",
    attention=None,
    scoring="labels",
    batch_invariant=True,
    versions={},
)


def forgets(stage: int, task: int, row: int) -> bool:
    """Every task is learned wholly; one row in three is lost again with the next task."""
    return stage == task or row % 3 > 0


def make_run(
    path: Path,
    tasks: Sequence[str] = TASKS,
    *,
    method: str = "ella",
    seed: int = 0,
    rows: int = 6,
    learned: int | None = None,
    right: Right = forgets,
    labels: tuple[str, str] = ("yes", "no"),
    instruction: str = "Say what it is.",
    warning: str | None = None,
    learner: bool = False,
    because: str = "a reason",
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Make a run that has learned the first of its tasks, by default all of them."""
    known = {"model": "tiny-llama", "method": method, "seed": seed, **(settings or {})}
    spec = LearnerSpec(**known) if learner else RunSpec(**known, benchmark="builtin", tasks=list(tasks))
    folder = RunFolder(path, RunRecord.of(spec, Composition.of(parse(method).describe())))
    write(path / "environment.json", Environment(python="3", platform="here", packages={}, threads=1, processes=1))
    matrix = ScoreMatrix.empty(list(tasks), [rows] * len(tasks))
    for i, name in enumerate(tasks[:learned]):
        card = TaskCard(labels=list(labels), instruction=instruction, rows={"train": 9, "test": rows})
        facts = StageFacts(
            data={name: f"digest-{name}"}, chance={name: 50.0}, cards={name: card}, labels=[], cut=i,
            seconds=Seconds(train=1.0 + i), warning=warning, strengths={"energy_overlap": 0.1},
            history=HistoryEntry(date=f"2026-01-0{i + 1}T00:00:00Z", by="R&D", because=because) if learner else None,
        )  # fmt: skip
        with folder.commit(i + 1, name, facts) as place:
            (place / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _log(i)))
            (place / "modules.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _modules(i)))
        answers = [_answer(tasks[j], row, right(i, j, row), labels) for j in range(i + 1) for row in range(rows)]
        marks = [[right(i, j, row) for row in range(rows)] for j in range(i + 1)]
        row = [*(100 * sum(one) / rows for one in marks), *[None] * (len(tasks) - i - 1)]
        scored = Scored(row=row, seconds=0.5, counts=[rows] * len(tasks), fingerprint=PRINT)
        with folder.commit_evaluation(folder.stages()[-1], scored) as place:
            write_rows(place / PREDICTIONS, answers)
        matrix = matrix.with_row(i, row)
    elements = {"stored_elements": 64, "adapter_elements": 32, "memory_bytes": 256}
    folder.write_matrix(matrix, LearnerFacts(**elements, method=method, model="tiny-llama", family="decoder"))
    (path / "README.md").write_text("card")
    folder.write_manifest(complete=True)
    return path


def _answer(task: str, row: int, right: bool, labels: tuple[str, str]) -> AnswerRow:
    target = labels[row % 2]
    return AnswerRow(task=task, row=row, target=target, prediction=target if right else "other", correct=right)


def _log(stage: int) -> list[dict[str, float]]:
    steps: list[dict[str, float]] = [
        {
            "loss": 2.0 / step,
            "rho": 0.1 * stage,
            "lam/energy_overlap": 0.5,
            "penalty/energy_overlap": 0.1,
            "step": step,
        }
        for step in (1, 2, 3)
    ]
    return [*steps, {"train_runtime": 1.0, "train_loss": 1.0, "step": 3}]


def _modules(stage: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "module": f"layer.{k}.query", "penalty": 0.1, "rho": 0.2 * stage, "update_norm": float(step)}
        for step in (1, 3)
        for k in (0, 1)
    ]
