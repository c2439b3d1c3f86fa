"""Chooses which layers of a model are adapted: all of them, the upper ones, or a range, of every stack or of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import nn

from everlora.adapters.base import LoraInput
from everlora.core.errors import ModelError
from everlora.settings.lora import read_layers, split_side

PLACE = re.compile(r"(.*?)\.(\d+)\.")
"""A module's stack of layers is what stands before the first number in its path, its layer this number."""


def in_layers(model: nn.Module, modules: Iterable[str], given: str) -> list[str]:
    """Return those of some modules that are in the chosen layers, of every stack of layers.

    >>> import everlora
    >>> model = everlora.load("tiny-llama").model
    >>> names = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    >>> in_layers(model, names, "top:1")
    ['model.layers.1.self_attn.q_proj']

    Args:
        model: whose modules they are.
        modules: paths of the modules.
        given: see `everlora.settings.lora.read_layers`, and `split_side` for those of one stack.

    Raises:
        ModelError: there are no such layers.
    """
    side, inside = split_side(given)
    wanted = (0, 0) if inside is None else read_layers(inside)
    found: list[str] = []
    sizes: dict[str, int] = {}
    for name in modules:
        place = PLACE.match(name)
        if place and (side is None or side in place[1].split(".")):
            stack, layer = place[1], int(place[2])
            # Of the whole stack: top:2 are its two upper layers, whether or not they have anything to adapt.
            size = sizes.setdefault(stack, len(list(model.get_submodule(stack).children())))
            if inside is None:
                wanted = (0, size - 1)
            first, last = wanted if isinstance(wanted, tuple) else (max(0, size - wanted), size - 1)
            if first <= layer <= last:
                found.append(name)
    top = wanted if isinstance(wanted, int) else wanted[1] + 1
    if not found or top > max(sizes.values(), default=0):
        there = ", ".join(f"{stack} has {size}" for stack, size in sizes.items()) or "no module stands in one"
        raise ModelError(f"there are no layers {given} with modules to adapt ({there}, counted from 0)")
    return found


def restrict(model: nn.Module, lora: LoraInput, targets: Callable[[LoraInput], Iterable[str]]) -> LoraInput:
    """Return LoRA's settings in PEFT's words, with the chosen layers written out as target modules.

    Args:
        model: that is adapted.
        lora: settings, ``layers`` among them.
        targets: finds the modules that settings without ``layers`` adapt.
    """
    rest = lora.copy()
    given = rest.pop("layers")
    return {**rest, "target_modules": in_layers(model, targets(rest), given)}
