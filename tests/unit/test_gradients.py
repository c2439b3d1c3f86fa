"""Every gradient in closed form is that of its value, by central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from calculus import draw, numeric
from everlora.core.roles import TaskContext
from everlora.core.updates import LowRank
from everlora.parts.decay import UpdateDecay, squared_norm
from everlora.parts.distil import distillation
from everlora.parts.forms_dual import departure as of_rows
from everlora.parts.penalties import energy_overlap, orthogonality
from everlora.parts.signs import sign_conflict
from everlora.parts.sparsity import sparsity
from everlora.parts.subspace import departure

OUT, INTO, R = 4, 5, 2
DENSE, DOWN, UP = (OUT, INTO), (R, INTO), (OUT, R)

FUNCTIONS: dict[str, tuple[tuple[tuple[int, ...], ...], int, Callable[..., Any]]] = {
    "squared_norm": ((UP, DOWN), 2, lambda U, V: squared_norm(U, V, 0.5)),
    "energy_overlap": ((DOWN, UP, DENSE, DENSE), 2, lambda A, B, E, S: energy_overlap(A, B, 0.5, E.square(), S)),
    "orthogonality l1": ((DOWN, DOWN), 1, lambda A, P: orthogonality(A, P, "l1")),
    "orthogonality l2sq": ((DOWN, DOWN), 1, lambda A, P: orthogonality(A, P, "l2sq")),
    "orthogonality cos": ((DOWN, DOWN), 1, lambda A, P: orthogonality(A, P, "cos")),
    "sparsity": ((DOWN, UP), 2, sparsity),
    "sign_conflict": (
        (DOWN, UP, DENSE, (1, 1), DENSE),
        2,
        lambda A, B, P, n, S: sign_conflict(A, B, 0.5, torch.tanh(P), n.abs(), start=S),
    ),
    "departure": ((UP,), 1, departure),
    "departure of rows": (
        (DOWN, UP),
        1,
        lambda live, other: of_rows(other.mT @ other @ torch.ones(R, INTO).double(), live),
    ),
}
"""Shapes of the arguments, with respect to how many of them there is a gradient, and the function."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_is_that_of_its_value(name: str) -> None:
    shapes, count, function = FUNCTIONS[name]
    points = draw(1, *shapes)
    _, *gradients = function(*points)
    assert len(gradients) == count
    for k, gradient in enumerate(gradients):

        def value(x: Tensor, k: int = k) -> Tensor:
            found: Tensor = function(*points[:k], x, *points[k + 1 :])[0]
            return found

        torch.testing.assert_close(gradient, numeric(value, points[k]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("started", [False, True])
def test_decay_pulls_to_where_the_task_began(started: bool) -> None:
    A, B, A0, B0 = draw(2, DOWN, UP, DOWN, UP)
    live, start = LowRank(A, B, 0.5), LowRank(A0.float(), B0.float(), 3.0) if started else None
    part, past = UpdateDecay(), (LowRank(A0, B0),)
    assert part.prepare(TaskContext(start=start)) is None, "nothing to hold on to on the first task"
    state = part.prepare(TaskContext(updates=past, start=start))
    assert state is not None
    held = start.dense().double() if start else 0.0

    def value(a: Tensor, b: Tensor) -> Tensor:
        return (0.5 * b @ a - held).square().sum()

    found = part.value_and_grad(live, state)
    torch.testing.assert_close(found.value, value(A, B), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.A, numeric(lambda a: value(a, B), A), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.B, numeric(lambda b: value(A, b), B), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_distillation_is_a_divergence_and_exactly_still_where_nothing_changed(tau: float) -> None:
    new, old = draw(3, (3, 4), (3, 4))
    p, q = (old / tau).softmax(-1), (new / tau).softmax(-1)
    torch.testing.assert_close(distillation(new, old, tau), tau**2 * (p * (p / q).log()).sum(-1))
    leaf = new.clone().requires_grad_()
    weights = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    (weights * distillation(leaf, old, tau)).sum().backward()
    torch.testing.assert_close(leaf.grad, weights[:, None] * tau * (q - p))
    leaf = old.clone().requires_grad_()
    distillation(leaf, old, tau).sum().backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()
