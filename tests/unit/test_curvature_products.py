"""The two products of a row's gradient from its tokens, of layers that are called once, twice, or without gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calculus import draw
from everlora.training.curvature import Products, by_row


def test_a_layer_that_is_called_twice_has_one_gradient_a_row() -> None:
    """Against autograd: with L = ½ Σ z² over all outputs of a row, of 3 tokens in one call and of 2 in the other."""
    one, other, weight = draw(0, (2, 3, 4), (2, 2, 4), (5, 4), dtype=torch.float32)
    layer, found = nn.Linear(4, 5, bias=False).requires_grad_(False), Products()
    layer.weight.copy_(weight)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (layer(x).square().sum() + layer(y).square().sum()) / 2

    hook = layer.register_forward_hook(found.watch)
    for _ in range(2):  # two batches of the same two rows
        loss(one, other).backward()
    hook.remove()
    layer.requires_grad_(True)
    rows = [torch.autograd.grad(loss(one[k], other[k]), layer.weight)[0] for k in range(2)]
    mean = found.mean(4)
    assert mean is not None
    torch.testing.assert_close(mean.left, sum(G @ G.mT for G in rows) / 2)
    torch.testing.assert_close(mean.right, sum(G.mT @ G for G in rows) / 2)


def test_a_layer_that_no_gradient_goes_through_has_no_factors() -> None:
    layer, found = nn.Linear(4, 5), Products()
    assert found.mean(1) is None
    layer.register_forward_hook(found.watch)
    layer(torch.ones(1, 2, 4))
    assert found.mean(1) is None


def test_all_between_the_first_dimension_and_the_last_are_tokens() -> None:
    (windows,) = draw(1, (2, 3, 4, 5))
    assert by_row(windows).dtype == torch.float32
    assert torch.equal(by_row(windows), windows.float().reshape(2, 12, 5))
    assert torch.equal(by_row(windows[0]), windows[0].float())
    assert torch.equal(by_row(windows[0, 0]), windows[0, 0].float().reshape(4, 1, 5))
