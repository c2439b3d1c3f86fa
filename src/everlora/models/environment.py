"""Where numbers were made: versions and machine for the record of a run, and the fingerprint that a score carries."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from everlora.archive.records import Environment, Fingerprint, PrecisionRecord
from everlora.models.loading import Loaded
from everlora.runtime import world

PACKAGES = ("everlora", "torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers")
EXTRAS = ("lm-eval",)
SCORING = ("everlora", "torch", "transformers", "peft", "tokenizers")
"""Packages whose version may change an answer."""


def environment(base: Loaded | None = None) -> Environment:
    """Versions and machine, for the record of a run."""
    extras = {name: found for name in EXTRAS if (found := _version(name))}
    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        packages={**{name: _version(name) for name in PACKAGES}, **extras},
        threads=torch.get_num_threads(),
        processes=world.size(),
        precision=PrecisionRecord(**base.precision.describe()) if base else None,
        family=base.family.name if base else None,
    )


def fingerprint(base: Loaded, scoring: str, invariant: bool | None) -> Fingerprint:
    """Backend, device, precision, evaluator, batch invariance and versions: what travels with every score.

    Args:
        base: the model that answers.
        scoring: how answers are found.
        invariant: whether rows were answered alone as they were among others; None where nobody looked.
    """
    return Fingerprint(
        backend="torch",
        **base.precision.describe(),
        attention=getattr(base.model.config, "_attn_implementation", None),
        scoring=scoring,
        batch_invariant=invariant,
        versions={name: _version(name) for name in SCORING},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
