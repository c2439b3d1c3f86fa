"""Which combinations the daily run goes through; the rest of every product is marked ``full`` (`make test-all`).

A method can be wrong by itself, which shows on any family; or a kind of part can be wrong on a family, which shows
with any method of that kind. So every method goes through one family at least, and every family through one method at
least of each kind: of each role, each form of adapter, each way in which the past is carried on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest

from everlora import parse
from everlora.core.registry import FAMILIES
from tiny_runs import METHODS, MODELS, OTHERS

ROLES = ("initialiser", "penalties", "outputs", "transforms", "rehearsal", "rule", "merge")
"""The fields of `Method` that hold parts."""
Pair = tuple[str, str]
"""A method and a model."""


parsed = cache(parse)
"""Every process reads the same few names for thousands of cases."""


@cache
def kinds(method: str) -> frozenset[str]:
    """The roles that a method fills, what it trains, and how it carries the past on."""
    composed = parsed(method)
    adapter = composed.adapter
    trains = (composed.regime, adapter.form, adapter.policy, f"fixed={adapter.fixed}", composed.consolidator.rule)
    return frozenset({*trains, *(role for role in ROLES if getattr(composed, role))})


def pairs(methods: Iterable[str], models: Sequence[str] = MODELS) -> tuple[Pair, ...]:
    """Every method with every model of a family that it is made for."""
    family = dict(zip(MODELS, FAMILIES, strict=True))
    return tuple((method, model) for method in methods for model in models if family[model] in parsed(method).families)


def few(covers: dict[Any, set[Hashable]]) -> list[Any]:
    """Few of the keys, so that together they cover all that any covers; evenly over what stands last in them."""
    missing: set[Hashable] = set().union(*covers.values())
    chosen: list[Any] = []
    while missing:
        often = Counter(key[-1] for key in chosen)
        best = max(covers, key=lambda key: (len(covers[key] & missing), -often[key[-1]]))  # the first of equals
        missing -= covers[best]
        chosen.append(best)
    return chosen


@cache
def daily(candidates: tuple[Pair, ...]) -> frozenset[Pair]:
    """The pairs of the daily run: each method, and each of the kinds on each of the models."""
    return frozenset(few({(m, model): {m, *((kind, model) for kind in kinds(m))} for m, model in candidates}))


DAILY = daily(pairs(METHODS)) | daily(pairs(OTHERS))


def planned(candidates: Iterable[Pair], chosen: frozenset[Pair] = DAILY) -> list[Any]:
    """Parameters ``method, model``, one for each pair."""
    return [case(pair, pair in chosen) for pair in candidates]


def crossed(**values: Sequence[Any]) -> Callable[..., Any]:
    """Parametrise with the product of ``values``, and on every day with as few cases as show each value once."""
    rows = list(product(*values.values()))
    longest = max(map(len, values.values()))
    chosen = {tuple(row[k % len(row)] for row in values.values()) for k in range(longest)}
    return pytest.mark.parametrize(tuple(values), [case(row, row in chosen) for row in rows])


def case(row: Sequence[Any], everyday: bool) -> Any:
    """One set of parameters."""
    return pytest.param(*row, marks=() if everyday else pytest.mark.full)
