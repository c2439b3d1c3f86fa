"""The daily plan leaves nothing out: what it thins are combinations, never a method, a part, a form or a family."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from everlora import parse
from everlora.core.registry import FAMILIES, entries, entry
from plan import DAILY, ONE_OF, ROLES, crossed, few, pairs
from tiny_runs import METHODS, MODELS, OTHERS

METHOD_OF = {name: parse(name) for name in (*METHODS, *OTHERS)}


def models_of(choose):
    """The models on which a method that is chosen goes through the daily run."""
    return {model for name, model in DAILY if choose(METHOD_OF[name])}


def fitting(choose):
    """The models of the families for which a method that is chosen is made."""
    families = {family for name, method in METHOD_OF.items() if choose(method) for family in entry(name).families}
    return {model for model, family in zip(MODELS, FAMILIES, strict=True) if family in families}


def test_every_method_and_every_part_is_there():
    assert {name for name, _ in DAILY} == {known.name for known in entries()}
    daily = {type(part) for name, _ in DAILY for part in METHOD_OF[name].parts()}
    assert daily == {type(part) for known in entries() for part in parse(known.name).parts()}


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_on_every_family(role):
    assert models_of(lambda method: getattr(method, role)) == set(MODELS)


def test_every_form_policy_regime_and_consolidator_is_on_every_family_that_has_it():
    for what in (
        lambda method: method.adapter.form,
        lambda method: (method.adapter.low_rank, method.adapter.policy),
        lambda method: method.adapter.fixed,
        lambda method: method.regime,
        lambda method: (method.adapter.low_rank, method.consolidator.rule),
    ):
        for value in map(what, METHOD_OF.values()):
            same = lambda method: what(method) == value  # noqa: E731, B023
            assert models_of(same) == fitting(same) != set(), value


def test_it_is_a_plan_and_not_the_product():
    assert set(DAILY) <= set(pairs([*METHODS, *OTHERS]))
    assert len(set(DAILY) & set(pairs(METHODS))) < len(pairs(METHODS)) / 2


def test_few_covers_all_with_few():
    covers = {("a", 1): {1, 2}, ("b", 1): {2}, ("b", 2): {2, 3}, ("c", 3): {4}, ("d", 3): {4}}
    assert few(covers) == [("a", 1), ("b", 2), ("c", 3)]
    assert few({}) == []


def test_crossed_marks_all_but_a_diagonal():
    mark = crossed(one=["a", "b", "c"], other=[0, 1]).mark
    names, rows = mark.args
    assert names == ("one", "other")
    assert len(rows) == 6
    assert {row.values for row in rows if not row.marks} == {("a", 0), ("b", 1), ("c", 0)}
    assert {mark.name for row in rows for mark in row.marks} == {"full"}


@pytest.mark.parametrize("name", ONE_OF)
def test_what_is_thinned_out_is_a_test_of_several_cases(name: str) -> None:
    file, _, function = name.partition("::")
    paths = Path(__file__).parents[1].rglob(file)
    nodes = [node for path in paths for node in ast.parse(path.read_text("utf-8")).body]
    (found,) = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function]
    assert found.decorator_list
    assert ONE_OF[name] > 1
