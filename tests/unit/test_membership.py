"""The AUC of telling members from others by their losses, against its definition."""

from __future__ import annotations

import random

import pytest

from everlora.analysis.membership import membership_auc


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_share_of_pairs_in_which_the_member_has_the_lower_loss(seed):
    draw = random.Random(seed)
    members = [draw.randint(0, 9) / 3 for _ in range(7)]
    others = [draw.randint(0, 9) / 3 for _ in range(11)]
    pairs = [(a, b) for a in members for b in others]
    share = sum(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
    assert membership_auc(members, others) == pytest.approx(share)
    assert membership_auc(others, members) == pytest.approx(1 - share)
    assert membership_auc(members, members) == 0.5
