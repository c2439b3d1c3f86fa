"""Where numbers were made: versions and machine for the record of a run, and the fingerprint that a score carries."""

from __future__ import annotations

import platform
import sys
from functools import cache
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
    """Versions and machine, for the record of a run."""
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
    """Backend, device, precision, evaluator, batch invariance and versions: what travels with every score.

    Args:
        base: the model that answers.
        scoring: how answers are found.
        invariant: whether rows were answered alone as they were among others; None where nobody looked.
    """
    return {
        "backend": "torch",
        **base.precision.describe(),
        "attention": getattr(base.model.config, "_attn_implementation", None),
        "scoring": scoring,
        "batch_invariant": invariant,
        "versions": {name: _version(name) for name in SCORING},
    }


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
