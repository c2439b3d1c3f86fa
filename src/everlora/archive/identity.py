"""Defines run.yaml: what a run is, and the hash that tells it from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator

from everlora.archive.schema import OpenRecord, Record
from everlora.core.description import MethodDescription
from everlora.core.plain import JsonObject
from everlora.settings.lora import OF_PAIRS, OF_TARGETS
from everlora.settings.setting import settings_of
from everlora.settings.spec import LearnerSpec, RunSpec

Origin = dict[str, str]
"""Where a method of a user's own is from: package and version, or file and hash, see `everlora.core.plugins`."""


class PartRecord(OpenRecord):
    """Holds a part of a method: its name, and whatever settings it has."""

    part: str


class Composition(OpenRecord):
    """Holds what a method is made of, as `everlora.core.method.Method.describe` tells it."""

    name: str
    regime: Literal["sequence", "joint", "frozen"]
    consolidator: Literal["sum", "continue", "keep"]
    rehearsal: PartRecord | None = None

    @classmethod
    def of(cls, described: MethodDescription) -> Self:
        """Return the record of a description, with values as they come back from a file."""
        return cls.model_validate(json.loads(json.dumps(described.plain(), default=str)))

    def plain(self) -> JsonObject:
        """Return exactly what was described: the hash of a run is of it."""
        found: JsonObject = self.model_dump(mode="json", exclude_unset=True)
        return found


class RunProtocol(Record):
    """Holds the protocol that a run's settings come to: its hash, and any name, and whether it was changed."""

    hash: str
    name: str | None = None
    changed: bool | None = None

    def describe(self) -> str:
        """Say for a reader of numbers by which protocol they were made.

        >>> RunProtocol(hash="0123456789ab", name="o-lora", changed=True).describe()
        'o-lora with changes (0123456789ab)'
        """
        return f"{self.name}{' with changes' if self.changed else ''} ({self.hash})" if self.name else self.hash


def _kind(settings: Any) -> str:
    """Return whether settings are of a run, which follows a benchmark, or of a learner of tasks in Python."""
    return "run" if isinstance(settings, RunSpec) or "benchmark" in settings else "learner"


Settings = Annotated[Annotated[RunSpec, Tag("run")] | Annotated[LearnerSpec, Tag("learner")], Discriminator(_kind)]


class RunRecord(Record):
    """Holds what run.yaml says: what a run is.

    Attributes:
        id: hash that tells it from other runs, see `identity`.
        settings: all of them, resolved.
        composition: of the method.
        protocol: what the settings come to as a protocol.
        origin: of methods that are not everlora's own.
        processes: that shared each step's rows when the run began.
    """

    id: str
    settings: Settings
    composition: Composition
    protocol: RunProtocol | None = None
    origin: list[Origin] = Field(default_factory=list)
    processes: int = 1

    @field_validator("settings", mode="before")
    @classmethod
    def _complete(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and "method" not in settings:
            raise ValueError("the settings of a run name its method")  # which would else be taken for the default
        return settings

    @classmethod
    def of(
        cls,
        settings: LearnerSpec,
        composition: Composition,
        protocol: RunProtocol | None = None,
        origin: Sequence[Origin] = (),
        processes: int = 1,
    ) -> Self:
        """Return the record of a run that is about to begin."""
        known = identity(settings, composition, processes)
        return cls(
            id=known,
            settings=settings,
            composition=composition,
            protocol=protocol,
            origin=list(origin),
            processes=processes,
        )

    def plain(self) -> JsonObject:
        """Return the record as plain data, with every setting spelt out."""
        complete: JsonObject = {
            "settings": self.settings.model_dump(mode="json"),
            "composition": self.composition.plain(),
        }
        return {"id": self.id, **complete, **{k: v for k, v in super().plain().items() if k not in complete}}


UNCHANGING = tuple(one.path for one in settings_of(RunSpec) if one.setting.changes == "nothing")
NOT_IDENTIFYING = tuple(path[0] for path in UNCHANGING if len(path) == 1)
"""Settings that do not tell one run from another: where the data lie, how method and protocol are spelt, and which
tasks are followed: a learner may go on with more tasks, and every task that was learned is compared by itself."""


SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Into which a step's rows are split, over micro-batches of every process."""


def whole_batch(train: JsonObject, processes: int, given: JsonObject | None = None) -> JsonObject:
    """Return training arguments in which a step's rows are one batch of one process, however they are split.

    >>> whole_batch({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}, 2)
    {'per_device_train_batch_size': 8, 'gradient_accumulation_steps': 1}

    Args:
        train: the arguments; those of one task may leave some of them to the run.
        processes: that share a step's rows.
        given: arguments of the run, under those of a task.
    """
    unsplit = {key: value for key, value in train.items() if ("train", key) not in UNCHANGING}
    rows, steps = ({**(given or {}), **train}.get(name, 1) for name in SPLIT)
    if not any(name in train for name in SPLIT) or not isinstance(rows, int) or not isinstance(steps, int):
        return unsplit
    return {**unsplit, SPLIT[0]: rows * steps * processes, SPLIT[1]: 1}


def identity(settings: LearnerSpec, composition: Composition, processes: int = 1) -> str:
    """Return the hash that tells one run from another.

    Where the data lie is no part of it: what they are is checked per task. Neither is the spelling of the method:
    ``OLoRA`` and ``o-lora(lam=0.5)`` may be one method, and the composition says which. Nor is how a step's rows are
    split over micro-batches and processes: their number is.
    """
    # What is not set is no part of it either: a later version may have more to set.
    # Unset, answers have 50 tokens, or more where targets do: earlier versions wrote 50 for it.
    plain = {**settings.model_dump(mode="json"), "max_new_tokens": settings.max_new_tokens or 50}
    identifying = {key: value for key, value in plain.items() if key not in NOT_IDENTIFYING and value is not None}
    identifying["evaluation"] = {key: value for key, value in plain["evaluation"].items() if value is not None}
    later = OF_TARGETS | OF_PAIRS | {"layers"}
    identifying["lora"] = {key: value for key, value in plain["lora"].items() if value is not None or key not in later}
    for name in ("rank_pattern", "alpha_pattern"):  # the first that matches counts; sorted ones were hashed before
        if (patterns := plain["lora"].get(name)) and list(patterns) != sorted(patterns):
            identifying["lora"][name] = list(patterns.items())
    identifying["train"] = whole_batch(plain["train"], processes)
    if plain["train_of"]:
        tasks = plain["train_of"].items()
        identifying["train_of"] = {task: whole_batch(own, processes, plain["train"]) for task, own in tasks}
    content = {"settings": identifying, "composition": composition.plain()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
