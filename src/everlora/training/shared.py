"""Lets the runs of a sweep learn a first task once, where nothing of a method acts on it.

Most methods act on the past, and a first task has none. Where no penalty, transform, term of the loss or order of rows
is a method's own, what a first task ends with follows from the model, the fresh adapter, rows, arguments and seeds
alone, to the last bit. It is written under a hash of all of these, and whichever run comes to the same hash reads it
in place of training.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import nn
from transformers import TrainerState

from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError
from everlora.models.environment import environment
from everlora.runtime import world
from everlora.training.chain import Chain
from everlora.training.checkpoint import FROZEN, TRAINER, Checkpoint

if TYPE_CHECKING:
    from everlora.training.task_trainer import TaskTrainer
    from everlora.training.trainer import ClTrainer, ExtraLosses, Rows


@dataclass
class SharedTraining:
    """Is what one first task ends with, in a folder that the runs of a sweep share.

    Attributes:
        place: the folder; it is there once some run has learned the task.
        key: hash of all that its end follows from.
        recalled: whether it was read in place of training.
    """

    place: Path
    key: str
    recalled: bool = False

    @classmethod
    def of(
        cls, folder: Path | None, trainer: TaskTrainer, model: nn.Module, chain: Chain, rows: Rows, extra: ExtraLosses
    ) -> SharedTraining | None:
        """Find the place of a first task; None where there is no folder, or something acts on this very run."""
        if folder is None or world.size() > 1 or not _plain(trainer, chain, rows, extra):
            return None
        key = key_of(trainer, model)
        return cls(folder / key, key)

    @property
    def seconds(self) -> float:
        """Return how long the task was trained where it was."""
        ended = [entry["train_runtime"] for entry in self._log() if "train_runtime" in entry]
        return ended[-1] if ended else 0.0

    def recall(self, trainer: ClTrainer) -> list[dict[str, float]] | None:
        """Bring a Trainer's model to where the task ended, and return the log; None if it is still to be trained."""
        written, frozen = Checkpoint(self.place, self.key), trainer.family.frozen
        if written.found() is None or (frozen is not None and not (self.place / FROZEN).is_file()):
            return None
        written.read(trainer)
        written.read_figures(trainer)
        written.read_random()
        if frozen is not None:
            # As training leaves it: whoever measures evidence next must not see the trial by which a model that can
            # be cut is known.
            frozen.fits = bool(frozen.learned.held) if frozen.learns else frozen.fits
        trainer.model.train()
        self.recalled = True
        return self._log()

    def keep(self, trainer: ClTrainer) -> None:
        """Write where a Trainer has ended, for the others; whoever is first is read, and all of them are equal."""
        own = self.place.with_name(f"{self.key}-{os.getpid()}")
        # Others can train it again: a full disk is no reason to end a run that has learned its task.
        with suppress(FolderError, OSError, SafetensorError):
            Checkpoint(own, self.key).write(trainer)
            own.rename(self.place)
        Checkpoint(own, self.key).clear()

    def _log(self) -> list[dict[str, float]]:
        log: list[dict[str, float]] = TrainerState.load_from_json(str(self.place / TRAINER)).log_history
        return log


def _plain(trainer: TaskTrainer, chain: Chain, rows: Rows, extra: ExtraLosses) -> bool:
    """Return whether a stage is learned as if there were no method."""
    method = trainer.method
    acts = chain.probe is not None or any(group.penalties or group.transforms for group in chain.groups)
    written = extra.side is not None or extra.teacher is not None
    own_rows = method.mixing != "proportional" or rows.fresh != len(rows) or method.rehearsal is not None
    return type(method.adapter) is Adapter and method.adapter.low_rank and not (acts or written or own_rows)


def key_of(trainer: TaskTrainer, model: nn.Module) -> str:
    """Return the hash of all that the end of a plain training follows from."""
    spec, adapter, family = trainer.spec, trainer.method.adapter, trainer.base.family
    known: dict[str, Any] = {
        "made on": environment(trainer.base).model_dump(mode="json"),
        "settings": spec.model_dump(mode="json", exclude={"method", "train"}),
        "arguments": {name: str(value) for name, value in trainer.arguments.items()},
        "adapter": [adapter.form, adapter.unit, adapter.fixed],
        "family": [repr(family.limits), family.answering(), family.labels, family.whole_prompts],
        "stage": [trainer.stage.number, trainer.stage.seeded, [task.digest() for task in trainer.stage.tasks]],
    }
    found = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    # Of an adapter also what is not trained: a fixed A is a method's own, as InfLoRA designs it.
    adapter_values = {id(p) for site in trainer.backend.trainable().values() for p in site.tensors.values()}
    for name, p in model.named_parameters():
        if p.requires_grad or id(p) in adapter_values:
            found.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
            found.update(p.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()
