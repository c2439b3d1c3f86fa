"""One run of two tasks with what was seen while it ran, to be looked at by many tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from everlora.learner.sequential import SequentialLearner
from everlora.testing import tiny_runs


@dataclass
class Record:
    """One run of two tasks, with what was seen while it ran."""

    learner: SequentialLearner
    folder: Path
    began: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Outputs on every task known by then, right after a task was learned."""
    final: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)


def record_run(method: str, model: str, folder: Path) -> Record:
    """Learn two tasks, and record outputs at the beginning and at the end of each."""
    tasks = {task.name: task for task in tiny_runs.stream(model)}
    last: list[str] = []

    def known() -> dict[str, Tensor]:
        family, inside = record.learner.base.family, record.learner.backend.model or record.learner.base.model
        seen = [t for t in tasks.values() if set(t.labels) <= set(getattr(family, "labels", t.labels))]
        return {task.name: tiny_runs.outputs(inside, family, task) for task in seen}

    def at_start(stage: str) -> None:
        model = record.learner.backend.model
        outputs = known()
        with model.disable_adapter():
            below = known()
        record.began[stage] = {
            "outputs": outputs,
            "below": below,
            "active": list(model.active_adapters),
            "adapters": list(model.peft_config),
            "trainable": [n for n, p in model.named_parameters() if p.requires_grad],
        }
        last.append(stage)

    def at_answer(_: str) -> None:
        if last and last[-1] not in record.ended:
            record.ended[last[-1]] = known()

    record = Record(learner=None, folder=folder)  # type: ignore[arg-type]
    record.learner = tiny_runs.begin(
        model,
        method,
        folder,
        progress=tiny_runs.Watch(learning=at_start, answering=at_answer),
        evaluation={"schedule": "diagonal"},
    )
    record.learner.follow(tuple(tasks.values()))
    record.adapter = tiny_runs.adapter(record.learner) if record.learner.newest else {}
    ready = record.learner.inference_model()
    family = record.learner.base.family
    names = [t for t in tasks.values() if set(t.labels) <= set(getattr(family, "labels", t.labels))]
    record.final = {task.name: tiny_runs.outputs(ready, family, task) for task in names}
    if record.learner.backend.model is not None:
        record.learner.backend.detach()
    return record
