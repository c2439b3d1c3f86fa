"""Trains the form ``full``: all weights of the base model; a task's folder is a transformers folder.

While attached, every weight is an fp32 copy in place of the model's own tensor; detaching puts that tensor back, so
that the base model is never changed. Only the classification head, which grows with the labels, stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from everlora.adapters.base import AdapterBackend, LoraInput, PastAs
from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError, ModelError
from everlora.core.updates import Updates, Weights
from everlora.data.task import Task
from everlora.models.loading import Loaded

WEIGHTS = "model.safetensors"


class FullForm(Protocol):
    """Declares what the backend needs of the form, see `everlora.parts.forms_full`."""

    @property
    def freeze_embeddings(self) -> bool:
        """Return whether the input embeddings stay as they are."""
        ...


class FullBackend(AdapterBackend):
    """Trains all weights of one base model; an update holds the weights by module."""

    forms: ClassVar[tuple[str, ...]] = ("full",)
    files: ClassVar[tuple[str, ...]] = ("config.json", "generation_config.json", WEIGHTS)

    def __init__(
        self, base: Loaded, lora: LoraInput, past_as: PastAs = "auto", adapter: Adapter | None = None
    ) -> None:
        super().__init__(base, lora, past_as, adapter)
        self._own: list[tuple[nn.Parameter, Tensor]] = []
        """The model's parameters, and the tensors that they held before."""

    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> nn.Module:
        """Make all weights trainable, with the values of the base model or of ``start``.

        Raises:
            ModelError: the weights are quantised.
        """
        if self.model is not None:
            raise RuntimeError("the weights are attached already; detach them first")
        model = self.base.model
        for p in model.parameters():
            if not p.is_floating_point() or type(p.data) is not Tensor:
                raise ModelError(
                    f"the weights of {self.base.name!r} are quantised and cannot be trained themselves; take a "
                    f"method with adapters (seqlora, inclora, ella, …), or a model in bf16 or fp32"
                )
        # The head is a copy that stays on the model; all else is put back when it is detached.
        self.train_head()
        # Swapping `data` leaves every reference to the parameters valid: tied weights, hooks, the optimiser.
        self._own = [(p, p.data) for name, p in model.named_parameters() if not self._is_head(name)]
        trained = {id(p) for place in self._parameters_by_module().values() for p in place.values()}
        for p, own in self._own:
            # fp32: an AdamW step of 1e-4 on a bf16 weight of 0.05 would be rounded away.
            p.data = own.to(torch.float32, copy=True)
            p.requires_grad_(id(p) in trained)
        self.model = model
        if start is not None:
            self.set_values(start)
        return model

    def _is_head(self, name: str) -> bool:
        """Return whether a parameter belongs to the classification head."""
        return bool(self.base.family.head) and name.startswith(f"{self.base.family.head}.")

    def _parameters_by_module(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the trained parameters by module and by their name in it, each once though tied."""
        model, frozen = self.base.model, set()
        if cast(FullForm, self.adapter).freeze_embeddings:
            frozen = {id(p) for p in model.get_input_embeddings().parameters()}
        found: dict[str, dict[str, nn.Parameter]] = {}
        for name, p in model.named_parameters():
            # By identity: input embeddings that are tied to the output layer have two names, and are frozen under
            # both.
            if id(p) not in frozen and not self._is_head(name):
                module, _, key = name.rpartition(".")
                found.setdefault(module, {})[key] = p
        return found

    def trainable(self) -> dict[str, Weights]:
        """Return the trained parameters by module, without the head, whose rows come and go with labels."""
        return {place: Weights(dict(tensors)) for place, tensors in self._parameters_by_module().items()}

    def base_layers(self) -> dict[str, nn.Module]:
        """Return the linear layers that are trained, by module name."""
        modules = dict(self.base.model.named_modules())
        return {
            place: modules[place] for place in self._parameters_by_module() if isinstance(modules[place], nn.Linear)
        }

    def origin(self) -> dict[str, Weights]:
        """Return the model's own weights, as they were before any task, by module."""
        own = {id(p): tensor for p, tensor in self._own}
        return {
            place: Weights({key: own[id(p)] for key, p in tensors.items()})
            for place, tensors in self._parameters_by_module().items()
        }

    @torch.no_grad()
    def set_values(self, start: Updates) -> None:
        """Copy the values of ``start`` into the weights of the modules that it names.

        Raises:
            ModelError: modules or shapes of another model.
        """
        live = self.trainable()
        for place, site in start.items():
            there = live[place].tensors if place in live else {}
            if {k: t.shape for k, t in there.items()} != {k: t.shape for k, t in site.tensors.items()}:
                raise ModelError(f"the stored weights are those of another model: {place!r} is not the same there")
            for key, value in site.tensors.items():
                there[key].copy_(value)

    def save(self, folder: Path) -> None:
        """Write the model as a transformers folder, in one file and under the model's own names."""
        # One file, since the root's copy is replaced by renaming, which is atomic for a single file.
        model: PreTrainedModel = self.base.model
        model.save_pretrained(str(folder), max_shard_size="1000TB", save_original_format=False)

    def load(self, folder: Path) -> tuple[dict[str, Weights], dict[str, Tensor]]:
        try:
            tensors = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise FolderError(f"the weights in {folder} cannot be read: {error}") from error
        names: dict[int, list[str]] = {}
        for name, p in self.base.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(p), []).append(name)
        sites = {}
        for place, parameters in self._parameters_by_module().items():
            found = {}
            for key, p in parameters.items():
                stored = next((name for name in names[id(p)] if name in tensors), None)  # one name of tied weights
                if stored is None:
                    raise FolderError(f"the weights in {folder} are incomplete: {place}.{key} is missing")
                found[key] = tensors[stored].float()
            sites[place] = Weights(found)
        return sites, {name: tensor for name, tensor in tensors.items() if self._is_head(name)}

    def detach(self) -> None:
        """Put the model's own weights back; a trained classification head stays."""
        if self.model is None:
            return
        for p, own in self._own:
            p.data = own
        self.base.model.requires_grad_(False)
        self.base.model.zero_grad(set_to_none=True)
        self._own, self.model = [], None
