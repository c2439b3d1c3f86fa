"""What is counted of the code: the counting itself, and those counts that must not grow again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_house", ROOT / "tools/count_house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCE = '''"""A file."""

# why
def f(part):  # noqa: X
    """Does it.

    >>> f(None)
    """
    getattr(part, "name")
    return getattr(part, "flag", False)
'''


def test_lines_are_counted_by_kind(counting: ModuleType) -> None:
    assert counting.count(SOURCE) == {
        "code": 3,
        "docstring": 5,
        "comment": 1,
        "definitions": 2,
        "with a docstring": 2,
        "with an example": 1,
        "getattr on parts": 1,
    }


def test_a_name_is_found_as_a_word_of_its_own(counting: ModuleType, tmp_path: Path) -> None:
    for name, text in {"a.py": "'yahoo'", "b.yaml": "order: [yahoo]", "c.py": "yahoo-news", "d.txt": "yahoo"}.items():
        (tmp_path / name).write_text(text)
    assert counting.naming(tmp_path, ["yahoo"]) == ["a.py", "b.yaml"]


def test_a_change_is_a_call_in_another_file(counting: ModuleType) -> None:
    assert counting.changes(["a", "a", "b", "a", "a"]) == 2
    assert counting.changes([]) == 0


def test_no_part_has_an_attribute_that_may_be_missing(counting: ModuleType) -> None:
    counts = [counting.count(path.read_text(encoding="utf-8")) for path in counting.PACKAGE.rglob("*.py")]
    assert sum(one["getattr on parts"] for one in counts) == 0


def test_a_training_step_passes_through_few_files(counting: ModuleType) -> None:
    """A reader who follows one step opens at most ten, of which the chain is one that is passed all the time."""
    step, task = counting.second_task()
    assert len(set(step)) <= 10, sorted(set(step))
    assert {"training/chain.py", "training/group.py", "parts/penalties.py"} <= set(step) < set(task)


def test_what_a_command_costs_is_measured_in_a_process_of_its_own(counting: ModuleType, tmp_path: Path) -> None:
    modules, seconds = counting.cost(["--version"], tmp_path, times=1)
    assert 50 < modules < 1000
    assert seconds > 0
