from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

import everlora.methods
from everlora.core import registry
from everlora.core.errors import ConfigError
from everlora.core.expressions import build, check_declared, parse
from everlora.core.method import Method
from everlora.core.registry import Entry, entries, entry
from everlora.methods.ella import ella
from everlora.methods.olora import olora


@pytest.fixture
def own_names() -> Iterator[None]:
    """Registering in a test leaves the registry as it was."""
    with registry.isolated():
        yield


# --- the language ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["ella", "ELLA", " ella ", "el-la", "e_l_l_a", "ella()", "ella( )", "ella ()"],
)
def test_spellings_of_one_method(text: str) -> None:
    assert parse(text) == ella()


@pytest.mark.parametrize("text", ["ella(lam=7)", "ella( lam = 7.0 )", "ELLA (lam=7,)", " ella(lam=7) "])
def test_spellings_of_one_option(text: str) -> None:
    assert parse(text) == ella(lam=7)


@pytest.mark.parametrize("text", ["o-lora", "O-LoRA", "olora", "o_lora", "O LoRA"])
def test_dashes_and_case_are_forgiven(text: str) -> None:
    assert parse(text) == olora()


@pytest.mark.parametrize(
    ("text", "lam"), [("1e-3", 1e-3), ("1e+3", 1e3), ("+2", 2.0), (".5", 0.5), ("0", 0.0), (" 7 ", 7.0)]
)
def test_numbers_as_people_type_them(text: str, lam: float) -> None:
    """A plus inside the brackets belongs to the number and not to the composition."""
    method = parse(f"ella(lam={text})")
    assert method == ella(lam=lam)
    assert type(method.penalties[0].strength) is float


def test_several_options_and_several_methods() -> None:
    method = parse("ella(lam=1e-1, energy=max) + o-lora(lam=5,side=B,norm=l2sq,norm_lam=0.1)")
    assert method.penalties == ella(lam=0.1, energy="max").penalties + (
        olora(lam=5, side="B", norm="l2sq", norm_lam=0.1).penalties
    )
    assert method.name == "ella+o-lora"
    assert parse("ella(lam=3) +o-lora ( lam=5 ) ").name == "ella+o-lora"


def test_the_same_method_twice_is_once() -> None:
    assert parse("ella + ella").penalties == parse("ella").penalties
    with pytest.raises(ConfigError, match="given twice"):
        parse("ella+ella(lam=3)")


BROKEN = ["", " ", "+", "ella+", "+ella", "ella++o-lora", "ella(lam=1", "ella)", "ella(lam=1))", "ella(lam=1)(lam=2)",
          "(lam=1)", "ella((lam=1))", "ella(lam=1)x", "ella(lam=1) o-lora", "ella\x00("]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_expression_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["ella(3)", "ella(lam)", "ella(lam:3)"])
def test_options_need_their_names(text: str) -> None:
    with pytest.raises(ConfigError, match="write option=value"):
        parse(text)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'lam'.*twice"):
        parse("ella(lam=1, lam=2)")


@pytest.mark.parametrize("typed", ["pslor", "nope"])
def test_an_unknown_method_is_refused_alike_by_the_source_alone(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    """Nothing was imported yet; where an installed package may have the name, it is left to the registry."""
    with pytest.raises(ConfigError) as by_registry:
        entry(typed)
    monkeypatch.setattr(registry.Registry, "loaded", False)
    monkeypatch.setattr(registry.plugins, "may_offer", lambda group: False)
    with pytest.raises(ConfigError) as by_source:
        check_declared(["o_lora", "PS LoRA", typed])
    assert str(by_source.value) == str(by_registry.value)
    monkeypatch.setattr(registry.plugins, "may_offer", lambda group: True)
    check_declared([typed])


@pytest.mark.parametrize(("typed", "meant"), [("ela", "ella"), ("olroa", "o-lora"), ("seqlor", "seqlora"),
                                              ("ELLLA", "ella")])  # fmt: skip
def test_an_unknown_method_names_its_neighbour(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown method '{typed}'; did you mean '{meant}'"):
        parse(typed)


def test_a_method_like_no_other_lists_them_all() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("zzzzzz")
    assert all(e.name in str(caught.value) for e in entries())


def test_an_unknown_option_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"method 'ella' has no option 'lamb'; did you mean 'lam'"):
        parse("ella(lamb=1)")
    with pytest.raises(ConfigError, match="method 'seqlora' has no option 'lam'"):
        parse("seqlora(lam=1)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ella(lam=much)", "option 'lam'.*number.*'much'"),
        ("ella(lam=)", "option 'lam'.*number"),
        ("ella(energy=big)", "option 'energy'.*'raw', 'rms' or 'max'.*'big'"),
        ("o-lora(side=C)", "option 'side'.*'A' or 'B'.*'C'"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text)


@pytest.mark.parametrize(
    "text", ["ella(lam=nan)", "ella(lam=inf)", "ella(lam=-1)", "o-lora(lam=-0.5)", "o-lora(norm_lam=nan)"]
)
def test_a_strength_is_a_number_of_at_least_zero(text: str) -> None:
    """NaN would spoil the weights at the first step; a reward for overlap is a slip of the sign."""
    with pytest.raises(ConfigError, match=r"strength.*at least 0"):
        parse(text)


def test_options_from_python_are_checked_alike() -> None:
    assert build("ella", lam=3) == ella(lam=3.0)
    with pytest.raises(ConfigError, match="no option"):
        build("ella", lambda_=3)
    with pytest.raises(ConfigError, match="option 'lam'"):
        build("ella", lam=[1])


# --- registering -----------------------------------------------------------------------------------------------------


def test_a_method_of_ones_own(own_names: None) -> None:
    @registry.method("my-way", title="t", paper="p", stores="s", aliases=("mw",))
    def mine(*, strength: int = 3) -> Method:
        """Build it."""
        return ella(lam=strength).named("my-way")

    for name in ("my-way", "MyWay", "mw", "M_W"):
        assert parse(f"{name}(strength=4)") == ella(lam=4).named("my-way")
    assert entry("mw").options() == {"strength": 3}
    assert mine(strength=5).penalties == ella(lam=5).penalties
    assert "my-way" in [e.name for e in entries()]


def test_what_builds_a_method_returns_one(own_names: None) -> None:
    registry.method("odd", title="t", paper="p", stores="s")(lambda: 3)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="'odd' must return a Method, not int"):
        parse("odd")


