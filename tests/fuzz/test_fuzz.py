"""A few inputs at every door in every run of the suite; ``make fuzz`` tries thousands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fuzz.harness import judged
from fuzz.targets import TARGETS

EXAMPLES = 30


@pytest.mark.parametrize("name", list(TARGETS))
def test_an_input_is_read_or_refused_in_a_line(name: str) -> None:
    target = TARGETS[name]
    target.ready()

    @settings(max_examples=max(5, EXAMPLES // target.cost), derandomize=True, database=None)
    @given(target.inputs)
    def execute(value: object) -> None:
        fault = judged(lambda folder: target.read(value, folder))
        assert fault is None, f"{fault}\n{value!r}"

    execute()
