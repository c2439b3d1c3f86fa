"""A few inputs at every door in every run of the suite; ``make fuzz`` tries thousands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fuzz.harness import judged
from fuzz.targets import TARGETS

EXAMPLES = 30
_YAML = {"ValueError", "KeyError", "AttributeError", "RecursionError", "TypeError"}
_SHOWN = {"long", "raw"}
_PRINTED = {"RuntimeError", "PydanticSerializationError"}
KNOWN: dict[str, set[str]] = {
    "recipe": _YAML | _SHOWN | _PRINTED,
    "protocol": _YAML | _SHOWN | _PRINTED,
    "options": _SHOWN | _PRINTED,
    "tasks": _YAML | _SHOWN,
    "rows": {"TypeError"} | _SHOWN,
    "expression": _SHOWN,
    "records": _YAML | _SHOWN | _PRINTED,
    "folders": _SHOWN,
}
"""Kinds of faults that a door has today; `test_found` holds an input of each, which fails until it is mended."""


@pytest.mark.parametrize("name", list(TARGETS))
def test_an_input_is_read_or_refused_in_a_line(name: str) -> None:
    target = TARGETS[name]
    target.ready()

    @settings(max_examples=max(5, EXAMPLES // target.cost), derandomize=True, database=None)
    @given(target.inputs)
    def execute(value: object) -> None:
        fault = judged(lambda folder: target.read(value, folder))
        assert fault is None or fault.kind in KNOWN.get(name, set()), f"{fault}\n{value!r}"

    execute()
