"""Parts that could not do what they look like are refused when their class is made, in one sentence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError
from everlora.core.method import Method, compose
from everlora.core.roles import (
    GradientTransform,
    HasMemory,
    Initialiser,
    Needs,
    NeedsEvidence,
    Part,
    PenaltyGradient,
    Rehearsal,
    WeightPenalty,
)
from everlora.core.roles.contract import check_choices


def refusal(bases: tuple[type, ...], **body: object) -> str:
    """The sentence with which the class ``Odd`` of these bases and this body is refused."""
    with pytest.raises(ConfigError) as caught:
        type("Odd", bases, body)
    message = str(caught.value)
    assert "\n" not in message
    assert "Odd" in message
    return message


def nothing(*args: object) -> None:
    """Any method."""


PENALTY = {"name": "odd", "strength": 1.0, "prepare": nothing, "value_and_grad": nothing}
TRANSFORM = {"name": "odd", "acts_on": "gradient", "prepare": nothing, "shape": nothing}
COMPLETE: dict[type[Part], dict[str, object]] = {
    WeightPenalty: PENALTY,
    GradientTransform: TRANSFORM,
    Rehearsal: {"name": "odd", "choose": nothing},
}


def made(role: type[Part], **body: object) -> Any:
    """A part of a role that is complete, with these values in its body."""
    kind = type("Fine", (role,), {**COMPLETE[role], **body})
    return dataclass(frozen=True, kw_only=True)(kind)()


def without(body: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in body.items() if name not in names}


def test_what_is_complete_is_made() -> None:
    assert type("Fine", (WeightPenalty,), PENALTY).needs == Needs()
    memory = {"remember": nothing, "memory_bytes": nothing}
    assert issubclass(type("Fine", (GradientTransform, HasMemory), {**TRANSFORM, **memory}), HasMemory)


@pytest.mark.parametrize("lacking", ["strength", "prepare", "value_and_grad"])
def test_a_penalty_that_lacks_something(lacking: str) -> None:
    said = refusal((WeightPenalty,), **without(PENALTY, lacking))
    assert said == f"the WeightPenalty Odd lacks {lacking}; define it in the class"


def test_a_transform_that_does_not_say_what_it_acts_on() -> None:
    assert "GradientTransform Odd lacks acts_on" in refusal((GradientTransform,), **without(TRANSFORM, "acts_on"))


def test_all_that_is_lacking_is_named_at_once() -> None:
    assert "lacks strength and value_and_grad" in refusal(
        (WeightPenalty,), **without(PENALTY, "strength", "value_and_grad")
    )


def test_a_slip_in_a_name_is_pointed_out() -> None:
    body = {**without(PENALTY, "value_and_grad"), "value_and_gradient": nothing, "value_and_gradients": nothing}
    assert refusal((WeightPenalty,), **body) == (  # the nearest of them
        "the WeightPenalty Odd lacks value_and_grad; it defines 'value_and_gradient': did you mean 'value_and_grad'?"
    )


def test_a_part_needs_a_name() -> None:
    said = refusal((WeightPenalty,), **without(PENALTY, "name"))
    assert "has no name; write name: ClassVar[str] = 'odd'" in said
    assert "has no name" in refusal((WeightPenalty,), **{**PENALTY, "name": 3})


def test_a_memory_that_nobody_would_call() -> None:
    said = refusal((GradientTransform,), **TRANSFORM, remember=nothing)
    assert "defines remember, which nobody calls unless it inherits HasMemory" in said
    assert "write class Odd(GradientTransform, HasMemory)" in said


def test_a_memory_whose_size_is_not_told() -> None:
    assert "lacks memory_bytes" in refusal((GradientTransform, HasMemory), **TRANSFORM, remember=nothing)


@pytest.mark.parametrize(
    ("name", "ability"),
    [
        ("memory_bytes", "HasMemory"),
        ("evidence", "NeedsEvidence"),
        ("look", "NeedsActivations"),
        ("weigh", "HasEnergy"),
        ("free", "HasCapacity"),
        ("reconstruct", "ReconstructsPast"),
        ("error_bound", "BoundsMemoryError"),
        ("finish", "PostProcesses"),
        ("cue", "GenerativeReplay"),
    ],
)
def test_what_belongs_to_an_ability_wants_it_inherited(name: str, ability: str) -> None:
    said = refusal((GradientTransform,), **TRANSFORM, **{name: nothing})
    assert f"defines {name}, which nobody calls unless it inherits {ability}" in said


def test_settings_may_be_called_as_an_ability_calls_its_own() -> None:
    assert type("Fine", (GradientTransform,), {**TRANSFORM, "samples": 3, "length": 2})


def test_two_roles_exclude_one_another() -> None:
    said = refusal((WeightPenalty, GradientTransform), **{**PENALTY, **TRANSFORM})
    assert "is a WeightPenalty and a GradientTransform at once; make it two parts" in said


def test_a_class_that_was_refused_leaves_no_trace() -> None:
    """Its traceback may live on, and with it the class: what is made afterwards is what it is."""
    with pytest.raises(ConfigError) as held:
        type("Odd", (WeightPenalty, GradientTransform), {**PENALTY, **TRANSFORM})
    fine = type("Fine", (WeightPenalty,), PENALTY)
    assert issubclass(fine, WeightPenalty)
    assert not issubclass(fine, GradientTransform)
    assert held.value.__traceback__ is not None


def test_abilities_alone_are_no_part() -> None:
    said = refusal((HasMemory,), name="odd", remember=nothing, memory_bytes=nothing)
    assert "has abilities but no role; let it inherit one of WeightPenalty, " in said
    assert "Merge" in said


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("needs_fresh", "fresh_adapter=True"),
        ("needs_continued", "continued_adapter=True"),
        ("needs_svd", "svd_form=True"),
        ("any_form", "any_form=True"),
        ("first_too", "first_task=True"),
        ("cumulative", "cumulative_memory=True"),
        ("at_most", "memory_at_most=True"),
        ("keeps_rows", "stored_rows=False"),
    ],
)
def test_a_former_flag_says_what_to_write_now(flag: str, field: str) -> None:
    said = refusal((WeightPenalty,), **PENALTY, **{flag: True})
    assert flag in said
    assert f"Needs({field})" in said


def test_a_field_of_needs_on_the_class_is_not_read() -> None:
    said = refusal((WeightPenalty,), **PENALTY, fresh_adapter=True)
    assert "sets fresh_adapter on its class" in said
    assert "Needs(fresh_adapter=…)" in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("need", "needs"),
        ("Needs", "needs"),
        ("rember", "remember"),
        ("acts_onn", "acts_on"),
        ("befor", "before"),
        ("finishh", "finish"),
        ("fresh_adaptor", "fresh_adapter"),
    ],
)
def test_a_name_that_is_nearly_one_of_the_roles(name: str, meant: str) -> None:
    assert f"defines {name!r}, which nobody reads; did you mean {meant!r}?" in refusal(
        (WeightPenalty,), **PENALTY, **{name: nothing}
    )


def test_names_of_ones_own_are_ones_own() -> None:
    body = {"share": nothing, "weight": nothing, "_remembr": nothing, "looks": nothing}
    assert type("Fine", (WeightPenalty,), {**PENALTY, **body})


def test_needs_is_a_value_of_its_class() -> None:
    assert "needs of the WeightPenalty Odd must be a Needs(…)" in refusal((WeightPenalty,), **PENALTY, needs=True)
    with pytest.raises(ConfigError, match="Needs has no field 'any_from'; did you mean 'any_form'"):
        Needs(any_from=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="the field 'fresh_adapter' of Needs is a bool, not 'yes'"):
        Needs(fresh_adapter="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "of"),
    [
        ("cumulative_memory", True, "HasMemory"),
        ("memory_at_most", True, "HasMemory"),
        ("first_task", True, "Initialiser"),
        ("order", 0, "GradientTransform"),
        ("stored_rows", False, "Rehearsal"),
    ],
)
def test_needs_of_another_role(field: str, value: object, of: str) -> None:
    said = refusal((WeightPenalty,), **PENALTY, needs=Needs(**{field: value}))  # type: ignore[arg-type]
    assert f"sets {field} in its needs, which only {of} has" in said


def test_a_field_without_a_default_gives_what_a_role_declares() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Plain(WeightPenalty):
        name: ClassVar[str] = "plain_field"
        strength: float

        def prepare(self, before):  # type: ignore[no-untyped-def]
            return {}

        def value_and_grad(self, live, state):  # type: ignore[no-untyped-def]
            return PenaltyGradient(value=torch.zeros(1), gradient={})

    assert Plain(strength=2.0).strength == 2.0
    with pytest.raises(TypeError, match="strength"):
        Plain()  # type: ignore[call-arg]


def test_a_base_for_parts_need_not_be_complete() -> None:
    class Base(WeightPenalty, abstract=True):
        strength = 1.0

    assert "lacks prepare and value_and_grad" in refusal((Base,), name="odd")

    class Again(WeightPenalty, abstract=True):
        strength = 1.0

        @abstractmethod
        def prepare(self, before):  # type: ignore[no-untyped-def]
            """Is to be defined below."""

    said = refusal((Again,), name="odd", value_and_grad=nothing)
    assert said == "the WeightPenalty Odd lacks prepare; define it in the class"
    assert type("Fine", (Again,), without(PENALTY, "strength")).strength == 1.0


@pytest.mark.parametrize(
    ("bases", "body", "message"),
    [
        (
            (GradientTransform,),
            {**TRANSFORM, "acts_on": "gradients"},
            "acts_on of the GradientTransform Odd cannot be 'gradients'; did you mean 'gradient'?",
        ),
        (
            (GradientTransform, NeedsEvidence),
            {**TRANSFORM, "evidence": "moments", "samples": 3},
            "evidence of the NeedsEvidence Odd cannot be 'moments'; did you mean 'moment'?",
        ),
    ],
)
def test_a_value_that_is_none_of_those_to_choose_from(
    bases: tuple[type, ...], body: dict[str, object], message: str
) -> None:
    assert refusal(bases, **body) == message


def test_what_a_property_chooses_is_checked_by_the_method() -> None:
    kind = type("Fine", (GradientTransform,), {**TRANSFORM, "acts_on": property(lambda part: "gradients")})
    part = dataclass(frozen=True, kw_only=True)(kind)()
    with pytest.raises(ConfigError, match="acts_on of the GradientTransform Fine cannot be 'gradients'"):
        Method(name="mine", transforms=(part,))
    check_choices(made(GradientTransform, acts_on=property(lambda part: "both")))
    with pytest.raises(ConfigError, match="acts_on of the GradientTransform Fine cannot be None"):
        check_choices(made(GradientTransform, acts_on=property(lambda part: None)))


def test_a_part_in_the_wrong_field_of_a_method() -> None:
    made = {name: dataclass(frozen=True, kw_only=True)(type("Odd", (role,), body))() for name, role, body in PARTS}
    for field in ("penalties", "outputs", "transforms"):
        for name, part in made.items():
            if name != field:
                with pytest.raises(
                    ConfigError, match=f"the field '{field}' of a method takes a .*, and a Odd is none"
                ):
                    Method(name="mine", **{field: (part,)})
    with pytest.raises(ConfigError, match="the field 'merge' of a method takes a Merge, and a object is none"):
        Method(name="mine", merge=object())
    with pytest.raises(ConfigError, match="the field 'penalties' of a method takes a tuple of parts"):
        Method(name="mine", penalties=made["penalties"])


PARTS = [("penalties", WeightPenalty, PENALTY), ("transforms", GradientTransform, TRANSFORM)]


@pytest.mark.parametrize("frozen", [None, False])
def test_a_part_that_can_change_is_refused(frozen: bool | None) -> None:
    kind = type("Odd", (WeightPenalty,), PENALTY)
    part = kind() if frozen is None else dataclass(kw_only=True)(kind)()
    with pytest.raises(ConfigError, match="the WeightPenalty Odd is no frozen dataclass"):
        Method(name="mine", penalties=(part,))


def test_a_slip_in_a_keyword_of_a_class_is_refused() -> None:
    """Else a base that is not complete would pass for a part, and be refused for another reason."""
    with pytest.raises(TypeError, match="keyword"):
        type("Odd", (WeightPenalty,), PENALTY, abstrakt=True)


def test_an_initialiser_need_not_look_at_anything() -> None:
    body = {"name": "odd", "covers": nothing, "start": nothing}
    assert not issubclass(type("Fine", (Initialiser,), body), NeedsEvidence)


def test_an_option_that_is_called_like_a_need_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sets fresh_adapter on its class, where nobody reads it"):

        @dataclass(frozen=True, kw_only=True)
        class Fresh(GradientTransform):
            name: ClassVar[str] = "fresh"
            fresh_adapter: bool = True
            acts_on = "gradient"

            def prepare(self, before):
                return None

            def shape(self, gradient, state):
                return gradient


# --- what a part needs that says nothing -----------------------------------------------------------------------------


def test_a_part_that_declares_no_needs_joins_every_method_with_low_rank_updates() -> None:
    part = made(GradientTransform)
    for adapter in (Adapter(), Adapter(policy="continue"), Adapter(form="svd")):
        assert Method(name="mine", adapter=adapter, transforms=(part,)).transforms == (part,)
    with pytest.raises(ConfigError, match="'odd' works on low-rank updates, and 'mine' trains none"):
        Method(name="mine", adapter=Adapter(form="full"), transforms=(part,))
    anything = made(GradientTransform, needs=Needs(any_form=True))
    assert Method(name="mine", adapter=Adapter(form="full"), transforms=(anything,)).transforms == (anything,)


def test_needs_of_its_own_role_and_abilities_are_no_ones_business() -> None:
    memory = {"remember": nothing, "memory_bytes": nothing}
    for needs in (Needs(order=0), Needs(cumulative_memory=True, memory_at_most=True), Needs(tensors=("A",))):
        kind = type("Fine", (GradientTransform, HasMemory), {**TRANSFORM, **memory, "needs": needs})
        assert kind.needs == needs


def test_transforms_act_in_the_order_that_they_declare_and_projections_as_typed() -> None:
    """Masks have the number 0, projections 1, as has whoever declares nothing."""
    usual = made(GradientTransform, name="usual")
    one = made(GradientTransform, name="one", needs=Needs(order=1))
    mask = made(GradientTransform, name="mask", needs=Needs(order=0))
    for typed, acting in (((usual, one, mask), (mask, usual, one)), ((one, mask, usual), (mask, one, usual))):
        assert compose(*(Method(name=part.name, transforms=(part,)) for part in typed)).transforms == acting


def test_an_option_may_be_called_like_what_would_be_a_slip() -> None:
    """Whoever builds the part reads it."""
    body = {"__annotations__": {"acts_onn": "int", "remember_": "int"}, "acts_onn": 3, "remember_": 4}
    assert made(GradientTransform, **body).acts_onn == 3


def test_rows_are_learned_again_beside_new_ones_unless_a_rehearsal_says_otherwise() -> None:
    part = made(Rehearsal)
    assert Method(name="mine", rehearsal=part).sees_again
    with pytest.raises(ConfigError, match="'odd' cannot act in 'mine', which does not learn task after task"):
        Method(name="mine", regime="joint", rehearsal=part)
    alone = made(Rehearsal, rehearsed_only=True)
    assert Method(name="mine", regime="joint", rehearsal=alone).rehearsal == alone


def test_evidence_is_of_the_mean_loss_unless_a_part_wants_that_of_each_row() -> None:
    body = {"name": "odd", "covers": nothing, "start": nothing, "evidence": "gradients", "samples": 3}
    assert type("Fine", (Initialiser, NeedsEvidence), body).per_sample is False
    assert type("Fine", (Initialiser, NeedsEvidence), {**body, "per_sample": True}).per_sample is True


def test_a_value_that_only_a_role_declares_is_not_there() -> None:
    class Base(WeightPenalty, abstract=True):
        name = "odd"

    with pytest.raises(AttributeError, match="the part does not give it"):
        _ = Base().strength
