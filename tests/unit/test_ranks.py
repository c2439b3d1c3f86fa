"""The rank of a sum of updates is that of its dense matrix."""

from __future__ import annotations

import pytest
import torch

from everlora.analysis.ranks import numerical_rank, over_modules
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank


@pytest.mark.parametrize(("rank", "repeated"), [(1, 0), (4, 0), (4, 3)])
def test_directions_that_repeat_count_once(rank, repeated):
    draw = torch.Generator().manual_seed(rank)
    A, B = torch.randn(rank, 12, generator=draw), torch.randn(9, rank, generator=draw)
    update = LowRank(torch.cat([A, A[:repeated]]), torch.cat([B, B[:, :repeated]], dim=1), scale=3.0)
    assert numerical_rank(update) == int(torch.linalg.matrix_rank(B.double() @ A.double())) == rank


def test_what_adds_nothing_has_rank_zero():
    assert numerical_rank(LowRank(torch.ones(2, 5), torch.zeros(4, 2))) == 0


def test_the_rank_is_that_of_the_sum_and_not_the_sum_of_ranks():
    one = {"a": LowRank(torch.eye(2, 5), torch.eye(4, 2)), "b": LowRank(torch.eye(1, 5), torch.eye(4, 1))}
    other = {"a": LowRank(torch.eye(2, 5), -torch.eye(4, 2)), "b": LowRank(torch.eye(2, 5), torch.eye(4, 2))}
    past = UpdateHistory((one, other))
    found = over_modules([numerical_rank(past.factors(name)) for name in past.sites])
    assert (found.least, found.median, found.most) == (0, 1, 2)
