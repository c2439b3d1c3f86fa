"""What a form of adapter says of itself, which parts, exporters and trainers go by."""

from __future__ import annotations

from typing import ClassVar

import pytest

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.errors import ConfigError


def test_learning_rates_are_those_of_the_page() -> None:
    """docs/defaults.md has the search: pairs learn at 3e-3, triplets, whose factors have norm one, at 1e-2."""
    assert [Adapter(form=form).learning_rate for form in ("plain", "svd", "full")] == [3e-3, 1e-2, 3e-3]


@pytest.mark.parametrize(
    ("form", "whole", "peft", "said"),
    [  # low_rank, adds, rows_answer
        ("plain", False, True, (True, True, True)),
        ("svd", False, True, (True, True, True)),
        ("full", True, False, (False, False, True)),
        ("prompt", False, False, (False, False, False)),
        ("gates", False, True, (False, True, False)),
    ],
)
def test_what_follows_from_a_form(form: str, whole: bool, peft: bool, said: tuple[bool, bool, bool]) -> None:
    class Form(Adapter):
        whole_model: ClassVar[bool] = whole
        loads_with_peft: ClassVar[bool] = peft

    made = Form(form=form)
    assert (made.low_rank, made.adds, made.rows_answer) == said
    assert made.own_loss is False


def test_pairs_of_lora_are_what_is_trained_where_nothing_is_said() -> None:
    plain = Adapter()
    assert (plain.low_rank, plain.adds, plain.rows_answer, plain.whole_model, plain.unit) == (
        True,
        True,
        True,
        False,
        False,
    )


def test_a_slip_in_an_attribute_is_refused_and_a_name_of_its_own_is_not() -> None:
    body = {"__annotations__": {"load_with_peft": bool}}
    with pytest.raises(ConfigError, match=r"'load_with_peft', which nobody reads; did you mean 'loads_with_peft'\?"):
        type("Odd", (Adapter,), body)
    fine = type("Fine", (Adapter,), {"_whole_modle": 1, "width": 3, "noun": "gate"})
    assert fine.noun == "gate"
    base = type("Base", (Adapter,), {"prompts": 3})
    assert type("Below", (base,), {"prompts": 4}).prompts == 4  # an attribute of its base is no slip
    with pytest.raises(ConfigError, match="did you mean 'prompts'"):
        type("Below", (base,), {"promptz": 4})


def test_a_keyword_of_a_class_that_nobody_reads_is_refused() -> None:
    with pytest.raises(TypeError, match="keyword"):
        type("Odd", (Adapter,), {}, abstract=True)


def test_what_is_stored_after_three_tasks() -> None:
    assert [Consolidator(rule=rule).stored_elements(3, 10) for rule in ("sum", "continue", "keep")] == [30, 10, 30]
