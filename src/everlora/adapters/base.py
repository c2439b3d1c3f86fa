"""Defines the contract between the trainer and whatever is trained on a base model.

attach → trainable, set_values → (training) → extract, save → detach
set_past: what earlier tasks left, below the trainable adapter
load, restore_head: the way back from a task's folder
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from everlora.archive.atomic import copy_checked
from everlora.archive.results import ExportLoss
from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError, ModelError
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import LowRank, ModuleUpdate, Updates
from everlora.data.task import Task
from everlora.models.loading import Loaded
from everlora.runtime.memory import physical_memory
from everlora.runtime.sizes import size

PastAs = Literal["auto", "fold", "fold-bf16", "factors"]
ForwardKeywords = dict[str, Any]
"""Keywords with which a model's forward is called, as torch hands them to hooks: each architecture has its own."""


class LoraInput(TypedDict, total=False):
    """Holds keywords of `peft.LoraConfig` that a user may set; other forms take those that they have use for."""

    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str] | str
    exclude_modules: list[str] | str
    layers_to_transform: list[int] | int
    layers_pattern: list[str] | str
    use_rslora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    init_lora_weights: str
    layers: str
    """Ours, for ``target_modules`` layer by layer, see `everlora.adapters.layers`."""


class AdapterBackend(ABC):
    """Trains adapters of one form on one base model, task after task.

    Attributes:
        base: the base model.
        lora: settings by PEFT's own names, for the forms that are made of LoRA pairs.
        past_as: ``fold`` adds earlier updates to the weights in fp32, ``fold-bf16`` to pairs of matrices in bf16,
            ``factors`` computes them as a low-rank term of each layer's output, ``auto`` folds unless the weights are
            quantised.
        adapter: the form and its settings.
        model: the model with the adapter attached; None while it is detached.
    """

    forms: ClassVar[tuple[str, ...]] = ()
    """The values of `Adapter.form` that this backend handles."""
    needs_past: ClassVar[bool] = False
    """Whether `set_past` is called before a task even where updates are not summed (prompts of earlier tasks, say)."""
    files: ClassVar[tuple[str, ...]]
    """The files that `save` writes, which the root of a run folder needs to be loadable."""

    def __init__(
        self,
        base: Loaded,
        lora: LoraInput,
        past_as: PastAs = "auto",
        adapter: Adapter | None = None,
    ) -> None:
        self.base, self.lora, self.past_as = base, lora, past_as
        self.adapter = adapter or Adapter()
        self.model: Any = None

    @abstractmethod
    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> nn.Module:
        """Put a trainable adapter on the model and return the model.

        Args:
            seed: seed of the fresh parameters.
            start: an update to start from; None for fresh parameters.
            tasks: the tasks that are about to be learned; none where the model only answers.

        Raises:
            ModelError: this form does not fit the model, or ``start`` does not fit this form.
        """

    @abstractmethod
    def trainable(self) -> Mapping[str, ModuleUpdate]:
        """Return the trainable parameters themselves, by module name.

        They are looked up at every call, since wrappers for several processes may replace them.
        """

    @abstractmethod
    def set_values(self, start: Updates) -> None:
        """Copy the values of ``start`` into the trainable parameters of the modules that it names.

        Raises:
            ModelError: unknown modules, or another rank, shape or form.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the trained parameters, and a trained head, to ``folder``."""

    @abstractmethod
    def load(self, folder: Path) -> tuple[Mapping[str, ModuleUpdate], dict[str, Tensor]]:
        """Read what `save` wrote: the update by module, and every other tensor (a classification head) by name.

        Raises:
            FolderError: the files are missing, damaged or incomplete.
        """

    def check_saved(self, folder: Path, update: Updates) -> None:
        """Open what `save` wrote again, and compare it with what it was to be: modules, shapes and values, head too.

        Raises:
            FolderError: it cannot be read, or is something else; so the task must not count as learned.
        """
        # By the way that a learner which goes on takes, so that whatever would fail there fails now.
        found, rest = self.load(folder)
        written = {name: site.tensors for name, site in found.items()} | {"": rest}
        learned = {name: site.tensors for name, site in update.items()} | {"": self.copy_head()}
        for name in sorted({*written, *learned}):
            here, there = learned.get(name, {}), written.get(name, {})
            same = here.keys() == there.keys() and _scale(update.get(name)) == _scale(found.get(name))
            if not same or not all(torch.equal(t.float(), there[key].float()) for key, t in here.items()):
                raise FolderError(
                    f"what was written of the task is not what was learned: {name or 'the head'!r} reads back as "
                    f"something else; nothing is committed; look at the disk, and at the base model's folder"
                )

    def check_fits(self, numbers: int, what: str, cure: str) -> None:
        """Refuse parameters that there is no memory for, before it is asked for the memory.

        Training holds four numbers of fp32 per parameter: value, gradient, and the two moments of AdamW.

        Args:
            numbers: how many parameters are trained.
            what: they are, in words.
            cure: the setting that makes them fewer.

        Raises:
            ModelError: they need more memory than there is.
        """
        # Where memory is overcommitted, the system would end the process in the midst of a task without a word.
        device, needed = self.base.model.device, 16 * numbers
        held = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else physical_memory()
        if held is not None and needed > held:
            raise ModelError(f"{what} need {size(needed)} to be trained, and there are {size(held)}; lower {cure}")

    def restore_head(self, rest: Mapping[str, Tensor]) -> None:
        """Copy saved values into the trained classification head, if there is one."""
        trained = self._head()
        with torch.no_grad():
            for name, tensor in rest.items() if trained else ():
                trained[name].copy_(tensor)

    def train_head(self) -> None:
        """Make the classification head trainable, if there is one that is: an fp32 copy of it takes its place.

        A copy, since `Family.snapshot` refers to the module itself and must find it unchanged if the task breaks off.
        """
        if name := self.base.family.head:
            model = self.base.model
            model.set_submodule(name, copy.deepcopy(model.get_submodule(name)).float())
            model.get_submodule(name).requires_grad_(not self.base.family.fixed)

    def _head(self) -> dict[str, Tensor]:
        """Return the tensors of the head, and of what is written with it, by name; none where answers are text."""
        modules = {name: self.base.model.get_submodule(name) for name in self.base.family.saved_modules}
        return {
            f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
        }

    def copy_head(self) -> dict[str, Tensor]:
        """Return a copy of the classification head on the CPU, as it is saved."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._head().items()}

    @abstractmethod
    def detach(self) -> None:
        """Take the adapter off, if it is attached; a trained classification head stays on the model."""

    def extract(self) -> dict[str, ModuleUpdate]:
        """Return a copy of the trained parameters by module, on the CPU in fp32."""
        # fp32 and a copy: the update outlives the parameters, which training or detaching would change.
        return {n: s.map(lambda p: p.detach().cpu().float().clone()) for n, s in self.trainable().items()}

    def set_past(self, past: UpdateHistory, merge: Merge | None = None) -> None:
        """Let the model compute with exactly the updates of ``past`` below the trainable adapter.

        Only forms whose updates are summed or chained need this.

        Args:
            past: the updates of the earlier tasks, oldest first.
            merge: how they are combined; None for their sum.
        """
        raise NotImplementedError

    @classmethod
    def lora_settings(cls, form: str) -> frozenset[str]:
        """Return the settings of LoRA that a form reads, except rank, alpha, dropout and target modules."""
        return frozenset()

    def plan_tasks(self, tasks: int) -> None:  # noqa: B027 - most forms do not mind
        """Reserve, before any text is read, what ``tasks`` tasks need: prompts take room in the context."""

    def base_layers(self) -> dict[str, nn.Module]:
        """Return the adapted layers of the base model by module name; none for forms that adapt no layers."""
        return {}

    def origin(self) -> Updates | None:
        """Return where a fresh adapter begins that stands in place of weights; None for what is added to them."""
        return None

    def output_layers(self) -> dict[str, nn.Module]:
        """Return the layers whose outputs are computed from rows of trained tensors, by module name.

        Trained tensors that are no linear layer's (norms, prompts) are left out.
        """
        modules = dict(self.model.named_modules())
        owners = {name: modules.get(name.removesuffix(".weight")) for name in self.trainable()}
        return {name: owner for name, owner in owners.items() if isinstance(owner, nn.Linear)}

    def auxiliary_loss(self) -> Tensor | None:
        """Return the form's own loss term of the latest forward pass, (b,) with gradient; None if it has none."""
        return None

    def export(self, folder: Path, latest: Path, past: UpdateHistory, merge: Merge | None) -> ExportLoss:
        """Write the present state to the root of a run folder.

        Args:
            folder: the run folder.
            latest: the folder of the newest task.
            past: the updates of all tasks.
            merge: how they are combined; None for their sum.

        Returns:
            What a truncation has lost; nothing if the export is exact.
        """
        for name in self.files:
            if (latest / name).is_file():
                # Renaming is atomic: whoever reads the folder meanwhile finds the old file or the new one.
                part = folder / f".{name}.part"
                copy_checked(latest / name, part)
                part.replace(folder / name)
        return ExportLoss()


def _scale(site: ModuleUpdate | None) -> float | None:
    """Return the scale of a low-rank update; None for what has none."""
    return site.scale if isinstance(site, LowRank) else None
