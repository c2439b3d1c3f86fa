"""Randomness is derived, not consumed: adding a part does not shift another's random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(run: int, *purpose: object) -> int:
    """A seed below 2³¹ that depends on the run's seed and on the purpose alone."""
    text = "/".join(map(str, (run, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's CPU random numbers from ``seed`` inside, and leave the stream outside untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
