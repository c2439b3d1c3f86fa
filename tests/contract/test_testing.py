"""The battery itself: it sees what is wrong with a method, and asks for what fits it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

import tiny_runs
from everlora import Method, parse
from everlora.core import registry
from everlora.core.errors import ConfigError
from everlora.core.roles import State
from everlora.parts.penalties import EnergyOverlap
from everlora.testing import CHECKS, Case, battery


@pytest.fixture(autouse=True)
def own_names() -> Iterator[None]:
    with registry.isolated():
        yield


def register(name, method, families=registry.FAMILIES):
    registry.method(name, title="t", paper="p", stores="s", families=families)(lambda: method.named(name))


@dataclass(frozen=True, kw_only=True)
class Lying(EnergyOverlap):
    """Declares less than it keeps."""

    name: ClassVar[str] = "lying"
    store: str = "dense"

    def memory_bytes(self, out, into, rank, tasks):
        return 0


@dataclass(frozen=True, kw_only=True)
class Idle(EnergyOverlap):
    """Pulls on nothing."""

    name: ClassVar[str] = "idle"

    def prepare(self, before):
        return None


@dataclass(frozen=True, kw_only=True)
class Moody(EnergyOverlap):
    """Draws from a stream of random numbers that nobody seeds."""

    name: ClassVar[str] = "moody"

    def prepare(self, before) -> State | None:
        state = super().prepare(before)
        return state and {**state, "squared": state["squared"] * torch.rand(())}


@dataclass(frozen=True, kw_only=True)
class Crooked(EnergyOverlap):
    """Its gradient is half of what it should be."""

    name: ClassVar[str] = "crooked"

    def value_and_grad(self, live, state):
        found = super().value_and_grad(live, state)
        return replace(found, gradient={key: g / 2 for key, g in found.gradient.items()})


def own(part):
    return replace(parse("inclora"), penalties=(part,))


@pytest.mark.parametrize(
    ("part", "check"),
    [
        (Lying(lam=1.0), "kept_is_what_the_method_declares"),
        (Crooked(lam=1.0), "the_gradient_of_a_penalty_is_that_of_its_value"),
        (Idle(lam=1.0), "strength_zero_is_the_base_method_bit_for_bit"),
        (Moody(lam=1e4, energy="rms"), "interrupted_and_resumed_equals_uninterrupted"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_it_sees(part, check, recorded, tmp_path):
    register(f"bad-{part.name}", own(part))
    case = Case(f"bad-{part.name}", "tiny-bert", recorded, tmp_path)
    with pytest.raises(AssertionError):
        CHECKS[check].look(case)


def cases(test):
    (mark,) = test.pytestmark
    return {tuple(case.values) for case in mark.args[1]}


def test_it_asks_for_what_fits():
    register("texts-only", parse("ella"), registry.TEXT_ANSWERS)
    found = cases(battery("texts-only"))
    assert found == {(model, check) for model in ("tiny-llama", "tiny-t5") for check in CHECKS}
    plain = cases(battery("seqlora", models=["tiny-vit"], without=["kept_is_what_the_method_declares"]))
    left = {"kept_is_what_the_method_declares", "strength_zero_is_the_base_method_bit_for_bit"}
    left |= {"the_gradient_of_a_penalty_is_that_of_its_value"}
    assert plain == {("tiny-vit", check) for check in set(CHECKS) - left}
    nothing = {check for _, check in cases(battery("zero-shot"))}
    assert nothing == {"the_base_is_untouched_but_for_what_was_folded", "kept_is_what_the_method_declares"}
    assert tiny_runs.MODELS == ("tiny-llama", "tiny-t5", "tiny-bert", "tiny-vit")


def test_it_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="no check is called nonsense; known: a_new"):
        battery("ella", without=["nonsense"])
    with pytest.raises(ConfigError, match="unknown method"):
        battery("no-such-method")
    odd = replace(parse("inclora").adapter, form="odd")
    register("odd", Method(name="odd", adapter=odd))
    with pytest.raises(ConfigError, match="another form of adapter"):
        battery("odd")


def test_a_method_that_makes_no_sense_on_a_model_is_refused(tmp_path):
    from everlora.core.errors import ModelError

    register("texts-only", parse("ella"), registry.TEXT_ANSWERS)
    with pytest.raises(ModelError, match="families: decoder, encoder-decoder; 'tiny-bert' is of the family encoder"):
        tiny_runs.begin("tiny-bert", "texts-only", tmp_path / "run")
    assert not (tmp_path / "run").exists()
