"""Records versions and machine of a run, and the facts that are stored with every score."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from everlora.archive.records import Environment, Fingerprint, PrecisionRecord
from everlora.models.families import TextClassifier
from everlora.models.loading import Loaded
from everlora.models.packing import describe
from everlora.models.weights import quantization_of
from everlora.runtime import world

PACKAGES = ("everlora", "torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers")
EXTRAS = ("lm-eval",)
SCORING = ("everlora", "torch", "transformers", "peft", "tokenizers")
"""Packages whose version may change an answer."""


def environment(base: Loaded | None = None) -> Environment:
    """Return versions and machine, for the record of a run; with the model's precision and family if one is given."""
    # Only those that are here: what is optional and absent changes no number.
    extras = {name: found for name in EXTRAS if (found := _version(name))}
    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        packages={**{name: _version(name) for name in PACKAGES}, **extras},
        threads=torch.get_num_threads(),
        processes=world.size(),
        precision=PrecisionRecord(**base.precision.describe()) if base else None,
        family=base.family.name if base else None,
        newly_initialised=tuple(base.fresh) if base else (),
        pooling=base.family.pooling if base and isinstance(base.family, TextClassifier) else None,
        base_files=base.files.record() if base and base.files else None,
    )


def fingerprint(base: Loaded, scoring: str, invariant: bool | None) -> Fingerprint:
    """Return what a score depends on: backend, device, precision, scoring, batch invariance, end tokens and versions.

    Args:
        base: the model that answers.
        scoring: how answers are found, ``generate`` or ``labels``.
        invariant: whether rows got the same answers by themselves as in a batch; None if that was not checked.
    """
    quantization = describe(base.precision) or quantization_of(base.model.config)
    # Plain weights say nothing of it, so that their fingerprint is that of earlier versions.
    extra = {"quantization": quantization} if quantization else {}
    return Fingerprint(
        **extra,
        backend="torch",
        **base.precision.describe(),
        attention=getattr(base.model.config, "_attn_implementation", None),
        scoring=scoring,
        batch_invariant=invariant,
        **base.family.answering(),
        versions={name: _version(name) for name in SCORING},
    )


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
