"""Records one run of two tasks with what was seen while it ran, to be looked at by many tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from torch import Tensor, nn

from everlora.data.task import Task
from everlora.learner.sequential import SequentialLearner
from everlora.models.families import Family
from everlora.testing import tiny_runs


class Beginning(TypedDict):
    """Holds what a task began with: outputs by task with and without the adapter, and names on the model."""

    outputs: dict[str, Tensor]
    below: dict[str, Tensor]
    active: list[str]
    adapters: list[str]
    trainable: list[str]


@dataclass
class Record:
    """Holds one run of two tasks, with what was seen while it ran."""

    learner: SequentialLearner
    folder: Path
    began: dict[str, Beginning] = field(default_factory=dict)
    ended: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Outputs on every task known by then, right after a task was learned."""
    final: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)


def record_run(method: str, model: str, folder: Path) -> Record:
    """Learn two tasks, and record outputs at the beginning and at the end of each.

    >>> run = record_run("seqlora", "tiny-bert", Path("run"))
    >>> sorted(run.began) == sorted(run.ended)
    True
    """
    tasks = {task.name: task for task in tiny_runs.stream(model)}
    last: list[str] = []

    def known() -> dict[str, Tensor]:
        family, inside = record.learner.base.family, record.learner.backend.model or record.learner.base.model
        return _outputs(inside, family, tasks.values())

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
    record.final = _outputs(record.learner.inference_model(), record.learner.base.family, tasks.values())
    if record.learner.backend.model is not None:
        record.learner.backend.detach()
    return record


def _outputs(model: nn.Module, family: Family, tasks: Iterable[Task]) -> dict[str, Tensor]:
    """Return the outputs on every task that the model can answer by now: a head must have rows for its labels."""
    known = [task for task in tasks if not family.head or set(task.labels) <= set(family.labels)]
    return {task.name: tiny_runs.outputs(model, family, task) for task in known}
