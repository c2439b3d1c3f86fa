"""Trains the form ``directions`` (SD-LoRA): one LoRA direction per task and layer, each with a magnitude.

The directions of earlier tasks are frozen tensors in a forward hook, the newest is a trainable pair, and all tasks'
magnitudes are one trainable vector that every layer shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from everlora.adapters import files as adapters
from everlora.adapters.hooked import HookedBackend, load_tensors
from everlora.core.errors import FolderError, ModelError
from everlora.core.updates import LowRank, ModuleUpdate, Updates, Weights
from everlora.data.task import Task
from everlora.models.layers import shape_of

SCALARS = "scalars"
"""Key of what all layers share: alpha (t,), one magnitude per task."""


class DirectionsForm(Protocol):
    """Declares what the backend needs of the form, see `everlora.parts.forms_directions`."""

    def settle(self, alpha: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitude () and scales (L,) of a finished direction, from its magnitude () and norms (L,)."""
        ...


class DirectionsBackend(HookedBackend):
    """Computes W0 + Σ_i α_i s_i B_i A_i: the B_i, A_i of earlier tasks are frozen, all α_i are trained."""

    forms = ("directions",)
    file = "directions.safetensors"
    files = ("adapter_config.json", adapters.WEIGHTS, file)

    def build(self, seed: int, start: Updates | None, tasks: Sequence[Task]) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.rank = int(self.lora.get("r", 8))
        # Its dropout is a function, drawn for each row: rows that shared a part of themselves would share its mask.
        self.base.family.whole_prompts = float(self.lora.get("lora_dropout", 0.0)) > 0
        self.check_rank(self.rank, "--lora-r")
        self.frozen: dict[str, dict[str, Tensor]] = {}
        self.pairs: dict[str, nn.ParameterDict] = {}
        known = {name: site.tensors for name, site in (start or {}).items()}
        if start is not None and known.keys() != {*self.layers, SCALARS}:
            raise ModelError("what is stored was made for other modules than those adapted now")
        alpha = known[SCALARS]["alpha"] if known else torch.empty(0)
        scales = {name: known[name]["scale"] if known else torch.empty(0) for name in self.layers}
        # A task that is about to be learned gets a direction of its own; without one the model only answers, as it was
        # stored.
        fresh = bool(tasks) or not known
        if known and fresh:
            alpha, scales = self._finish_newest(known)
        where = next(self.model.parameters()).device
        # A copy: the update that was stored stays as it is while its magnitudes are trained on.
        alpha = torch.cat([alpha, torch.ones(1)]) if fresh else alpha.clone()
        self.scalars = self.add_parameters(SCALARS, {"alpha": alpha.to(where)})
        for name, layer in self.layers.items():
            (out, into), r = shape_of(layer), self.rank
            bound = into**-0.5
            A = torch.empty(r, into).uniform_(-bound, bound, generator=draw)  # Kaiming with a = √5, as PEFT's
            B = torch.zeros(out, r)
            old_A, old_B = torch.empty(0, into), torch.empty(out, 0)
            if known:
                old_A, old_B = known[name]["A"], known[name]["B"]
                if not fresh:
                    old_A, A, old_B, B = old_A[:-r], old_A[-r:], old_B[:, :-r], old_B[:, -r:]
            # The newest direction has scale 1 while it is trained; its scale is fixed when the next task starts.
            scale = torch.cat([scales[name], torch.ones(1)]) if fresh else scales[name]
            held = {"A": old_A, "B": old_B, "scale": scale}
            self.frozen[name] = {key: t.to(where) for key, t in held.items()}
            self.pairs[name] = self.add_parameters(name, {"A": A.clone().to(where), "B": B.clone().to(where)})
            self.add_hook(layer, self._add_directions(name))

    def _finish_newest(self, known: Mapping[str, Mapping[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return magnitudes (t,) and scales by layer (t,) once the newest direction is frozen like the others."""
        norms = torch.stack(
            [known[name]["A"][-self.rank :].norm() * known[name]["B"][:, -self.rank :].norm() for name in self.layers]
        )
        alpha = known[SCALARS]["alpha"]
        last, scale = cast(DirectionsForm, self.adapter).settle(alpha[-1], norms)
        scales = {n: torch.cat([known[n]["scale"][:-1], scale[k : k + 1]]) for k, n in enumerate(self.layers)}
        return torch.cat([alpha[:-1], last.reshape(1)]), scales

    def _add_directions(self, name: str) -> Any:
        """Return the forward hook that adds all directions to the output of one layer."""
        p = float(self.lora.get("lora_dropout", 0.0))

        def add(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            frozen, pair, r = self.frozen[name], self.pairs[name], self.rank
            alpha, x = self.scalars["alpha"] * frozen["scale"], args[0].to(pair["A"].dtype)
            total = out
            # Added one by one in a fixed order: with a fresh B = 0 the sum is, to the bit, that of the task before.
            for k in range(len(alpha) - 1):
                A, B = frozen["A"][k * r : (k + 1) * r], frozen["B"][:, k * r : (k + 1) * r]
                total = total + alpha[k] * linear(linear(x, A), B)
            newest = linear(linear(dropout(x, p, layer.training), pair["A"]), pair["B"])
            return (total + alpha[-1] * newest).to(out.dtype)

        return add

    def trainable(self) -> dict[str, Weights]:
        pairs = {name: Weights(dict(pair.items())) for name, pair in self.pairs.items()}
        return {**pairs, SCALARS: Weights(dict(self.scalars.items()))}

    def extract(self) -> dict[str, ModuleUpdate]:
        """Return a copy of all directions, oldest first, with their scales and magnitudes: A (t r, i), B (o, t r)."""
        updates: dict[str, Weights] = {SCALARS: self.trainable()[SCALARS]}
        for name, frozen in self.frozen.items():
            A = torch.cat([frozen["A"], self.pairs[name]["A"]])
            B = torch.cat([frozen["B"], self.pairs[name]["B"]], dim=1)
            updates[name] = Weights({"A": A, "B": B, "scale": frozen["scale"]})
        return {name: site.map(lambda p: p.detach().cpu().float().clone()) for name, site in updates.items()}

    def save(self, folder: Path) -> None:
        """Write the sum as one standard PEFT adapter of rank t·r, and in a second file what cannot be read off it.

        The adapter's B holds α s B, from which neither magnitudes nor scales could be recovered.
        """
        sites = {name: site.tensors for name, site in self.extract().items()}
        alpha = sites.pop(SCALARS)["alpha"]
        config = LoraConfig(
            task_type=self.base.family.peft_task,
            target_modules=sorted(sites),
            modules_to_save=list(self.base.family.saved_modules) or None,
        )
        config.base_model_name_or_path = self.base.hub or self.base.name
        config.save_pretrained(str(folder))
        summed = {name: sum_directions(site, alpha) for name, site in sites.items()}
        adapters.write(folder, summed, self.copy_head(), like=folder)
        factors = {f"{name}/{key}": site[key].contiguous() for name, site in sites.items() for key in ("B", "scale")}
        save_file({**factors, f"{SCALARS}/alpha": alpha}, folder / self.file)

    def load(self, folder: Path) -> tuple[Mapping[str, ModuleUpdate], dict[str, Tensor]]:
        summed, rest = adapters.read(folder)
        factors = load_tensors(folder / self.file)
        try:
            sites: dict[str, ModuleUpdate] = {
                name: Weights({"A": site.A, "B": factors[f"{name}/B"], "scale": factors[f"{name}/scale"]})
                for name, site in summed.items()
            }
            sites[SCALARS] = Weights({"alpha": factors[f"{SCALARS}/alpha"]})
        except KeyError as error:
            raise FolderError(f"{folder / self.file} is incomplete: {error.args[0]} is missing") from None
        return sites, rest


def sum_directions(site: Mapping[str, Tensor], alpha: Tensor) -> LowRank:
    """Return Σ_i α_i s_i B_i A_i of one layer as one update of rank t·r.

    >>> site = {"A": torch.eye(2), "B": torch.eye(2), "scale": torch.tensor([1.0, 0.5])}
    >>> sum_directions(site, alpha=torch.tensor([3.0, 4.0])).dense().diagonal().tolist()
    [3.0, 2.0]

    Args:
        site: A (t r, i), B (o, t r) and scale (t,) of the layer.
        alpha: the magnitudes (t,).
    """
    each = (alpha * site["scale"]).repeat_interleave(len(site["A"]) // len(alpha))
    return LowRank(site["A"], site["B"] * each)
