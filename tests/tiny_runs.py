"""The runs of `everlora.testing`, and which of the registered methods go through which tests."""

from __future__ import annotations

from everlora import parse
from everlora.core.registry import entries
from everlora.testing.tiny_runs import (
    MODELS,
    NAMES,
    Cut,
    Watch,
    adapter,
    base,
    begin,
    fresh,
    image_task,
    largest_difference,
    outputs,
    spec,
    stream,
    text_task,
    train_sequence,
)

__all__ = [
    "METHODS",
    "MODELS",
    "NAMES",
    "OTHERS",
    "SEQUENTIAL",
    "TRAINED",
    "Cut",
    "Watch",
    "adapter",
    "base",
    "begin",
    "fresh",
    "image_task",
    "largest_difference",
    "outputs",
    "spec",
    "stream",
    "text_task",
    "train_sequence",
]

METHODS = tuple(entry.name for entry in entries() if parse(entry.name).adapter.low_rank)
"""Methods that train low-rank updates, or nothing; all others go through tests/contract/test_forms.py."""
OTHERS = tuple(entry.name for entry in entries() if not parse(entry.name).adapter.low_rank)
SEQUENTIAL = tuple(name for name in METHODS if parse(name).regime == "sequence")
TRAINED = tuple(name for name in METHODS if parse(name).regime != "frozen")
