"""The card of a method: what is known of it without running it."""

from __future__ import annotations

import re
from typing import Annotated

import pytest

import everlora.methods  # noqa: F401
from everlora.core import registry
from everlora.core.defaults import Default, Search, defaults, searches
from everlora.core.errors import ConfigError
from everlora.core.expressions import build, parse
from everlora.core.method import Method
from everlora.core.registry import entries
from everlora.methods.cards import card, kind_of, listing


def test_every_method_has_a_row_and_a_card() -> None:
    rows = listing()
    assert [row.name for row in rows] == [known.name for known in entries()]
    for row in rows:
        assert row.group == parse(row.name).group
        assert row.cost
        assert row.stores
        found = card(row.name)
        assert found.members[0].page == registry.entry(row.name).doc()
        assert {one.name: one.default for one in found.members[0].options} == row.options


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
    assert found.name == "o-lora+ps-merge"
    assert [(one.role, one.part) for one in found.parts] == [
        ("penalties", "orthogonality"),
        ("merge", "largest_magnitude"),
    ]
    assert found.parts[0].settings["lam"] == 0.1
    assert [one.row.name for one in found.members] == ["o-lora", "ps-merge"]
    with pytest.raises(ConfigError, match="did you mean"):
        card("o-lorra")


def test_the_source_of_a_default_is_shown_with_it() -> None:
    options = {one.name: one for one in card("o-lora").members[0].options}
    assert options["lam"].source == "λ₁ = 0.5 is that of the authors' scripts for orders 1 to 3."
    assert not options["lam"].ours
    assert options["norm"].kind == "l1 | l2sq | cos"
    (ours,) = (one for one in card("ella").members[0].options if one.name == "rho")
    assert ours.ours
    assert (ours.kind, ours.default) == ("float | none", None)


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_every_option_declares_the_source_of_its_default(known: registry.Entry) -> None:
    """Somebody has chosen it, a paper, its authors' code or this library, and a whole sentence says who."""
    notes = defaults(known.build)
    assert notes.keys() == known.options().keys()
    assert {one.name: one.source for one in card(known.name).members[0].options} == {
        name: note.source for name, note in notes.items()
    }
    for name, note in notes.items():
        assert re.fullmatch(r"\S.* .*\.", note.source), name
        assert "   " not in note.source, name


def test_a_source_that_is_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="whole sentence"):
        Default("Table 2")
    with pytest.raises(ValueError, match="whole sentence"):
        Default("")


def test_an_option_without_a_source_has_none() -> None:
    def build(*, rank: int = 8, lam: Annotated[float, "no note"] = 0.1) -> None: ...

    assert defaults(build) == {}
    assert searches(build) == {}


def test_values_to_try_are_those_of_the_annotation_in_order() -> None:
    def build(
        *,
        lam: Annotated[float, Default("Ours."), Search(1.0, 0.1)] = 0.1,
        form: Annotated[str, Search("dual", "direct")] = "direct",
        rank: Annotated[int, Default("Ours.", ours=True)] = 8,
    ) -> None: ...

    assert searches(build) == {"lam": (1.0, 0.1), "form": ("dual", "direct")}
    assert {name: note.ours for name, note in defaults(build).items()} == {"lam": False, "rank": True}


def test_values_to_search_stand_beside_the_default() -> None:
    def build(
        *,
        lam: Annotated[float, Default("Ours.", ours=True), Search(0.1, 1.0)] = 0.1,
        rank: Annotated[int, Default("Table 2 of the paper.")] = 8,
    ) -> None: ...

    assert searches(build) == {"lam": (0.1, 1.0)}
    assert {name: (note.source, note.ours) for name, note in defaults(build).items()} == {
        "lam": ("Ours.", True),
        "rank": ("Table 2 of the paper.", False),
    }


def test_sources_do_not_change_what_an_option_accepts() -> None:
    assert build("ella", lam="0.5") == build("ella", lam=0.5)
    assert build("ella", rho="0.2").penalties[0].lam.rho == 0.2
    with pytest.raises(ConfigError, match="option 'energy': Input should be 'raw', 'rms' or 'max'"):
        build("ella", energy="other")


def test_what_a_method_does_not_declare_is_shown_as_not_declared() -> None:
    with registry.isolated():

        @registry.method("silent", title="Says nothing", paper="none")
        def silent() -> Method:
            return parse("inclora").named("silent")

        (row,) = (row for row in listing() if row.name == "silent")
        assert (row.cost, row.stores) == ("not declared", "not declared")
    (free,) = (row for row in listing() if row.name == "seqlora")
    assert free.cost == "nothing"


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_compositions_on_a_page_can_be_composed(known: registry.Entry) -> None:
    term = r"[a-z0-9-]+(?:\([^)`]*\))?"
    for expression in re.findall(rf"``({term}(?:\+{term})+)``", known.doc()):
        parse(expression)


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_every_page_says_what_always_holds_and_where_one_falls(known: registry.Entry) -> None:
    page = known.doc()
    assert "Invariants: " in page
    assert "Pitfalls: " in page
    assert "What we do differently" in page
    assert "Composition: " in page


def test_kinds_in_words() -> None:
    from everlora.core.roles import View
    from everlora.parts.strengths import StrengthOption

    assert [kind_of(kind) for kind in (StrengthOption, View, int | None, bool, str)] == [
        "float | auto | budget(nats=X, probes=N)",
        "sum | merged",
        "int | none",
        "yes | no",
        "str",
    ]


def test_plug_ins_and_studies_are_no_rows_of_tables() -> None:
    rows = {row.name: list(row.rows) for row in listing()}
    assert not any(rows[name] for name in ("ps-merge", "mean-merge", "project-out", "copy-layers", "replay"))
    assert all(rows[name] == [name] for name in ("ella", "o-lora", "seqlora", "zero-shot", "mtl", "per-task", "ties"))
    assert rows["migu"] == ["migu", "o-lora+migu"]
    assert rows["data"] == ["data", "data+replay"]
