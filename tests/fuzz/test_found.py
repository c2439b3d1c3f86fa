"""Inputs that were read wrongly once, or still are: the smallest of each kind that fuzzing found, and the hostile ones.

What still fails is marked; whoever mends one takes the mark away, and its kind out of `test_fuzz.KNOWN`.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.harness import judged
from fuzz.hostile import CASES
from fuzz.targets import TARGETS, Rows

HOSTILE: dict[str, str] = {}
"""Hostile inputs that are read wrongly today, and how."""

DEAR: set[str] = set()
"""Hostile inputs that take seconds, read or refused, and so run in ``make test-all`` only."""

SMALL: dict[str, tuple[str, Any, str]] = {}
"""Small inputs: the door, the input, and how it is read wrongly today, empty where it is mended."""


def hostile() -> list[Any]:
    found = []
    for name in CASES:
        marks = [pytest.mark.full] if name in DEAR else []
        marks += [pytest.mark.xfail(strict=True, reason=HOSTILE[name])] if name in HOSTILE else []
        found.append(pytest.param(name, marks=marks, id=name))
    return found


def small() -> list[Any]:
    return [
        pytest.param(door, value, marks=[pytest.mark.xfail(strict=True, reason=why)] if why else [], id=name)
        for name, (door, value, why) in SMALL.items()
    ]


@pytest.fixture(scope="module")
def read(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a process of its own says of the hostile inputs that are wanted."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = [item.callspec.params["hostile_input"] for item in here if "hostile_input" in item.callspec.params]
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run([sys.executable, str(script), *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("hostile_input", hostile())
def test_a_hostile_input_is_read_or_refused_in_a_line(read: dict[str, Any], hostile_input: str) -> None:
    assert read[hostile_input] is None


@pytest.mark.parametrize(("door", "value"), small())
def test_a_small_input_is_read_or_refused_in_a_line(door: str, value: Any) -> None:
    assert judged(functools.partial(TARGETS[door].read, value)) is None
