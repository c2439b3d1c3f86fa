"""The card of a method: what is known of it without running it."""

from __future__ import annotations

import re

import pytest

import everlora.methods  # noqa: F401
from everlora.core import registry
from everlora.core.catalogue import card, kind_of, listing, source
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.registry import entries


def test_every_method_has_a_row_and_a_card() -> None:
    rows = listing()
    assert [row["name"] for row in rows] == [known.name for known in entries()]
    for row in rows:
        assert row["group"] == parse(row["name"]).group
        assert row["cost"]
        assert row["stores"]
        found = card(row["name"])
        assert found["terms"][0]["page"] == registry.entry(row["name"]).doc()
        assert {one["name"]: one["default"] for one in found["terms"][0]["options"]} == row["options"]


def test_groups() -> None:
    groups = {name: parse(name).group for name in ("ella", "mtl", "per-task", "zero-shot", "o-lora+ps-merge")}
    assert groups == {
        "ella": "replay-free",
        "mtl": "replay",
        "per-task": "task id",
        "zero-shot": "replay-free",
        "o-lora+ps-merge": "replay-free",
    }


def test_a_composition_has_a_card() -> None:
    found = card("o-lora(lam=0.1) + ps-merge")
    assert found["name"] == "o-lora+ps-merge"
    assert [(one["role"], one["part"]) for one in found["parts"]] == [
        ("penalties", "orthogonality"),
        ("merge", "largest_magnitude"),
    ]
    assert found["parts"][0]["settings"]["lam"] == 0.1
    assert [one["name"] for one in found["terms"]] == ["o-lora", "ps-merge"]
    with pytest.raises(ConfigError, match="did you mean"):
        card("o-lorra")


def test_the_source_of_a_default_is_found_on_the_page() -> None:
    options = {one["name"]: one for one in card("o-lora")["terms"][0]["options"]}
    assert options["lam"]["source"] == "Default λ₁ = 0.5, λ₂ = 0: orders 1 to 3 of the authors' scripts."
    assert options["side"]["source"].startswith("The default, ``side=A, norm=l1``, is the authors' code")
    assert options["schedule"]["source"].startswith("with ``schedule`` and ``norm_schedule``, by default none, λ =")
    assert options["norm"]["kind"] == "l1 | l2sq | cos"


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_every_default_has_a_source(known: registry.Entry) -> None:
    """Somebody has chosen it, and the page says who; of a switch it says what it is for."""
    options = card(known.name)["terms"][0]["options"]
    assert [one["name"] for one in options if not one["source"]] == []
    assert not any("   " in one["source"] for one in options)


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_every_page_says_what_always_holds_and_where_one_falls(known: registry.Entry) -> None:
    page = known.doc()
    assert "Invariants: " in page
    assert re.search(r"\bPitfalls(:| follow:) ", page)


PAGE = """A method.

    symbol   here          shape
    λ, η     lam, rate     one per module

With λ = 3 it failed. It had λ = 0.3 once. Default λ = 0.3: Table 2. We set ``rate = 10`` by hand; ``fast`` is the
default because it is fast. ``strict`` looks twice (at A; at B); ``deep=yes`` is ours, ``deep``, off by default, digs.

    L = L_task + wild;   wild=odd, as in ``loud``
"""


@pytest.mark.parametrize(
    ("option", "default", "said"),
    [
        ("lam", 0.3, "Default λ = 0.3: Table 2."),
        ("lam", 3, "With λ = 3 it failed."),
        ("lam", 0.03, ""),
        ("rate", 10, "We set ``rate = 10`` by hand"),
        ("rate", 10.0, "We set ``rate = 10`` by hand"),
        ("rate", 1, ""),
        ("speed", "fast", "``fast`` is the default because it is fast."),
        ("speed", "slow", ""),
        ("lam", None, ""),
        ("strict", False, "``strict`` looks twice (at A; at B)"),
        ("deep", None, "``deep=yes`` is ours, ``deep``, off by default, digs."),
        ("loud", False, ""),
        ("wild", "odd", ""),  # a formula is no sentence
    ],
)
def test_a_sentence_counts_if_it_names_the_default(option: str, default: object, said: str) -> None:
    assert source(option, default, PAGE) == said


def test_kinds_in_words() -> None:
    from everlora.core.roles import View
    from everlora.parts.strengths import StrengthOption

    assert [kind_of(kind) for kind in (StrengthOption, View, int | None, bool, str)] == [
        "float | auto",
        "sum | merged",
        "int | none",
        "yes | no",
        "str",
    ]


def test_plug_ins_and_studies_are_no_rows_of_tables() -> None:
    rows = {row["name"]: row["rows"] for row in listing()}
    assert not any(rows[name] for name in ("ps-merge", "mean-merge", "project-out", "copy-layers", "replay"))
    assert all(rows[name] == [name] for name in ("ella", "o-lora", "seqlora", "zero-shot", "mtl", "per-task", "ties"))
    assert rows["migu"] == ["migu", "o-lora+migu"]
    assert rows["data"] == ["data", "data+replay"]
