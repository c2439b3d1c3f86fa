"""Checks that LoRA's settings name modules that exist: a name without any is a slip, which PEFT would not see."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn

from everlora.adapters.base import LoraInput
from everlora.core.errors import ModelError, nearest
from everlora.models.layers import is_linear
from everlora.settings.lora import OF_TARGETS

Value = TypeVar("Value")


def check_matched(model: nn.Module, adapted: Collection[str], lora: LoraInput) -> None:
    """Refuse names, patterns and numbers of layers in LoRA's settings that match no module.

    Args:
        model: the base model.
        adapted: names of the modules that are adapted.
        lora: settings by PEFT's own names.

    Raises:
        ModelError: one of them matches none.
    """
    for setting, patterns in (
        ("rank_pattern", lora.get("rank_pattern")),
        ("alpha_pattern", lora.get("alpha_pattern")),
    ):
        _check_patterns(setting, list(patterns or ()), adapted)
    chosen = lora.get("layers_to_transform")
    numbers = {number for name in adapted if (number := _layer(name)) is not None}
    for number in [chosen] if isinstance(chosen, int) else chosen or ():
        if number not in numbers:
            raise ModelError(f"layers_to_transform names layer {number}, in which no module is adapted")
    wanted = lora.get("exclude_modules")
    for one in [wanted] if isinstance(wanted, str) else wanted or ():
        single: LoraInput = {"exclude_modules": one if isinstance(wanted, str) else [one]}
        if not any(excluded(name, single) for name, _ in model.named_modules()):
            raise ModelError(f"no module matches {one!r} in exclude_modules")


def _check_patterns(setting: str, patterns: list[str], adapted: Collection[str]) -> None:
    """Refuse patterns that match nothing, and those all of whose modules an earlier pattern takes."""
    first = {get_pattern_key(patterns, name) for name in adapted}
    for pattern in patterns:
        own = [name for name in adapted if get_pattern_key([pattern], name) is pattern]
        if not own:
            raise ModelError(f"{pattern!r} in {setting} matches no module that is adapted; see target_modules")
        if pattern not in first:
            raise ModelError(
                f"{pattern!r} in {setting} has no effect: {get_pattern_key(patterns, own[0])!r} stands before it and "
                f"matches the same modules; put the narrower pattern first, or take one out"
            )


def with_full_names(model: nn.Module, chosen: LoraInput) -> LoraInput:
    """Return LoRA's settings with ``rank_pattern`` and ``alpha_pattern`` by full names of modules.

    Of patterns that match one module PEFT takes the first, and it writes them in another order: sorted.

    Args:
        model: the base model.
        chosen: settings by PEFT's own names, target modules among them.
    """
    targets = chosen.get("target_modules")
    if targets == "all-linear":
        adapted = [n for n, m in model.named_modules() if is_linear(m) or "Linear" in type(m).__name__]
    else:
        where = LoraConfig(target_modules=targets, **{n: value for n, value in chosen.items() if n in OF_TARGETS})
        adapted = [n for n, _ in model.named_modules() if n and check_target_module_exists(where, n)]
    resolved = chosen.copy()
    if ranks := _by_name(chosen.get("rank_pattern") or {}, adapted):
        resolved["rank_pattern"] = ranks
    if alphas := _by_name(chosen.get("alpha_pattern") or {}, adapted):
        resolved["alpha_pattern"] = alphas
    return resolved


def _by_name(patterns: Mapping[str, Value], adapted: Sequence[str]) -> dict[str, Value]:
    """Return patterns that each match one module, with the value of the first pattern that matches it."""
    found = {name: patterns[key] for name in adapted if (key := get_pattern_key(patterns, name)) in patterns}
    return as_patterns(found, adapted)


def as_patterns(values: Mapping[str, Value], adapted: Iterable[str]) -> dict[str, Value]:
    r"""Write values of modules as patterns of PEFT, each of which matches its own module alone.

    >>> as_patterns({"layers.0.q": 2, "layers.1.q": 3}, ["layers.0.q", "up.layers.0.q", "layers.1.q"])
    {'^layers\\.0\\.q': 2, 'layers.1.q': 3}
    """
    # PEFT takes a name for the end of a path.
    ends = {name[at + 1 :] for name in adapted for at, sign in enumerate(name) if sign == "."}
    return {f"^{re.escape(name)}" if name in ends else name: value for name, value in values.items()}


def excluded(name: str, lora: LoraInput) -> bool:
    """Return whether ``exclude_modules`` names a module, by a pattern or by the end of its path.

    >>> excluded("layers.0.q_proj", {"exclude_modules": ["q_proj"]}), excluded("layers.0.q_proj", {})
    (True, False)
    """
    wanted = lora.get("exclude_modules") or ()
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(f".{name}".endswith(f".{one}") for one in wanted)


def _layer(name: str) -> int | None:
    """Return the number of the layer that a module is in, the first in its path."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def check_named(model: str, targets: object, adapted: Collection[str], words: Collection[str]) -> None:
    """Refuse a list of targets one of which no adapted module is called.

    PEFT ignores a name that matches nothing as long as another one matches: a typing error would go unseen.

    Args:
        model: its name.
        targets: the names that are asked for; anything but a list of them passes.
        adapted: paths of the modules that are adapted.
        words: names of the linear layers that the model has.

    Raises:
        ModelError: which target.
    """
    for target in targets if isinstance(targets, list | tuple) else ():
        if any(name == target or name.endswith(f".{target}") for name in adapted):
            continue
        if target in words:
            where = "none of the layers that are adapted; choose others (--lora-layers, --lora-target-modules)"
            raise ModelError(f"the module {target!r} of {model!r} is in {where}")
        raise ModelError(f"no module of {model!r} is called {target!r}{nearest(target, words)}")
