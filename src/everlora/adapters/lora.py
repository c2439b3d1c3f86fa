"""Adapters on a model: one stock PEFT adapter, named ``default``, and a past that is ours.

PEFT sees a fresh (or continued) LoRA adapter and nothing else. What earlier tasks added stands below it: folded into
the adapted matrices in fp32, so that a step costs the same at every task; or, where the base cannot be folded into
(quantised weights), as one frozen low-rank term beside each matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn

from everlora.adapters import files as adapters
from everlora.adapters.base import AdapterBackend, PastAs
from everlora.adapters.folded import FoldedBase
from everlora.archive.results import ExportLoss
from everlora.core.adapter import Adapter
from everlora.core.errors import ModelError, nearest
from everlora.core.history import UpdateHistory
from everlora.core.roles import Merge
from everlora.core.updates import LowRank, LowRankUpdates, Updates
from everlora.data.task import Task
from everlora.models.loading import Loaded
from everlora.runtime.seeds import seeded

ADAPTER = "default"


class LoraBackend(AdapterBackend):
    """Carries LoRA pairs, or triplets, on one base model through its life."""

    forms = ("plain", "svd")
    files = ("adapter_config.json", adapters.WEIGHTS)

    def __init__(
        self, base: Loaded, lora: Mapping[str, Any], past_as: PastAs = "auto", adapter: Adapter | None = None
    ) -> None:
        super().__init__(base, lora, past_as, adapter)
        self._folded: dict[str, FoldedBase] = {}

    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> PeftModel:
        """Put a trainable adapter on the model: fresh (B = 0), or starting from ``start``.

        Raises:
            ModelError: no target module found, or a target is no linear layer.
        """
        if self.model is not None:
            raise RuntimeError("an adapter is mounted already; close it first")
        with seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = self._wrap()
        self.model.base_model.model.config.name_or_path = self.base.name
        self.model.peft_config[ADAPTER].base_model_name_or_path = self.base.name
        for name, layer in self._layers().items():
            if isinstance(layer, AdaLoraLayer):
                # A constant. On a bf16 base PEFT's cast to fp32 makes it trainable (peft 0.21).
                layer.ranknum[ADAPTER].requires_grad_(False)
            if self.adapter.fixed:
                _site(layer).tensors[self.adapter.fixed].requires_grad_(False)
            if name not in self._folded:
                self._unshared(name, layer)
                self._folded[name] = FoldedBase.of(layer.get_base_layer(), self.past_as)
        if start is not None:
            self.set_values(start)
        mounted: PeftModel = self.model
        return mounted

    def _wrap(self) -> PeftModel:
        head = self.base.family.head
        chosen = {**default_targets(self.base.model), **self.lora}
        linear = {n.rsplit(".", 1)[-1] for n, m in self.base.model.named_modules() if isinstance(m, nn.Linear)}
        try:
            config = self._config(
                {"task_type": self.base.family.peft_task, "modules_to_save": [head] if head else None, **chosen}
            )
            model = get_peft_model(self.base.model, config, adapter_name=ADAPTER)
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"cannot put an adapter on {self.base.name!r}: {str(error).splitlines()[0]} "
                f"(linear layers of this model: {', '.join(sorted(linear))}; choose with --lora-target-modules)"
            ) from None
        asked = self.lora.get("target_modules")
        layers = [n for n, m in model.base_model.model.named_modules() if isinstance(m, LoraLayer)]
        for target in asked if isinstance(asked, list | tuple) else ():
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                raise ModelError(f"no module of {self.base.name!r} is called {target!r}{nearest(target, linear)}")
        others = [n for n, m in model.base_model.model.named_modules() if isinstance(m, LoraLayer) and not _linear(m)]
        if others:
            raise ModelError(f"target {others[0]!r} is not a linear layer; adapt linear layers only")
        return model

    def _unshared(self, name: str, layer: LoraLayer) -> None:
        """Refuse a matrix that stands in two places: what is folded into one would change the other."""
        weight = layer.get_base_layer().weight
        places = [n for n, p in self.base.model.named_parameters(remove_duplicate=False) if p is weight]
        for other in (place.removesuffix(".weight").removesuffix(".base_layer") for place in places):
            if other != name:
                raise ModelError(
                    f"target {name!r} shares its weights with {other!r}, which would change with it; adapt other "
                    f"modules (--lora-target-modules)"
                )

    def _config(self, chosen: dict[str, Any]) -> LoraConfig:
        if self.adapter.form == "plain":
            return LoraConfig(**chosen)
        r = chosen.pop("r", 8)
        if self.adapter.unit:
            chosen["lora_alpha"] = r
        # AdaLoRA without its rank allocation, which only its own training loop would call.
        return AdaLoraConfig(init_r=r, target_r=r, total_step=1, orth_reg_weight=0.0, **chosen)

    def _layers(self) -> dict[str, LoraLayer]:
        return {n: m for n, m in self.model.base_model.model.named_modules() if isinstance(m, LoraLayer)}

    def trainable(self) -> dict[str, LowRank]:
        """The trainable parameters themselves, by module: looked up afresh, since wrappers may replace them."""
        return {name: _site(layer) for name, layer in self._layers().items()}

    def base_layers(self) -> dict[str, nn.Module]:
        """The adapted layers themselves, by module."""
        return {name: layer.get_base_layer() for name, layer in self._layers().items()}

    def output_layers(self) -> dict[str, nn.Module]:
        """The adapted layers with their adapters, by module."""
        return dict(self._layers())

    def set_values(self, start: Updates) -> None:
        """Give the adapter, or those of its modules that ``start`` names, these values.

        Raises:
            ModelError: other modules, another rank, shape or form.
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
        """Give the trained classification head, if there is one, the values that were saved with an adapter."""
        head = self.base.family.head
        if head is None or self.model is None:
            return
        trained = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in rest.items():
                stem, kind = name.removeprefix(f"{head}."), f"base_model.model.{head}.modules_to_save.default"
                trained[f"{kind}.{stem}"].copy_(tensor)

    def detach(self) -> None:
        """Take the adapter off, if one is on; a trained classification head stays."""
        if self.model is None:
            return
        self.base.model = self.model.unload()
        self.base.model.requires_grad_(False)
        self.model = None

    def set_past(self, past: UpdateHistory, merge: Merge | None = None) -> None:
        """Let the model carry exactly ``past`` below the adapter: W = W0 + Σ ΔW, or W0 + what ``merge`` makes of them.

        Incremental: what is below already stays, later updates are added in their order, so that a resumed life and
        an uninterrupted one are equal bit for bit.
        """
        for name, below in self._folded.items():
            below.set_past([delta[name] for delta in past], merge)

    def load(self, folder: Path) -> tuple[LowRankUpdates, dict[str, Tensor]]:
        return adapters.read(folder)

    def export(self, folder: Path, latest: Path, past: UpdateHistory, merge: Merge | None) -> ExportLoss:
        sites, lost = adapters.merge_past(past, merge)
        adapters.write(folder, sites, adapters.read(latest)[1], like=latest)
        return lost

    def save(self, folder: Path) -> None:
        """Write the adapter as a standard PEFT folder."""
        # "auto" would ask the hub whether the vocabulary was changed; it never is here.
        self.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # the run has its own card


def _site(layer: LoraLayer) -> LowRank:
    A, B, scale = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], float(layer.scaling[ADAPTER])
    if isinstance(layer, AdaLoraLayer):
        return LowRank(A, B, scale / (float(layer.ranknum[ADAPTER]) + 1e-5), layer.lora_E[ADAPTER])
    return LowRank(A.weight, B.weight, scale)


def default_targets(model: nn.Module) -> dict[str, list[str]]:
    """PEFT's own table for LoRA (query and value projections, mostly), and the same where it has no entry."""
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)  # type: ignore[union-attr]
    if known is not None:
        return {"target_modules": list(known)}
    present = {name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for pair in (("q_proj", "v_proj"), ("query", "value"), ("q", "v"), ("q_lin", "v_lin")):
        if present.issuperset(pair):
            return {"target_modules": list(pair)}
    return {}


def _linear(layer: nn.Module) -> bool:
    base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    return isinstance(base, nn.Linear) or "Linear" in type(base).__name__
