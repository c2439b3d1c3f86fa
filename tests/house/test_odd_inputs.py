"""The page of odd inputs names tests that are there, each in a row of four cells."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/odd-inputs.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def missing(text: str) -> list[str]:
    """Tests that a text names and that are not there."""
    found = []
    for file, name in NAMED.findall(text):
        path = TESTS / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        if name not in [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]:
            found.append(f"{file}::{name}")
    return found


def test_every_test_that_the_page_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(NAMED.findall(text)) > 50
    assert missing(text) == []
    assert missing("`house/test_odd_inputs.py::test_gone` `house/gone.py::test_gone`") == [
        "house/test_odd_inputs.py::test_gone",
        "house/gone.py::test_gone",
    ]


def test_every_row_has_four_cells() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [row for row in rows if len(re.split(r"(?<!\\)\|", row)) != 6] == []
