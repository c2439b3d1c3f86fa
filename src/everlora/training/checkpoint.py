"""Writes where the training of a task stands, and goes on from there bit for bit; no pickle is written or read.

A checkpoint holds what a step changes: trainable parameters, moments of the optimiser, the schedule, the strengths
that penalties have found, blocks of a step rule, states of random generators, what frozen layers made of texts (its
last bits depend on the batch in which a text came first), and figures not logged yet. All else (the past, what parts
prepare of it, the order of rows) is made again as when the task began. It counts for that very
task alone: the same rows and arguments, on top of the same committed tasks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from everlora.archive.atomic import staged
from everlora.archive.broken_off import FOLDER as FOLDER
from everlora.archive.broken_off import STATE as STATE
from everlora.archive.broken_off import CheckpointSeal, is_whole, remove, remove_damaged, seal_of
from everlora.archive.root import sha256
from everlora.archive.schema import read_json, write
from everlora.core.errors import FolderError
from everlora.runtime.stopping import END
from everlora.training.chain import ModuleRow

if TYPE_CHECKING:
    from everlora.models.families.frozen import FrozenPart
    from everlora.training.trainer import ClTrainer

TENSORS, TRAINER, FROZEN = "checkpoint.safetensors", "trainer_state.json", "frozen.safetensors"
MINUTES = 10.0
"""Between two checkpoints, where nobody says after how many steps."""


class Standing(CheckpointSeal):
    """Holds what checkpoint.json says; tensors in it are named, and stand in the file beside it.

    Attributes:
        optimizer, scheduler, strengths, blocks: as their owners give them.
        records, latest: figures of the chain.
        loss: the sum not logged yet, that of all logged before, and the step of the last log.
        cut: training texts that were cut so far.
        python, numpy: states of their random generators.
    """

    optimizer: JsonValue
    scheduler: JsonValue
    strengths: JsonValue
    records: list[ModuleRow]
    latest: dict[str, float]
    blocks: JsonValue
    loss: tuple[float, float, int]
    cut: int
    python: JsonValue
    numpy: JsonValue


class Checkpoint(TrainerCallback):
    """Is where a checkpoint lies; the Trainer asks for one when it is due.

    Args:
        place: the folder that holds it.
        key: hash of all that must be the same for it to count.
        steps: between two; None for one every `MINUTES`.
        after: hashes of the COMMITs of the tasks on top of which the task is learned.
    """

    def __init__(self, place: Path, key: str, steps: int | None = None, after: Sequence[str] = ()) -> None:
        self.place, self.key, self.steps, self.after = place, key, steps, list(after)
        self.last = time.monotonic()
        self.resumed: ClTrainer | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = time.monotonic()
        if self.resumed is not None:  # the Trainer has set these to nothing just now
            loss, total, last = self._content().loss
            self.resumed._tr_loss = torch.tensor(loss, device=args.device)
            self.resumed._total_loss_scalar, self.resumed._globalstep_last_logged = total, last
            self.resumed._initial_global_step = 0  # figures at the end are of the whole task

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if END.requested:
            raise KeyboardInterrupt(f"a checkpoint of step {state.global_step} was written")

    def found(self) -> str | None:
        """Return the folder of a checkpoint that counts, and is what was written; None where there is none."""
        seal = seal_of(self.place)
        counts = seal is not None and seal.key == self.key and is_whole(self.place, seal)
        return str(self.place) if counts else None

    def clear_damaged(self, task: str) -> str | None:
        """Remove a checkpoint that is damaged, unless it says that it is of another task; return what to tell then."""
        seal = seal_of(self.place)
        of_another = seal is not None and seal.key != self.key
        if of_another or not remove_damaged(self.place):
            return None
        amiss = "is damaged or of an older everlora, and is left out"
        return f"the checkpoint that the folder holds {amiss}; task {task!r} begins anew"

    def write(self, trainer: ClTrainer) -> None:
        """Write where a Trainer stands, in the place of what was written before.

        Raises:
            FolderError: the disk is full or the place cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        chain = trainer.chain
        trainer.store_flos()
        content = Standing.model_validate(
            {
                "key": self.key,
                "after": self.after,
                "files": {},
                "optimizer": _packed(trainer.optimizer.state_dict(), "optimizer", tensors),
                "scheduler": _packed(trainer.lr_scheduler.state_dict(), "scheduler", tensors),
                "strengths": _packed(
                    [[vars(one) for one in group.controllers.values()] for group in chain.groups], "strengths", tensors
                ),
                "records": chain.records,
                "latest": chain.latest,
                "blocks": _packed(chain.recurrence.state if chain.recurrence else {}, "blocks", tensors),
                "loss": [float(trainer._tr_loss), trainer._total_loss_scalar, trainer._globalstep_last_logged],
                "cut": trainer.rows.cut,
                "python": _packed(random.getstate(), "python", tensors),
                "numpy": _packed(list(np.random.get_state(legacy=True)), "numpy", tensors),
            }
        )
        tensors |= {f"parameter/{name}": p.detach() for name, p in _trained(trainer)}
        tensors["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        with staged(self.place) as folder:
            try:
                save_file(
                    {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, folder / TENSORS
                )
                if (frozen := trainer.family.frozen) is not None:
                    save_file(_texts(frozen), folder / FROZEN)
            except SafetensorError as error:
                raise FolderError(f"the checkpoint cannot be written to {self.place}: {error}") from error
            trainer.state.save_to_json(str(folder / TRAINER))
            files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
            write(folder / STATE, content.model_copy(update={"files": files}))
            self.last = time.monotonic()

    def read(self, trainer: ClTrainer) -> None:
        """Bring the parameters of a Trainer to where they were, and what frozen layers hold."""
        tensors, frozen = load_file(self.place / TENSORS), trainer.family.frozen
        with torch.no_grad():
            for name, p in _trained(trainer):
                p.copy_(tensors[f"parameter/{name}"].to(p.device))
        if frozen is not None and (self.place / FROZEN).is_file():
            held = load_file(self.place / FROZEN)
            for k in range(len(held) // 2):
                frozen.learned.put(held[f"{k} text"].numpy().tobytes(), held[f"{k} states"].to(trainer.args.device))

    def read_rest(self, trainer: ClTrainer) -> None:
        """Bring optimiser, schedule, strengths and figures of a Trainer to where they were."""
        tensors, content = load_file(self.place / TENSORS), self._content()
        trainer.optimizer.load_state_dict(_unpacked(content.optimizer, tensors))
        trainer.lr_scheduler.load_state_dict(_unpacked(content.scheduler, tensors))
        chain = trainer.chain
        for group, kept in zip(chain.groups, _unpacked(content.strengths, tensors), strict=True):
            for controller, values in zip(group.controllers.values(), kept, strict=True):
                for name in ("task", "penalty"):
                    setattr(controller, name, values[name].to(group.device))
                controller.price, controller.allowed = values["price"], values["allowed"]
        self.read_figures(trainer)
        if chain.recurrence:
            chain.recurrence.state = {
                name: value.to(chain.params[0].device) if isinstance(value, Tensor) else value
                for name, value in _unpacked(content.blocks, tensors).items()
            }
        self.resumed = trainer

    def read_figures(self, trainer: ClTrainer) -> None:
        """Bring back what the chain has recorded, and how many texts were cut."""
        content, chain = self._content(), trainer.chain
        chain.records, chain.latest = list(content.records), dict(content.latest)
        trainer.rows.cut = content.cut

    def read_random(self) -> None:
        """Bring the random generators to where they were."""
        tensors, content = load_file(self.place / TENSORS), self._content()
        version, state, gauss = _unpacked(content.python, tensors)
        random.setstate((version, tuple(state), gauss))
        kind, keys, *rest = _unpacked(content.numpy, tensors)
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda"])

    def _content(self) -> Standing:
        return read_json(Standing, self.place / STATE)

    def clear(self) -> None:
        """Remove what was written: the task is committed."""
        remove(self.place)


def _trained(trainer: ClTrainer) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]


def _texts(frozen: FrozenPart) -> dict[str, Tensor]:
    """Return texts that were learned, as bytes, and their hidden states; those used longest ago first."""
    found = dict[str, Tensor]()
    for k, (text, states) in enumerate(frozen.learned.held.items()):
        found[f"{k} text"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        found[f"{k} states"] = states.detach().cpu().contiguous()
    return found


def _packed(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON, with tensors and arrays put aside under names of their places."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.astype(np.int64))
    if isinstance(value, Tensor):
        tensors[at] = value.detach()
        return {"tensor": at}
    if isinstance(value, Mapping):
        pairs = [[key, _packed(one, f"{at}/{key}", tensors)] for key, one in value.items()]
        return {"pairs": pairs}
    if isinstance(value, list | tuple):
        return {"list": [_packed(one, f"{at}/{k}", tensors) for k, one in enumerate(value)]}
    return value if isinstance(value, str | int | float | bool | None) else None


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `_packed` made JSON of.

    >>> tensors: dict[str, Tensor] = {}
    >>> plain = _packed({0: [torch.ones(2), 1.5]}, "x", tensors)
    >>> _unpacked(plain, tensors)
    {0: [tensor([1., 1.]), 1.5]}
    """
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "pairs" in value:
        return {key: _unpacked(one, tensors) for key, one in value["pairs"]}
    return [_unpacked(one, tensors) for one in value["list"]]
