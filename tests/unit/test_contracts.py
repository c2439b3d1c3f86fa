"""Parts that could not do what they look like are refused when their class is made, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from everlora import parse
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.parts import ProjectOut
from everlora.roles import (
    ConfigError,
    GradientTransform,
    HasMemory,
    Initialiser,
    Needs,
    NeedsEvidence,
    Part,
    PenaltyGradient,
    WeightPenalty,
)
from everlora.training.chain import Chain


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
    said = refusal((WeightPenalty,), **without(PENALTY, "value_and_grad"), value_and_gradient=nothing)
    assert "lacks value_and_grad; it defines 'value_and_gradient': did you mean 'value_and_grad'?" in said


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
        replace(parse("seqlora"), transforms=(part,))


def test_a_part_in_the_wrong_field_of_a_method() -> None:
    made = {name: dataclass(frozen=True, kw_only=True)(type("Odd", (role,), body))() for name, role, body in PARTS}
    for field in ("penalties", "outputs", "transforms"):
        for name, part in made.items():
            if name != field:
                with pytest.raises(
                    ConfigError, match=f"the field '{field}' of a method takes a .*, and a Odd is none"
                ):
                    replace(parse("seqlora"), **{field: (part,)})
    with pytest.raises(ConfigError, match="the field 'merge' of a method takes a Merge, and a object is none"):
        replace(parse("inclora"), merge=object())
    with pytest.raises(ConfigError, match="the field 'penalties' of a method takes a tuple of parts"):
        replace(parse("seqlora"), penalties=made["penalties"])


PARTS = [("penalties", WeightPenalty, PENALTY), ("transforms", GradientTransform, TRANSFORM)]


@pytest.mark.parametrize("frozen", [None, False])
def test_a_part_that_can_change_is_refused(frozen: bool | None) -> None:
    kind = type("Odd", (WeightPenalty,), PENALTY)
    part = kind() if frozen is None else dataclass(kw_only=True)(kind)()
    with pytest.raises(ConfigError, match="the WeightPenalty Odd is no frozen dataclass"):
        replace(parse("seqlora"), penalties=(part,))


def test_an_initialiser_need_not_look_at_anything() -> None:
    body = {"name": "odd", "covers": nothing, "start": nothing}
    assert not issubclass(type("Fine", (Initialiser,), body), NeedsEvidence)


def test_every_part_of_the_package_has_a_role_of_its_own() -> None:
    import everlora.parts as parts

    kinds = [kind for kind in vars(parts).values() if isinstance(kind, type) and issubclass(kind, Part)]
    assert len(kinds) >= 20
    for kind in kinds:
        assert sum(issubclass(kind, role) for role in Part.roles) == 1


# --- a memory of each module -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Uneven(GradientTransform, HasMemory):
    """Takes what lies along its memory out of A's gradient."""

    name: ClassVar[str] = "uneven"
    acts_on: ClassVar[str] = "gradient"
    contexts: ClassVar[list[tuple[int, ...]]] = []

    def prepare(self, before):  # type: ignore[no-untyped-def]
        if not before.memory:
            return None
        self.contexts.append(tuple(before.memory["basis"].shape))
        return {"basis": before.memory["basis"]}

    def shape(self, gradient, state):  # type: ignore[no-untyped-def]
        F = state["basis"]
        return {**gradient, "A": gradient["A"] - gradient["A"] @ F @ F.mT}

    def remember(self, update, memory, seen=None):  # type: ignore[no-untyped-def]
        return memory

    def memory_bytes(self, out, into, rank, tasks):  # type: ignore[no-untyped-def]
        return 0


def test_bases_of_different_width_come_apart_and_each_module_has_its_own() -> None:
    """Four modules of one shape: two bases of one column, one of three, one of none at all."""
    draw = torch.Generator().manual_seed(0)
    widths = {"a": 1, "b": 3, "c": 1, "d": None}
    bases = {
        name: torch.linalg.qr(torch.randn(5, width, generator=draw))[0] for name, width in widths.items() if width
    }
    live = {
        name: LowRank(*(torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((2, 5), (4, 2))))
        for name in widths
    }
    params = [p for update in live.values() for p in update.tensors.values()]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)  # type: ignore[attr-defined]
    before = {name: update.A.grad.clone() for name, update in live.items()}  # type: ignore[union-attr]
    Uneven.contexts.clear()
    chain = Chain.build(
        params,  # type: ignore[arg-type]
        live,
        UpdateHistory(),
        replace(parse("seqlora"), transforms=(Uneven(),)),
        task="t",
        max_norm=0,
        every=1,
        memory={"uneven": {name: {"basis": basis} for name, basis in bases.items()}},
    )
    assert [group.names for group in chain.groups] == [("a", "c"), ("b",), ("d",)]
    assert Uneven.contexts == [(2, 5, 1), (1, 5, 3)]
    for group in chain.groups:
        group.shape(None)
    for name, update in live.items():
        F = bases.get(name, torch.zeros(5, 0))
        torch.testing.assert_close(update.A.grad, before[name] - before[name] @ F @ F.mT)
        assert name == "d" or float((update.A.grad @ F).abs().max()) < 1e-6  # type: ignore[operator]


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


def test_a_slip_in_an_adapter_form_is_refused_and_so_is_a_form_without_a_backend() -> None:
    import everlora
    from everlora.adapters import make_backend
    from everlora.core.adapter import Adapter

    with pytest.raises(ConfigError, match=r"sets 'whole_modle', which nobody reads; did you mean 'whole_model'\?"):
        type("Odd", (Adapter,), {"whole_modle": True})
    with pytest.raises(ConfigError, match=r"no backend handles the adapter form 'fulll'; did you mean 'full'\?"):
        make_backend(everlora.load("tiny-llama"), {}, "auto", Adapter(form="fulll"))


def test_a_step_stacks_weights_and_gradient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two penalties, a transform and the record of the step look at them, and clipping changes the gradient."""
    draw = torch.Generator().manual_seed(0)

    def update() -> LowRank:
        return LowRank(torch.randn(2, 5, generator=draw), torch.randn(4, 2, generator=draw))

    past = UpdateHistory().append({"a": update(), "b": update()})
    drawn = {"a": update(), "b": update()}
    live = {name: LowRank(*map(torch.nn.Parameter, (one.A, one.B))) for name, one in drawn.items()}
    params = [p for one in live.values() for p in one.tensors.values()]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)
    method = replace(parse("ella+o-lora"), transforms=(ProjectOut(),))
    chain = Chain.build(params, live, past, method, task="t", max_norm=0.1, every=1)  # type: ignore[arg-type]
    (group,) = chain.groups
    assert (len(group.penalties), len(group.transforms)) == (2, 1)
    stacked, stack = [], torch.stack

    def counting(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
        stacked.append(tensors[0].data_ptr())
        return stack(tensors, dim)

    monkeypatch.setattr(torch, "stack", counting)
    chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None)
    for p in live["a"].tensors.values():
        assert p.grad is not None
        assert (stacked.count(p.data_ptr()), stacked.count(p.grad.data_ptr())) == (1, 1)
