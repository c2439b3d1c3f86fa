"""Forms of adapters on a model. A form is a file here and a dataclass in `everlora.parts.adapters`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from everlora.adapters.base import AdapterBackend, PastAs
from everlora.core.adapter import Adapter
from everlora.models.loading import Loaded

__all__ = ["AdapterBackend", "make_backend"]


def make_backend(base: Loaded, lora: Mapping[str, Any], past_as: PastAs, adapter: Adapter) -> AdapterBackend:
    """The mount that carries the form of ``adapter``."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    kinds = {form: kind for kind in _below(AdapterBackend) for form in getattr(kind, "forms", ())}  # type: ignore[type-abstract]
    return kinds[adapter.form](base, lora, past_as, adapter)


def _below(kind: type[AdapterBackend]) -> list[type[AdapterBackend]]:
    return [one for child in kind.__subclasses__() for one in (child, *_below(child))]
