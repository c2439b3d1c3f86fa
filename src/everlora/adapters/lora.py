"""Trains the forms ``plain`` and ``svd``: one stock PEFT adapter, on a base that holds the earlier updates.

PEFT sees a fresh (or continued) LoRA adapter and nothing else. What earlier tasks added is below it: folded into the
adapted matrices in fp32, so that a step costs the same at every task; or, where the base cannot be folded into
(quantised weights), as one frozen low-rank term of each layer's output (`everlora.adapters.folded`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from everlora.adapters import files as adapters
from everlora.adapters.base import AdapterBackend, LoraInput, PastAs
from everlora.adapters.folded import FoldedBase
from everlora.adapters.targets import check_matched, check_named, with_full_names
from everlora.archive.results import ExportLoss
from everlora.core.adapter import Adapter
from everlora.core.errors import ModelError
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import LowRank, LowRankUpdates, Updates
from everlora.data.task import Task
from everlora.models.layers import is_linear, shape_of
from everlora.models.loading import Loaded
from everlora.runtime.seeds import seeded
from everlora.settings.lora import OF_PAIRS, OF_TARGETS

ADAPTER = "default"
"""PEFT's name for the adapter."""


class LoraBackend(AdapterBackend):
    """Trains LoRA pairs B A, or triplets U Σ V, through PEFT."""

    forms = ("plain", "svd")
    files = ("adapter_config.json", adapters.WEIGHTS)

    def __init__(
        self, base: Loaded, lora: LoraInput, past_as: PastAs = "auto", adapter: Adapter | None = None
    ) -> None:
        super().__init__(base, lora, past_as, adapter)
        self._folded: dict[str, FoldedBase] = {}

    @classmethod
    def lora_settings(cls, form: str) -> frozenset[str]:
        # The triplets are AdaLoRA's, which has one rank and one scale, and draws its factors in its own way.
        return OF_TARGETS | OF_PAIRS if form == "plain" else OF_TARGETS

    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> PeftModel:
        """Put a trainable adapter on the model, fresh (B = 0) or with the values of ``start``, and return the model.

        Raises:
            ModelError: no target module was found, or a target is no linear layer.
        """
        if self.model is not None:
            raise RuntimeError("an adapter is attached already; detach it first")
        # PEFT draws A from torch's global generator: seeded here, so that no other draw shifts it.
        with seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = self._wrap()
        # The saved adapter names its base by what others can load, where there is such a name.
        self.model.base_model.model.config.name_or_path = self.base.hub or self.base.name
        self.model.peft_config[ADAPTER].base_model_name_or_path = self.base.hub or self.base.name
        for name, parameter in self._saved().items():
            parameter.requires_grad_(name.startswith(f"{self.base.family.head}.") and not self.base.family.fixed)
        for name, layer in self._layers().items():
            if isinstance(layer, AdaLoraLayer):
                # A constant. On a bf16 base PEFT's cast to fp32 makes it trainable (peft 0.21).
                layer.ranknum[ADAPTER].requires_grad_(False)
            # Still part of the adapter, and saved with it; it only gets no gradient.
            if self.adapter.fixed:
                _site(layer).tensors[self.adapter.fixed].requires_grad_(False)
            # Once: what is folded stays in the weight while adapters come and go above it.
            if name not in self._folded:
                self._refuse_tied(name, layer)
                self._folded[name] = FoldedBase.of(layer.get_base_layer(), self.past_as)
        if start is not None:
            self.set_values(start)
        attached: PeftModel = self.model
        return attached

    def _wrap(self) -> PeftModel:
        """Return the base model inside PEFT.

        Raises:
            ModelError: PEFT refuses the settings, or a target is no linear layer.
        """
        chosen: LoraInput = {**default_targets(self.base.model), **self.lora}
        rank = max(int(r) for r in (chosen.get("r", 8), *(chosen.get("rank_pattern") or {}).values()))
        layers = targeted(self.base.model, chosen.get("target_modules") or ())
        width = sum(sum(shape_of(layer)) for layer in layers.values())
        self.check_fits(rank * width, f"adapters of rank {rank} on {len(layers)} modules", "--lora-r")
        linear = {n.rsplit(".", 1)[-1] for n, m in self.base.model.named_modules() if is_linear(m)}
        try:
            config = self._config(with_full_names(self.base.model, chosen))
            model = get_peft_model(self.base.model, config, adapter_name=ADAPTER)
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"cannot put an adapter on {self.base.name!r}: {str(error).splitlines()[0]} "
                f"(linear layers of this model: {', '.join(sorted(linear))}; choose with --lora-target-modules)"
            ) from None
        adapted = [n for n, m in model.base_model.model.named_modules() if isinstance(m, LoraLayer)]
        check_matched(self.base.model, adapted, self.lora)
        check_named(self.base.name, self.lora.get("target_modules"), adapted, linear)
        others = [name for name in adapted if not _linear(model.base_model.model.get_submodule(name))]
        if others:
            raise ModelError(f"target {others[0]!r} is not a linear layer; adapt linear layers only")
        return model

    def _refuse_tied(self, name: str, layer: LoraLayer) -> None:
        """Refuse a matrix that two modules share: what is folded into one would change the other.

        Raises:
            ModelError: the weight is tied.
        """
        weight = layer.get_base_layer().weight
        places = [n for n, p in self.base.model.named_parameters(remove_duplicate=False) if p is weight]
        for other in (place.removesuffix(".weight").removesuffix(".base_layer") for place in places):
            if other != name:
                raise ModelError(
                    f"target {name!r} shares its weights with {other!r}, which would change with it; adapt other "
                    f"modules (--lora-target-modules)"
                )

    def _config(self, chosen: LoraInput) -> LoraConfig:
        """Return PEFT's configuration of the form, from LoRA's settings."""
        family = self.base.family
        fixed = {"task_type": family.peft_task, "modules_to_save": list(family.saved_modules) or None}
        if self.adapter.form == "plain":
            return LoraConfig(**fixed, **chosen)
        r = chosen.pop("r", 8)
        if self.adapter.unit:
            # PEFT has no setting for a scale of 1: alpha = r is one.
            chosen["lora_alpha"] = r
        # AdaLoRA without its rank allocation, which only its own training loop would call.
        return AdaLoraConfig(init_r=r, target_r=r, total_step=1, orth_reg_weight=0.0, **fixed, **chosen)

    def _saved(self) -> dict[str, nn.Parameter]:
        """Return the parameters of PEFT's copies of the modules that are written with the adapter, by name."""
        mark = f".modules_to_save.{ADAPTER}."
        found = {n: p for n, p in self.model.named_parameters() if mark in n}
        return {n.replace(mark, ".").removeprefix(adapters.PREFIX): p for n, p in found.items()}

    def _layers(self) -> dict[str, LoraLayer]:
        """Return PEFT's layers by module name."""
        return {n: m for n, m in self.model.base_model.model.named_modules() if isinstance(m, LoraLayer)}

    def trainable(self) -> dict[str, LowRank]:
        """Return the trainable factors themselves, by module name."""
        return {name: _site(layer) for name, layer in self._layers().items()}

    def base_layers(self) -> dict[str, nn.Module]:
        """Return the adapted layers of the base model, by module name."""
        return {name: layer.get_base_layer() for name, layer in self._layers().items()}

    def output_layers(self) -> dict[str, nn.Module]:
        """Return the adapted layers together with their adapters, by module name."""
        return dict(self._layers())

    def set_values(self, start: Updates) -> None:
        """Copy the values of ``start`` into the adapter's modules that it names.

        Raises:
            ModelError: unknown modules, or another rank, shape or form.
        """
        live = self.trainable()
        if not start.keys() <= live.keys():
            raise ModelError("the stored adapter was made for other modules than those adapted now")
        with torch.no_grad():
            for name, site in start.items():
                there = live[name].tensors
                if {k: t.shape for k, t in there.items()} != {k: t.shape for k, t in site.tensors.items()}:
                    raise ModelError(f"the stored adapter has another rank, shape or form at {name!r}")
                for key, value in site.tensors.items():
                    there[key].copy_(value)

    def restore_head(self, rest: Mapping[str, Tensor]) -> None:
        """Copy the head that was saved with an adapter, and what was written with it, into PEFT's copies of them."""
        # PEFT trains a copy of the head and leaves the original in the model, so the copy is what has to be filled.
        saved = self._saved() if self.model is not None else {}
        with torch.no_grad():
            for name, tensor in rest.items() if saved else ():
                saved[name].copy_(tensor)

    def _head(self) -> dict[str, Tensor]:
        # PEFT's copies are what was trained; the originals lie beside them.
        return dict(self._saved()) if self.model is not None else super()._head()

    def detach(self) -> None:
        """Take the adapter off, if it is attached; a trained classification head stays on the model."""
        if self.model is None:
            return
        # `unload` leaves a trained head in place, and drops the adapter without merging it: the past is ours to fold.
        self.base.model = self.model.unload()
        self.base.model.requires_grad_(False)
        self.model = None

    def set_past(self, past: UpdateHistory, merge: Merge | None = None) -> None:
        """Let the model compute with exactly ``past`` below the adapter: W0 + Σ ΔW, or W0 + merge(ΔW_1, …).

        Updates that are folded in already stay, later ones are added in order, so that a resumed run and an
        uninterrupted one are equal bit for bit.
        """
        # One update is not merged with anything.
        merge = merge if len(past) > 1 else None
        again = merge is not None and merge.train == "sum"
        for name, base in self._folded.items():
            merged = past.merged(name, merge) if merge else None
            base.set_past([delta[name] for delta in past], merged, sum_again=again)

    def load(self, folder: Path) -> tuple[LowRankUpdates, dict[str, Tensor]]:
        return adapters.read(folder)

    def export(self, folder: Path, latest: Path, past: UpdateHistory, merge: Merge | None) -> ExportLoss:
        sites, lost = adapters.merge_past(past, merge)
        adapters.write(folder, sites, adapters.read(latest)[1], like=latest)
        return lost

    def save(self, folder: Path) -> None:
        """Write the adapter as a standard PEFT folder."""
        # PEFT would fill in a template for a card of its own, a tenth of a small task's time; the run has its card.
        self.model.create_or_update_model_card = lambda folder: None
        # "auto" would ask the hub whether the vocabulary was changed; it never is here.
        self.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def _site(layer: LoraLayer) -> LowRank:
    """Return the trainable factors of one of PEFT's layers."""
    A, B, scale = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], float(layer.scaling[ADAPTER])
    if isinstance(layer, AdaLoraLayer):
        # PEFT's forward divides by this: the update must be exactly what the model computes.
        return LowRank(A, B, scale / (float(layer.ranknum[ADAPTER]) + 1e-5), layer.lora_E[ADAPTER])
    return LowRank(A.weight, B.weight, scale)


