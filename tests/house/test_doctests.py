"""Examples in docstrings are run, and thirty of the functions that strangers call have one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import everlora

LEAST = 30
"""Public functions and classes that must have an example."""


@cache
def modules() -> tuple[ModuleType, ...]:
    """All modules but the one that runs the command line when it is imported."""
    names = (found.name for found in pkgutil.walk_packages(everlora.__path__, "everlora."))
    return everlora, *(importlib.import_module(name) for name in names if name != "everlora.__main__")


@cache
def examples() -> tuple[doctest.DocTest, ...]:
    """The examples of every docstring, each where it is defined."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return tuple(test for module in modules() for test in finder.find(module) if test.examples)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_an_example_shows_what_it_says(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, clear_globs=False)
    assert runner.failures == 0


def test_what_strangers_call_has_an_example() -> None:
    names = {module.__name__ for module in modules()}
    public = [
        t.name for t in examples() if t.name not in names and not any(p.startswith("_") for p in t.name.split("."))
    ]
    assert len(public) >= LEAST, public
