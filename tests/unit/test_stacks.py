"""A stack of modules gives for each of them what that module gives alone: dimensions are counted from the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculus import draw
from everlora.parts.decay import squared_norm
from everlora.parts.fusion import hard
from everlora.parts.masks import strongest
from everlora.parts.merges import larger, ties, trim
from everlora.parts.penalties import energy, energy_overlap, interference, interference_bound, orthogonality, shrink
from everlora.parts.signs import sign_conflict
from everlora.parts.slow import orthonormal_rows
from everlora.parts.sparsity import sparsity

L, OUT, INTO, R = 3, 4, 5, 2
DENSE, DOWN, UP = (OUT, INTO), (R, INTO), (OUT, R)


def past(tensor: Tensor) -> Tensor:
    """A past with holes in it, where nothing interferes."""
    return tensor * (tensor.abs() > 0.5)


FUNCTIONS: dict[str, tuple[tuple[tuple[int, ...], ...], Callable[..., Any]]] = {
    "energy raw": ((DENSE,), lambda W: energy(W, "raw")),
    "energy rms": ((DENSE,), lambda W: energy(W, "rms")),
    "energy max": ((DENSE,), lambda W: energy(W, "max")),
    "energy_overlap": ((DOWN, UP, DENSE, DENSE), lambda A, B, E, S: energy_overlap(A, B, 0.5, E.square(), S)),
    "shrink": ((DENSE, DENSE), lambda G, E: shrink(G, E, 0.7)),
    "interference": ((DENSE, DENSE), interference),
    "interference_bound": ((DENSE, DENSE), lambda G, W: interference_bound(G, past(W), past(W).square(), 0.7)),
    "orthogonality l1": ((DOWN, DOWN), lambda A, P: orthogonality(A, P, "l1")),
    "orthogonality l2sq": ((DOWN, DOWN), lambda A, P: orthogonality(A, P, "l2sq")),
    "orthogonality cos": ((DOWN, DOWN), lambda A, P: orthogonality(A, P, "cos")),
    "squared_norm": ((UP, DOWN), lambda U, V: squared_norm(U, V, 0.5)),
    "sparsity": ((DOWN, UP), sparsity),
    "sign_conflict": (
        (DOWN, UP, DENSE, (1, 1), DENSE),
        lambda A, B, P, n, S: sign_conflict(A, B, 0.5, torch.tanh(P), n.abs(), start=S),
    ),
    "orthonormal_rows": ((DOWN,), orthonormal_rows),
    "strongest": (((INTO,),), lambda size: strongest(size.abs(), 0.6)),
    "trim": ((DENSE,), lambda W: trim(W, 0.3)),
    "ties": ((DENSE, DENSE), lambda V, W: ties([V, W], 0.6)),
    "larger": ((DENSE, DENSE), larger),
    "hard": (((INTO,), (INTO,)), lambda new, old: hard(new > 0, old > 0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_stack_is_its_modules(name: str, seed: int) -> None:
    shapes, function = FUNCTIONS[name]
    stacks = draw(seed, *((L, *shape) for shape in shapes))
    whole = function(*stacks)
    for k in range(L):
        alone = function(*(tensor[k] for tensor in stacks))
        both = zip(*((found if isinstance(found, tuple) else (found,)) for found in (whole, alone)), strict=True)
        for found, expected in both:
            torch.testing.assert_close(found[k], expected, rtol=1e-6, atol=1e-9)
