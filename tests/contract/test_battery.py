"""The battery that every method goes through on every model family; a new method is in it by being registered.

The checks stand in `everlora.testing`, where methods of a user's own find them; resuming and splitting, which are
among them, are looked at more closely in test_resume.py and tests/equivalence.
"""

from __future__ import annotations

import pytest

from everlora import parse
from everlora.testing import CHECKS, Case
from lives import METHODS, MODELS

ELSEWHERE = {"interrupted_and_resumed_equals_uninterrupted", "a_batch_in_one_piece_is_a_batch_in_eight"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("method", "check"),
    [
        (m, name)
        for name, check in CHECKS.items()
        for m in METHODS
        if name not in ELSEWHERE and check.applies(parse(m))
    ],
)
def test_it_holds(method, check, model, lived, tmp_path):
    CHECKS[check].look(Case(method, model, lived, tmp_path))