@pytest.mark.parametrize(
    ("name", "aliases"), [("El_La", ()), ("fresh", ("ella",)), ("lora", ()), ("fresh", ("O-LoRA",))]
)
def test_a_taken_name_is_refused_and_nothing_of_it_stays(own_names: None, name: str, aliases: tuple[str, ...]) -> None:
    before = registry.METHODS.words()
    with pytest.raises(ConfigError, match="is taken by"):
        registry.method(name, title="t", paper="p", stores="s", aliases=aliases)(lambda: ella())
    assert registry.METHODS.words() == before
    assert parse("ella") == ella()
    with pytest.raises(ConfigError, match="unknown method"):
        parse("fresh")


# --- what is registered ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[e.name for e in entries()])
def known(request: pytest.FixtureRequest) -> Entry:
    return entry(request.param)


def test_the_planned_methods_are_there_and_sorted() -> None:
    names = [e.name for e in entries()]
    assert names == sorted(names)
    assert {"ella", "inclora", "mtl", "o-lora", "per-task", "seqlora", "zero-shot"} <= set(names)


def test_every_entry_is_complete(known: Entry) -> None:
    for text in (known.title, known.paper, known.stores):
        assert text.strip()
        assert "\n" not in text
    built = known.build()
    assert isinstance(built, Method)
    assert built.name == known.name
    assert built.policy
    json.dumps(known.options())  # `everlora methods --json` prints them
    assert known.build(**known.options()) == built
    assert parse(known.name) == built
    for alias in known.aliases:
        assert parse(alias) == built


def test_what_sees_earlier_data_again_says_so(known: Entry) -> None:
    built = known.build()
    assert known.replay == built.sees_again
    if built.sees_again and built.regime == "sequence":
        assert "rows of data" in known.stores


def test_every_method_has_a_page_with_formula_and_source(known: Entry) -> None:
    page = known.doc()
    assert len(page.splitlines()) >= 5
    first = page.splitlines()[0]
    assert first.endswith(".")
    # A formula or a table stands indented, as its own block.
    assert any(line.startswith("    ") and line.strip() for line in page.splitlines())
    # Either a paper by number or venue, or the table in which the baseline stands.
    source = page + known.paper
    assert any(
        word in source for word in ("arXiv:", "EMNLP", "ICLR", "NeurIPS", "PNAS", "preprint", "baseline", "reference")
    )
    assert known.build.__module__.startswith(f"{everlora.methods.__name__}.")


def test_options_in_a_page_exist(known: Entry) -> None:
    """``name=value`` in a page must be accepted as it is written there, by every method of the page that has it."""
    page = [e for e in entries() if e.build.__module__ == known.build.__module__]
    for quoted in re.findall(r"``([^`]+)``", known.doc()):
        for budget in re.findall(r"budget\([^)]*\)", quoted):
            parse(f"{known.name}(lam={budget})")
        for option, value in re.findall(r"(\w+)=([\w.]+)", re.sub(r"budget\([^)]*\)", "", quoted)):
            having = [e.name for e in page if option in e.options()]
            assert having, option
            for name in having:
                parse(f"{name}({option}={value})")
