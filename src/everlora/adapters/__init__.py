"""Forms of adapters on a model. A form is a file here and a dataclass in `everlora.parts.adapters`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from everlora.adapters.base import Mount, PastAs
from everlora.core.adapter import Adapter
from everlora.models.loading import Loaded

__all__ = ["Mount", "mount"]


def mount(base: Loaded, lora: Mapping[str, Any], past_as: PastAs, adapter: Adapter) -> Mount:
    """The mount that carries the form of ``adapter``."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    kinds = {form: kind for kind in _below(Mount) for form in getattr(kind, "forms", ())}  # type: ignore[type-abstract]
    return kinds[adapter.form](base, lora, past_as, adapter)


def _below(kind: type[Mount]) -> list[type[Mount]]:
    return [one for child in kind.__subclasses__() for one in (child, *_below(child))]
