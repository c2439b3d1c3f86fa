"""What the engine asks of whatever is trained on a base model: one mount per form of adapter."""

from __future__ import annotations

import copy
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from everlora.archive.results import ExportLoss
from everlora.core.adapter import Adapter
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import ModuleUpdate, Updates
from everlora.data.task import Task
from everlora.models.loading import Loaded

PastAs = Literal["auto", "fold", "factors"]


class AdapterBackend(ABC):
    """Carries what is trained on one base model through its life.

    Attributes:
        base: the model below.
        lora: settings with PEFT's own names, for the forms that are made of LoRA pairs.
        past_as: ``fold`` the past into the weights, keep it as ``factors`` beside them, or decide by the weights.
        adapter: the form and its settings.
        model: the model with the trainable form on it; None while it is closed.
    """

    forms: ClassVar[tuple[str, ...]]
    """The values of `Adapter.form` that this mount carries."""
    needs_past: ClassVar[bool] = False
    """Whether `set_past` is called before a task even where the past is not summed (prompts of earlier tasks, say)."""
    files: ClassVar[tuple[str, ...]]
    """What `save` writes, and what the root of a run folder needs to be loadable."""

    def __init__(
        self,
        base: Loaded,
        lora: Mapping[str, Any],
        past_as: PastAs = "auto",
        adapter: Adapter | None = None,
    ) -> None:
        self.base, self.lora, self.past_as = base, lora, past_as
        self.adapter = adapter or Adapter()
        self.model: Any = None

    @abstractmethod
    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> nn.Module:
        """Put a trainable form on the model: fresh, or starting from ``start``; ``tasks`` are about to be learned.

        Raises:
            ModelError: this form does not fit the model.
        """

    @abstractmethod
    def trainable(self) -> Mapping[str, ModuleUpdate]:
        """The trainable parameters themselves, by place: looked up afresh, since wrappers may replace them."""

    @abstractmethod
    def set_values(self, start: Updates) -> None:
        """Give what is trained, or those of its places that ``start`` names, these values.

        Raises:
            ModelError: other places, another rank, shape or form.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is trained, and a trained head, to ``folder``."""

    @abstractmethod
    def load(self, folder: Path) -> tuple[Mapping[str, ModuleUpdate], dict[str, Tensor]]:
        """What `save` wrote: the form by place, and every other tensor (a classification head) by name.

        Raises:
            FolderError: the files are missing, damaged or incomplete.
        """

    def restore_head(self, rest: Mapping[str, Tensor]) -> None:
        """Give the trained classification head, if there is one, the values that were saved."""
        trained = self._head()
        with torch.no_grad():
            for name, tensor in rest.items() if trained else ():
                trained[name].copy_(tensor)

    def train_head(self) -> None:
        """Let a copy of the classification head be trained, if there is one, in fp32.

        A copy: whoever kept the module (`Family.snapshot`) finds it as it was, should the task not be finished.
        """
        if name := self.base.family.head:
            model = self.base.model
            model.set_submodule(name, copy.deepcopy(model.get_submodule(name)).float().requires_grad_(True))

    def _head(self) -> dict[str, Tensor]:
        """The classification head, by its names in the model; empty where answers are text."""
        name = self.base.family.head
        state = self.base.model.get_submodule(name).state_dict() if name else {}
        return {f"{name}.{key}": tensor for key, tensor in state.items()}

    def copy_head(self) -> dict[str, Tensor]:
        """A copy of the classification head on the CPU, as a task's folder holds it."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._head().items()}

    @abstractmethod
    def detach(self) -> None:
        """Take the form off, if it is on; a trained classification head stays."""

    def extract(self) -> dict[str, ModuleUpdate]:
        """A copy of what is trained as it stands, on the CPU in fp32."""
        return {n: s.map(lambda p: p.detach().cpu().float().clone()) for n, s in self.trainable().items()}

    def set_past(self, past: UpdateHistory, merge: Merge | None = None) -> None:
        """Let the model carry exactly ``past`` below what is trained; forms whose past is never summed need not."""
        raise NotImplementedError

    def plan_tasks(self, tasks: int) -> None:  # noqa: B027 - most forms do not mind
        """Be told, before anything is read, how many tasks there will be: prompts take room in the context."""

    def base_layers(self) -> dict[str, nn.Module]:
        """The adapted layers themselves, by module; none for forms that adapt no layers."""
        return {}

    def output_layers(self) -> dict[str, nn.Module]:
        """The layers whose outputs the rows of what is trained make, by place; places that make none are missing."""
        modules = dict(self.model.named_modules())
        owners = {place: modules.get(place.removesuffix(".weight")) for place in self.trainable()}
        return {place: owner for place, owner in owners.items() if isinstance(owner, nn.Linear)}

    def auxiliary_loss(self) -> Tensor | None:
        """A differentiable term of the latest forward pass that belongs to the form itself, one value per row (b,)."""
        return None

    def export(self, folder: Path, latest: Path, past: UpdateHistory, merge: Merge | None) -> ExportLoss:
        """Write the learner as it stands to ``folder``; ``latest`` is the folder of its newest task.

        Returns:
            What was lost, if anything was.
        """
        for name in self.files:
            if (latest / name).is_file():
                beside = folder / f".{name}.part"
                shutil.copy(latest / name, beside)
                beside.replace(folder / name)
        return ExportLoss()
