"""The maths of SD-LoRA: what a magnitude is when its direction is frozen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlora import parse
from everlora.core.errors import ConfigError
from everlora.parts.forms_directions import keep_product, reset_magnitude

positive = st.floats(2.0**-20, 2.0**20, width=32)


def test_by_hand():
    """Norms 3 and 4 of two layers: their root mean square √12.5 = 3.54 is nearest to 4 (log₂ = 1.82)."""
    alpha, scales = keep_product(torch.tensor(1.5), torch.tensor([3.0, 4.0]))
    assert (float(alpha), scales.tolist()) == (6.0, [0.25, 0.25])
    alpha, scales = reset_magnitude(torch.tensor(1.5), torch.tensor([3.0, 4.0]))
    assert float(alpha) == 1
    torch.testing.assert_close(scales, torch.tensor([1 / 3, 1 / 4]))


@given(positive, st.lists(positive, min_size=1, max_size=5))
def test_kept_is_kept_to_the_bit_and_near_a_unit_direction(alpha, norms):
    before, sizes = torch.tensor(alpha), torch.tensor(norms)
    after, scales = keep_product(before, sizes)
    assert all(bool(after * scale == before) for scale in scales)
    unit = (sizes * scales).double().square().mean().sqrt()
    assert 2**-0.5 - 1e-6 <= float(unit) <= 2**0.5 + 1e-6


@given(st.lists(positive, min_size=1, max_size=5))
def test_renewed_directions_are_units(norms):
    sizes = torch.tensor(norms)
    alpha, scales = reset_magnitude(torch.tensor(2.0), sizes)
    torch.testing.assert_close(alpha * scales * sizes, torch.ones_like(sizes))


def test_reset_changes_the_function_by_the_norms_that_were_learned():
    norms = torch.tensor([0.01, 0.1])
    for settle, factor in ((keep_product, [1.0, 1.0]), (reset_magnitude, [100.0, 10.0])):
        alpha, scales = settle(torch.tensor(1.0), norms)
        torch.testing.assert_close(alpha * scales, torch.tensor(factor))


@pytest.mark.parametrize("settle", [keep_product, reset_magnitude])
def test_a_direction_that_learned_nothing_stays_nothing(settle):
    alpha, scales = settle(torch.tensor(1.0), torch.zeros(2))
    assert (alpha * scales).isfinite().all()


@pytest.mark.parametrize("expression", ["sd-lora(start=never)", "sd-lora+o-lora", "sd-lora(rank=4)"])
def test_bad_options_are_refused(expression):
    with pytest.raises(ConfigError):
        parse(expression)
