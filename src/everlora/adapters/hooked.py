"""Defines the base class of forms that act through forward hooks: no layer of the model is replaced or patched.

A hook leaves the model's own forward pass, caching and generation as they are. Trainable tensors are in one submodule
that is added to the model while attached, so that the Trainer, and a wrapper for several processes, find them among
its parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from everlora.adapters.base import AdapterBackend, LoraInput, PastAs
from everlora.adapters.lora import default_targets
from everlora.adapters.targets import check_matched, check_named, excluded
from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError, ModelError
from everlora.core.updates import ModuleUpdate, Updates, Weights
from everlora.data.task import Task
from everlora.models.layers import is_linear, shape_of
from everlora.models.loading import Loaded
from everlora.settings.lora import OF_TARGETS

HOLDER = "everlora_form"
"""Name of the submodule with the trainable tensors."""


class HookedBackend(AdapterBackend):
    """Is the base of forms that consist of forward hooks and of parameters in a submodule of their own.

    Attributes:
        layers: the adapted linear layers by module name, while attached.
    """

    file: ClassVar[str]
    """The one file that `save` writes."""

    def __init__(
        self, base: Loaded, lora: LoraInput, past_as: PastAs = "auto", adapter: Adapter | None = None
    ) -> None:
        super().__init__(base, lora, past_as, adapter)
        self.layers: dict[str, nn.Linear | Conv1D] = {}
        self._handles: list[Any] = []

    @classmethod
    def lora_settings(cls, form: str) -> frozenset[str]:
        return OF_TARGETS

    @abstractmethod
    def build(self, seed: int, start: Updates | None, tasks: Sequence[Task]) -> None:
        """Create the tensors, fresh or from ``start``, and the hooks; `layers` is set already."""

    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> nn.Module:
        if self.model is not None:
            raise RuntimeError("an adapter is attached already; detach it first")
        model = self.base.model
        model.requires_grad_(False)
        # All was frozen before: what trains is what `build` adds, and a head.
        self.layers = target_layers(model, self.base, self.lora)
        # An ordinary submodule: the Trainer, DDP and `named_parameters` find what is trained by themselves.
        model.add_module(HOLDER, nn.Module())
        self.model = model
        try:
            self.build(seed, start, tasks)
        except BaseException:
            self.detach()  # hooks of a half-built adapter would change every later answer
            raise
        self.train_head()
        attached: nn.Module = model
        return attached

    def detach(self) -> None:
        if self.model is None:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.base.family.whole_prompts = False
        # Without it the base model has just the parameters that it was loaded with, under their names.
        delattr(self.model, HOLDER)
        self.model.requires_grad_(False)
        self.model.zero_grad(set_to_none=True)
        self.model = None

    def check_rank(self, rank: int, cure: str) -> None:
        """Refuse pairs of a rank that there is no memory for; see `check_fits`.

        Raises:
            ModelError: they need more memory than there is.
        """
        width = sum(sum(shape_of(layer)) for layer in self.layers.values())
        self.check_fits(rank * width, f"adapters of rank {rank} on {len(self.layers)} modules", cure)

    def add_parameters(self, name: str, tensors: Mapping[str, Tensor]) -> nn.ParameterDict:
        """Add trainable tensors to the model under ``name``, and return them."""
        added = nn.ParameterDict({key: nn.Parameter(tensor) for key, tensor in tensors.items()})
        # torch takes no dots in names of submodules.
        self.model.get_submodule(HOLDER).add_module(name.replace(".", "_"), added)
        return added

    def add_hook(self, module: nn.Module, act: Callable[..., Any], *, before: bool = False) -> None:
        """Call ``act`` at each forward pass of ``module`` until detached: after it, or before it with its keywords."""
        if before:
            self._handles.append(module.register_forward_pre_hook(act, with_kwargs=True))
        else:
            self._handles.append(module.register_forward_hook(act))

    def base_layers(self) -> dict[str, nn.Module]:
        return dict(self.layers)

    def set_values(self, start: Updates) -> None:
        live = self.trainable()
        if not start.keys() <= live.keys():
            raise ModelError("what is stored was made for other modules than those adapted now")
        with torch.no_grad():
            for name, site in start.items():
                there = live[name].tensors
                if {k: t.shape for k, t in there.items()} != {k: t.shape for k, t in site.tensors.items()}:
                    raise ModelError(f"what is stored has another rank, shape or form at {name!r}")
                for key, value in site.tensors.items():
                    there[key].copy_(value)

    def save(self, folder: Path) -> None:
        # A slash is in no name of torch's, so that it splits module and tensor again without doubt.
        flat = {
            f"{name}/{key}": tensor for name, site in self.extract().items() for key, tensor in site.tensors.items()
        }
        flat |= self.copy_head()
        save_file({name: tensor.contiguous() for name, tensor in flat.items()}, folder / self.file)

    def load(self, folder: Path) -> tuple[Mapping[str, ModuleUpdate], dict[str, Tensor]]:
        return load_form(folder / self.file)


def load_form(path: Path) -> tuple[dict[str, Weights], dict[str, Tensor]]:
    """Read what `HookedBackend.save` wrote: the update by module, and the head by name.

    Raises:
        FolderError: the file is missing, damaged or empty.
    """
    sites: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for name, tensor in load_tensors(path).items():
        module, slash, key = name.partition("/")
        if slash:
            sites.setdefault(module, {})[key] = tensor
        else:
            rest[module] = tensor
    if not sites:
        raise FolderError(f"{path} holds nothing that was learned")
    return {name: Weights(found) for name, found in sites.items()}, rest


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FolderError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{path} cannot be read: {error}") from error


def target_layers(model: nn.Module, base: Loaded, lora: LoraInput) -> dict[str, nn.Linear | Conv1D]:
    """Return the linear layers that LoRA's settings name, by PEFT's own rule of matching names.

    >>> import everlora
    >>> base = everlora.load("tiny-llama")
    >>> sorted(target_layers(base.model, base, {"target_modules": ["o_proj"]}))
    ['model.layers.0.self_attn.o_proj', 'model.layers.1.self_attn.o_proj']

    Raises:
        ModelError: nothing is found, or what is found is no linear layer.
    """
    targets = {**default_targets(model), **lora}.get("target_modules")
    linear = {name: layer for name, layer in model.named_modules() if is_linear(layer)}
    words = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if targets == "all-linear":
        out = model.get_output_embeddings()  # type: ignore[operator]
        found = {n: m for n, m in linear.items() if m is not out and not excluded(n, lora)}
    elif targets:
        # PEFT's own rule, so that one setting adapts the same layers whatever the form.
        try:
            where = {name: value for name, value in lora.items() if name in OF_TARGETS}
            config = LoraConfig(target_modules=targets, **where)
        except (ValueError, TypeError) as error:
            raise ModelError(f"cannot choose modules of {base.name!r}: {str(error).splitlines()[0]}") from None
        found = {n: m for n, m in model.named_modules() if check_target_module_exists(config, n)}
    else:
        found = {}
    saved = base.family.saved_modules  # they are written as they are
    found = {n: m for n, m in found.items() if not any(f"{n}.".startswith(f"{one}.") for one in saved)}
    choose = f"(linear layers of this model: {', '.join(words)}; choose with --lora-target-modules)"
    check_named(base.name, targets, found, words)
    if not found:
        raise ModelError(f"nothing to adapt in {base.name!r} {choose}")
    for name, layer in found.items():
        if not is_linear(layer):
            raise ModelError(f"target {name!r} is not a linear layer; adapt linear layers only")
    check_matched(model, found, lora)
    return found
