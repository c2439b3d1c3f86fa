"""One life of two tasks with what was seen while it was lived, to be looked at by many tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from torch import Tensor

from everlora.learner.sequential import SequentialLearner
from everlora.testing import lives


class Beginning(TypedDict):
    """What a task began with: outputs by task with the adapter and without it, and names of what was on the model."""

    outputs: dict[str, Tensor]
    below: dict[str, Tensor]
    active: list[str]
    adapters: list[str]
    trainable: list[str]


@dataclass
class Record:
    """One life of two tasks, with what was seen while it was lived."""

    life: SequentialLearner
    folder: Path
    began: dict[str, Beginning] = field(default_factory=dict)
    ended: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Outputs on every task known by then, right after a task was learned."""
    final: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)


def live_once(method: str, model: str, folder: Path) -> Record:
    """Live two tasks and write down outputs at the beginning and at the end of each."""
    tasks = {task.name: task for task in lives.stream(model)}
    last: list[str] = []

    def known() -> dict[str, Tensor]:
        family, inside = record.life.base.family, record.life.backend.model or record.life.base.model
        seen = [t for t in tasks.values() if set(t.labels) <= set(getattr(family, "labels", t.labels))]
        return {task.name: lives.outputs(inside, family, task) for task in seen}

    def at_start(stage: str) -> None:
        model = record.life.backend.model
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

    record = Record(life=None, folder=folder)  # type: ignore[arg-type]
    record.life = lives.begin(
        model,
        method,
        folder,
        progress=lives.Watch(learning=at_start, answering=at_answer),
        evaluation={"schedule": "diagonal"},
    )
    record.life.follow(tuple(tasks.values()))
    record.adapter = lives.adapter(record.life) if record.life.newest else {}
    ready = record.life.inference_model()
    family = record.life.base.family
    names = [t for t in tasks.values() if set(t.labels) <= set(getattr(family, "labels", t.labels))]
    record.final = {task.name: lives.outputs(ready, family, task) for task in names}
    if record.life.backend.model is not None:
        record.life.backend.detach()
    return record
