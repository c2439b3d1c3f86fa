"""The battery that every method goes through on model families as tests/plan.py has it; a new method is in it by being
registered.

The checks stand in `everlora.testing`, where methods of a user's own find them; resuming and splitting, which are
among them, are looked at more closely in test_resume.py and tests/equivalence.
"""

from __future__ import annotations

import pytest

from everlora.testing import CHECKS, Case
from plan import DAILY, case, pairs, parsed
from tiny_runs import METHODS

ELSEWHERE = {"interrupted_and_resumed_equals_uninterrupted", "a_batch_in_one_piece_is_a_batch_in_eight"}


@pytest.mark.parametrize(
    ("check", "method", "model"),
    [
        case((name, *pair), pair in DAILY)
        for name, check in CHECKS.items()
        for pair in pairs(METHODS)
        if name not in ELSEWHERE and check.applies(parsed(pair[0]))
    ],
)
def test_it_holds(check, method, model, recorded, tmp_path):
    CHECKS[check].look(Case(method, model, recorded, tmp_path))
