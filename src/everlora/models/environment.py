"""Versions and machine for the record of a run, and the facts that are stored with every score."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from everlora.models.loading import Loaded
from everlora.runtime import world

PACKAGES = ("everlora", "torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers")
EXTRAS = ("lm-eval",)
SCORING = ("everlora", "torch", "transformers", "peft", "tokenizers")
"""Packages whose version may change an answer."""


def environment(base: Loaded | None = None) -> dict[str, Any]:
    """Return versions and machine, for the record of a run; with the model's precision and family if one is given."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {
            **{name: _version(name) for name in PACKAGES},
            **{name: found for name in EXTRAS if (found := _version(name))},
        },
        "threads": torch.get_num_threads(),
        "processes": world.size(),
        **({"precision": base.precision.describe(), "family": base.family.name} if base else {}),
    }


def fingerprint(base: Loaded, scoring: str, invariant: bool | None) -> dict[str, Any]:
    """Return what a score depends on: backend, device, precision, scoring, batch invariance and versions.

    Args:
        base: the model that answers.
        scoring: how answers are found, ``generate`` or ``labels``.
        invariant: whether rows got the same answers by themselves as in a batch; None if that was not checked.
    """
    return {
        "backend": "torch",
        **base.precision.describe(),
        "attention": getattr(base.model.config, "_attn_implementation", None),
        "scoring": scoring,
        "batch_invariant": invariant,
        "versions": {name: _version(name) for name in SCORING},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
