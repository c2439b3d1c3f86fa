"""Reading names of methods: what is refused before anything is matched, and how errors name what they mean."""

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import everlora
from everlora.core import plugins
from everlora.core.errors import ConfigError
from everlora.core.expressions import LONGEST, build, parse, split_expression, split_list, split_outside_brackets
from everlora.core.registry import FAMILIES, Registry


def test_an_expression_has_at_most_five_thousand_characters() -> None:
    assert LONGEST == 5000
    padded = "ella(lam=" + "1" * (LONGEST - 10) + ")"
    assert len(padded) == LONGEST
    assert split_expression(padded)[0][0] == "ella"
    with pytest.raises(ConfigError, match=r"^the method 'ella\(lam=1{31}'… has 5,001 characters, at most 5,000"):
        split_expression(padded + " ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read the method ''; write name"),
        ("ella+", "cannot read the method 'ella+'"),
        ("ella(lam=1", "brackets do not match"),
        ("ella)lam=1(", "brackets do not match"),
        ("ella(lam=1) x", "cannot read 'ella(lam=1) x'"),
        ("ella(1)", "cannot read the option '1' of 'ella'; write option=value"),
        ("ella(lam=1, lam=2)", "the option 'lam' of 'ella' is given twice"),
        ("ella(lamb=1)", "method 'ella' has no option 'lamb'; did you mean 'lam'?"),
        ("n-lora(form=x)", "method 'n-lora', option 'form': "),
        ("ps-lora(sharpness=x)", "; or: "),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert said in str(refused.value)


def test_one_reason_is_given_once() -> None:
    with pytest.raises(ConfigError) as refused:
        build("ella", lam=[])
    reasons = str(refused.value).partition(": ")[2].removesuffix(" (got [])").split("; or: ")
    assert len(reasons) == len(set(reasons)) > 1


def test_spaces_and_empty_options_mean_nothing() -> None:
    assert split_expression(" ella ( lam = 1 , ) + o-lora()") == [("ella", " lam = 1 , "), ("o-lora", "")]
    assert parse(" ella ( lam = 1 , ) ") == parse("ella(lam=1)")
    assert split_list("a, ,b(c,d),") == ["a", "b(c,d)"]


@given(st.lists(st.text("ab=1", max_size=4), min_size=1, max_size=5), st.sampled_from("+,"))
def test_splitting_is_the_inverse_of_joining(parts: list[str], mark: str) -> None:
    assert split_outside_brackets(mark.join(parts), mark) == parts
    wrapped = [f"{part}({mark.join(parts)})" for part in parts]
    assert split_outside_brackets(mark.join(wrapped), mark) == wrapped


def test_a_composition_replays_if_one_of_its_methods_does_and_runs_where_all_of_them_do() -> None:
    assert (parse("ella").replay, parse("ella+replay").replay, parse("replay+ella").replay) == (False, True, True)
    assert parse("ella+replay").families == parse("ella").families == FAMILIES
    assert parse("lfpt5").families == ("decoder", "encoder-decoder")


# --- without torch, whose import takes seconds -----------------------------------------------------------------------


def test_names_are_read_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everlora, "core", everlora.core)
    for name in [name for name in sys.modules if name.startswith("everlora.core")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    read = importlib.import_module("everlora.core.expressions")
    importlib.import_module("everlora.core.benchmark")
    assert read.split_expression("a(b=1)+c") == [("a", "b=1"), ("c", "")]
    assert "ella" in read.declared_methods()


def test_a_slip_is_refused_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "loaded", False)
    monkeypatch.setattr(plugins, "may_offer", lambda group: False)
    monkeypatch.setitem(sys.modules, "everlora.core.method", None)
    with pytest.raises(ConfigError, match="unknown method 'elma'; did you mean 'ella'"):
        parse("o-lora+elma")
