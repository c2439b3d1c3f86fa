"""The rank of a sum of updates is that of its dense matrix."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from everlora.analysis.ranks import numerical_rank, rank_of_sum


@pytest.mark.parametrize(("rank", "repeated"), [(1, 0), (4, 0), (4, 3)])
def test_directions_that_repeat_count_once(rank, repeated):
    draw = torch.Generator().manual_seed(rank)
    A, B = torch.randn(rank, 12, generator=draw), torch.randn(9, rank, generator=draw)
    A, B = torch.cat([A, A[:repeated]]), torch.cat([B, B[:, :repeated]], dim=1)
    assert numerical_rank(A, B) == int(torch.linalg.matrix_rank(B.double() @ A.double())) == rank


def test_what_adds_nothing_has_rank_zero(tmp_path):
    assert numerical_rank(torch.randn(2, 5), torch.zeros(4, 2)) == 0
    assert rank_of_sum(tmp_path) is None
    tensors = {"a.lora_A.weight": torch.eye(2, 5), "a.lora_B.weight": torch.eye(4, 2)}
    tensors |= {"b.lora_A.weight": torch.eye(1, 5), "b.lora_B.weight": torch.eye(4, 1)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    found = rank_of_sum(tmp_path)
    assert (found.least, found.median, found.most) == (1, 1.5, 2)
