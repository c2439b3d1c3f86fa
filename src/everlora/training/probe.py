"""Measures how strongly the outputs of adapted layers answered since the last step, for transforms that need it.

Forward hooks look, nothing is replaced. Sums are of one process and, once per step, added up over all of them, so
that what a transform makes of them is the same on every process and for every split of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from everlora.adapters import AdapterBackend
from everlora.core.errors import ConfigError
from everlora.core.roles import NeedsActivations, State
from everlora.core.updates import LowRank, ModuleUpdate
from everlora.models.tokens import Tokens
from everlora.runtime import world
from everlora.runtime.seeds import seed_for
from everlora.training.group import Group


class Probe:
    """Sums magnitudes per output, by place and live tensor, of all forward passes inside a ``with`` block.

    Args:
        layers: the layers whose outputs are looked at, by place.
        live: what is trained, by place.
        update_too: look at the outputs of the update by itself, too.
        tokens: knows padding.
        seed: of random draws.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        live: Mapping[str, ModuleUpdate],
        update_too: bool,
        tokens: Tokens,
        seed: int,
    ) -> None:
        self.layers, self.live, self.update_too, self.tokens, self.seed = layers, live, update_too, tokens, seed
        self.sums: dict[str, dict[str, Tensor]] = {}
        self._hooks: list[Any] = []

    @classmethod
    def wanted(cls, groups: Sequence[Group], model: nn.Module, backend: AdapterBackend, seed: int) -> Probe | None:
        """Return the probe that the transforms of these groups need; None if none does.

        Raises:
            ConfigError: one asks, and what is trained has no outputs.
        """
        parts = [part for group in groups for part, _ in group.transforms if isinstance(part, NeedsActivations)]
        if not parts:
            return None
        layers = backend.output_layers()
        if not layers:
            raise ConfigError(
                f"{parts[0].name!r} looks at the outputs of trained layers, and this method trains none; take one "
                f"with adapters (seqlora, inclora, o-lora, …)"
            )
        return cls(layers, backend.trainable(), any(part.probe == "lora_only" for part in parts), Tokens(model), seed)

    def __enter__(self) -> Probe:
        self.tokens.__enter__()
        self._hooks = [layer.register_forward_hook(self._watch(place)) for place, layer in self.layers.items()]
        return self

    def __exit__(self, *_: object) -> None:
        self.tokens.__exit__()
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.sums = [], {}

    def show(self, groups: Sequence[Group], step: int) -> None:
        """Give the transforms of all groups what was summed since the last step, and begin anew."""
        sums = self._reduced()
        for group in groups:
            for part, state in group.transforms:
                if isinstance(part, NeedsActivations):
                    sizes = (
                        self._drawn(group, part.name, step) if part.probe == "random" else self._stacked(group, sums)
                    )
                    # Such a part judges a row of B by what the update alone makes of it, without the frozen layer's
                    # share.
                    if part.probe == "lora_only" and "update" in sizes:
                        sizes["B"] = sizes["update"]
                    group.now[part.name] = part.look(sizes, state)

    def _watch(self, place: str) -> Any:
        site, sums = self.live[place], self.sums

        @torch.no_grad()
        def look(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            if not layer.training:
                return  # a look back at former answers, not the loss
            x = args[0]
            mask = self.tokens.of(layer, x)
            found = magnitudes(site, x, out, mask, update_too=self.update_too)
            mine = sums.setdefault(place, {})
            for key, value in found.items():
                mine[key] = mine[key] + value if key in mine else value

        return look

    def _reduced(self) -> dict[str, dict[str, Tensor]]:
        """Add the sums up over all processes, in one message, and clear those of this process."""
        # In the order of the layers and not of the calls: every process must put the same sum in the same place.
        keys = [(place, key) for place in self.layers for key in self.sums.get(place, {})]
        if not keys:
            return {}
        parts = [self.sums[place][key] for place, key in keys]
        totals = torch.split(world.total(torch.cat(parts)), [len(part) for part in parts])
        self.sums.clear()
        found: dict[str, dict[str, Tensor]] = {}
        for (place, key), value in zip(keys, totals, strict=True):
            found.setdefault(place, {})[key] = value
        return found

    def _stacked(self, group: Group, sums: Mapping[str, Mapping[str, Tensor]]) -> State:
        """Stack the sums of one group, (L, n) by live tensor; infinite where a place has no outputs."""
        keys = {key: len(value) for name in group.names for key, value in sums.get(name, {}).items()}
        found = {}
        for key, n in keys.items():
            nothing = torch.full((n,), torch.inf, device=group.device)
            found[key] = torch.stack([sums.get(name, {}).get(key, nothing).to(group.device) for name in group.names])
        return found

    def _drawn(self, group: Group, part: str, step: int) -> State:
        """Draw random magnitudes, the same on every process and for every split of the batch."""
        rows = {key: p.shape[0] for key, p in group.live[0].tensors.items() if p.ndim == 2 and key != "sigma"}
        found: dict[str, list[Tensor]] = {key: [] for key in rows}
        for name in group.names:
            # On the CPU and from step and place alone: a device's own generator would draw otherwise on each kind of
            # device, and a running one otherwise after a different number of draws.
            source = torch.Generator().manual_seed(seed_for(self.seed, part, step, name))
            for key, n in rows.items():
                there = name in self.layers
                found[key].append(torch.rand(n, generator=source) if there else torch.full((n,), torch.inf))
        return {key: torch.stack(each).to(group.device) for key, each in found.items()}


def magnitudes(site: Any, x: Tensor, out: Tensor, mask: Tensor | None, *, update_too: bool = False) -> State:
    """Return Σ |z| over the tokens of a forward pass, by live tensor: z = A x of A (r,), the output of B or a weight.

    Args:
        site: what is trained there.
        x: what the layer read, (..., i).
        out: what it put out, adapter included, (..., o).
        mask: which positions count, (...); None for all.
        update_too: ``update``, Σ |ΔW x|, too.
    """
    if not isinstance(site, LowRank):
        return {key: _sum(out, mask) for key, p in site.tensors.items() if p.ndim == 2}
    inner = linear(x.to(site.A.dtype), site.A)  # without the adapter's dropout, which would be noise here
    found = {"A": _sum(inner, mask), "B": _sum(out, mask)}
    if update_too:
        found["update"] = _sum(site.scale * linear(inner, site.up), mask)
    return found


def _sum(z: Tensor, mask: Tensor | None) -> Tensor:
    """Return Σ |z| over positions, (n,), in fp64 where the device has it."""
    size = z.abs()
    if mask is not None:
        size = size.masked_fill(~mask.unsqueeze(-1), 0)
    # Sums are compared to decide which rows are masked. A batch that is split otherwise is added in another order, and
    # in fp32 its rounding could turn a close decision.
    return size.flatten(0, -2).sum(0, dtype=torch.float32 if z.device.type == "mps" else torch.float64)
