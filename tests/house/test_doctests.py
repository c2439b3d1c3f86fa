"""Examples in docstrings are run, and whatever strangers call has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import everlora

STRANGERS = {
    "everlora": " ".join(everlora.__all__),
    "everlora.roles": """
        Adapter AutoStrength BlockStep Budget Consolidator Curvature Default Evidence GradientTransform Initialiser
        LowRank Merge Needs OutputPenalty PenaltyGradient Rehearsal StepRule TaskContext WeightPenalty Weights
        check_strength plan
        """,
    "everlora.parts": """
        LargestMagnitude Mean complement distillation drop energy energy_overlap extend_basis interference
        interference_bound larger orthogonality project_off project_out read_strength shrink sign_conflict ties trim
        """,
    "everlora.testing": "BenchmarkCase Case battery benchmark_battery made_up_rows metric_battery record_run",
}
"""What strangers call, by the module that offers it: each of these shows in its docstring how it is called."""


@cache
def modules() -> tuple[ModuleType, ...]:
    """All modules but the one that runs the command line when it is imported, and kernels where there is no Triton."""
    names = (found.name for found in pkgutil.walk_packages(everlora.__path__, "everlora."))
    left_out = {"everlora.__main__"} | ({"everlora.kernels.tiles"} if find_spec("triton") is None else set())
    return everlora, *(importlib.import_module(name) for name in names if name not in left_out)


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
    run = {test.name for test in examples()}
    lacking = []
    for home, names in STRANGERS.items():
        module = importlib.import_module(home)
        for name in names.split():
            found = getattr(module, name)
            if name not in module.__all__ or f"{found.__module__}.{found.__qualname__}" not in run:
                lacking.append(f"{home}.{name}")
    assert lacking == []
