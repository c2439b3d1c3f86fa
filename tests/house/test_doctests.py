"""Every example in a docstring is run."""

from __future__ import annotations

import doctest
import importlib

import pytest
from test_rooms import FILES, ROOT

SHOWN = [path for path in FILES if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_docstrings_run(path) -> None:
    names = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(names[:-1] if names[-1] == "__init__" else names))
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
