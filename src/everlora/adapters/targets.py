"""Which modules LoRA's settings name: what matches nothing is a typing error, which PEFT would not see."""

from __future__ import annotations

import re
from collections.abc import Collection

from peft.utils.other import get_pattern_key
from torch import nn

from everlora.adapters.base import LoraInput
from everlora.core.errors import ModelError


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
        for pattern in patterns or ():
            if not any(get_pattern_key([pattern], name) is pattern for name in adapted):
                raise ModelError(f"{pattern!r} in {setting} matches no module that is adapted; see target_modules")
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