def default_targets(model: nn.Module) -> LoraInput:
    """Return LoRA's default target modules: PEFT's table for the model type, else query and value projections.

    >>> import everlora
    >>> default_targets(everlora.load("tiny-llama").model)
    {'target_modules': ['q_proj', 'v_proj']}
    """
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)  # type: ignore[union-attr]
    if known is not None:
        return {"target_modules": list(known)}
    present = {name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    # Of a type that PEFT has no table for: query and value projections, as LoRA's paper adapts them.
    for pair in (("q_proj", "v_proj"), ("query", "value"), ("q", "v"), ("q_lin", "v_lin")):
        if present.issuperset(pair):
            return {"target_modules": list(pair)}
    return {}


def targeted(model: nn.Module, targets: str | Sequence[str]) -> dict[str, nn.Linear | Conv1D]:
    r"""Return the linear layers that ``target_modules`` mean, by name; none for names that nothing has.

    >>> import everlora
    >>> sorted(targeted(everlora.load("tiny-llama").model, r".*layers\.0\..*q_proj"))
    ['model.layers.0.self_attn.q_proj']
    """
    layers = {name: layer for name, layer in model.named_modules() if is_linear(layer)}
    if targets == "all-linear":
        return layers
    if isinstance(targets, str):
        return {name: layer for name, layer in layers.items() if re.fullmatch(targets, name)}
    return {n: layer for n, layer in layers.items() if any(f".{n}".endswith(f".{one}") for one in targets)}


def _linear(layer: nn.Module) -> bool:
    """Return whether an adapted layer is linear, quantised ones included."""
    base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    return is_linear(base) or "Linear" in type(base).__name__
