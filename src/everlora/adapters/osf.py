"""Trains the form ``osf``: orthogonal subspace fine-tuning by PEFT's own tuner, task after task.

PEFT decomposes, trains and projects one weight, as in a single task. When the task ends, the change of W0 is
extracted; the next task starts from W0 and that change, in fp32, and PEFT decomposes their sum anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from peft import OSFConfig
from peft.tuners.osf import OSFModel
from peft.tuners.osf.layer import OSFLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from everlora.adapters.hooked import HookedBackend
from everlora.adapters.lora import ADAPTER
from everlora.core.errors import ModelError
from everlora.core.updates import ModuleUpdate, Updates, Weights
from everlora.data.task import Task
from everlora.runtime.precision import keep_fp32

FACTORS = ("U_low", "S_low", "V_low")
"""PEFT's names for the trained factors: (o, m − q), (m − q,), (m − q, i)."""


class OsfForm(Protocol):
    """Declares what the backend needs of the form, see `everlora.parts.forms_osf`."""

    frozen: float


class OsfBackend(HookedBackend):
    """Trains weights whose top singular directions are frozen."""

    forms = ("osf",)
    file = "osf.safetensors"
    files = (file,)

    def build(self, seed: int, start: Updates | None, tasks: Sequence[Task]) -> None:
        self.original: dict[str, Tensor] = {}
        if start is not None and start.keys() != self.layers.keys():
            raise ModelError("what is stored was made for other modules than those adapted now")
        for name, layer in self.layers.items():
            self._refuse_unsuitable(name, layer)
            # In bf16 the decomposition would not sum to the weight (0.4 % of each entry).
            keep_fp32(layer)
            self.original[name] = layer.weight.detach().clone()
            if start is not None:
                # PEFT decomposes W0 plus the change so far: what was learned is frozen in its turn if it is large.
                with torch.no_grad():
                    layer.weight.add_(start[name].tensors["change"].to(layer.weight.device))
        config = OSFConfig(effective_rank=cast(OsfForm, self.adapter).frozen, target_modules=sorted(self.layers))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.tuner = OSFModel(self.model, config, ADAPTER)
        except ValueError as error:
            raise ModelError(f"{self.base.name!r} cannot be decomposed: {str(error).splitlines()[0]}") from None

    def _refuse_unsuitable(self, name: str, layer: nn.Linear | Conv1D) -> None:
        """Refuse a weight that cannot be decomposed, or that two modules share.

        Raises:
            ModelError: the weight is quantised, tied, or no matrix (o, i).
        """
        if isinstance(layer, Conv1D):
            raise ModelError(
                f"target {name!r} is a Conv1D, which peft does not decompose; adapt nn.Linear layers "
                f"(--lora-target-modules), or take a method that trains LoRA pairs"
            )
        weight = layer.weight
        if type(weight) not in (nn.Parameter, Tensor) or not weight.is_floating_point():
            raise ModelError(f"the weights of {name!r} are quantised and cannot be decomposed; load plain weights")
        places = [n for n, p in self.model.named_parameters(remove_duplicate=False) if p is weight]
        for other in (place.removesuffix(".weight") for place in places):
            if other != name:
                raise ModelError(f"target {name!r} shares its weights with {other!r}, which would change with it")

    def detach(self) -> None:
        if self.model is None:
            return
        # This tuner cannot be unmerged, so its layers are replaced and the original weights copied back.
        for name, module in dict(self._wrapped()).items():
            self.model.set_submodule(name, module.get_base_layer())
        # PEFT leaves this on the model, and its next tuner would take it for one that has an adapter already.
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        with torch.no_grad():
            for name, weight in self.original.items():
                self.layers[name].weight.copy_(weight)
        super().detach()

    def _wrapped(self) -> dict[str, OSFLayer]:
        """Return PEFT's layers by module name."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, OSFLayer)}

    def trainable(self) -> dict[str, Weights]:
        factors = {name: layer.osf_svd_params[ADAPTER] for name, layer in self._wrapped().items()}
        return {name: Weights({key: held[key] for key in FACTORS}) for name, held in factors.items()}

    @torch.no_grad()
    def extract(self) -> dict[str, ModuleUpdate]:
        """Return the change of every weight from W0, (o, i)."""
        # The change and not the factors: the next task decomposes the sum anew, and has no use for those of this one.
        found: dict[str, ModuleUpdate] = {}
        for name, layer in self._wrapped().items():
            now = self.layers[name].weight + layer.get_delta_weight(ADAPTER)
            found[name] = Weights({"change": (now - self.original[name]).cpu().float()})
        return found
