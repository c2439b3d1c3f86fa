"""LwF's distillation against its worked example and autograd."""

from __future__ import annotations

from math import log
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calculus import by_autograd, draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.models.families.base import IGNORE
from everlora.parts.distil import Distil, distillation
from everlora.parts.pseudo import PromptDivergence
from everlora.training.teacher import Teacher
from everlora.training.trainer import ExtraLosses


def test_the_worked_example_and_its_direction() -> None:
    old, new = torch.tensor([[2 * log(3), 0.0]]), torch.zeros(1, 2, requires_grad=True)
    value = Distil(tau=2.0).per_position(new, old)
    value.sum().backward()
    assert float(value.detach()) == pytest.approx(0.523248, abs=1e-6)
    assert float(value.detach()) / 4 == pytest.approx(0.130812, abs=1e-6)  # KL(old ‖ new), not 0.143841
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[-0.5, 0.5]]), rtol=1e-5, atol=0)


@given(st.integers(0, 1000), st.floats(0.25, 8))
def test_the_gradient_is_tau_times_the_difference(seed: int, tau: float) -> None:
    old, new = draw(seed, (5, 7), (5, 7))
    new.requires_grad_()
    distillation(new, old, tau).sum().backward()
    expected = tau * ((new / tau).softmax(-1) - (old / tau).softmax(-1))
    torch.testing.assert_close(new.grad, expected.detach(), rtol=1e-10, atol=1e-10)


@given(st.integers(0, 1000))
def test_nothing_where_nothing_has_changed_and_never_less(seed: int) -> None:
    old, new = draw(seed, (5, 7), (5, 7))
    assert (distillation(new, old, 2.0) > 0).all()
    same = old.clone().requires_grad_()
    value = distillation(same + 3.0, old, 2.0)  # logits are known up to a constant
    value.sum().backward()
    assert float(value.detach().abs().max()) < 1e-12
    assert same.grad is not None
    assert float(same.grad.abs().max()) < 1e-12


def test_the_closed_form_is_autograds() -> None:
    def plain(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        p = (old / 3).softmax(-1)
        return 9 * (p * (p.log() - (new / 3).log_softmax(-1))).sum(-1)

    old, new, weights = draw(3, (5, 7), (5, 7), (5,))
    value, expected = by_autograd(lambda z: weights * plain(z, old), new)
    found, gradient = by_autograd(lambda z: weights * distillation(z, old, 3.0), new)
    torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_positions_may_lie_in_any_shape(shape: tuple[int, ...]) -> None:
    old, new = draw(5, shape, shape)
    found, gradient = by_autograd(lambda z: distillation(z, old, 2.0), new)
    assert found.shape == shape[:-1]
    each = [
        by_autograd(lambda z, o=o: distillation(z, o, 2.0), n)
        for o, n in zip(*(t.reshape(-1, 5) for t in (old, new)), strict=True)
    ]
    torch.testing.assert_close(found.reshape(-1), torch.stack([value for value, _ in each]))
    torch.testing.assert_close(gradient.reshape(-1, 5), torch.stack([own for _, own in each]))


def test_the_gradient_is_nothing_at_all_where_nothing_has_changed() -> None:
    """AdamW would make a step of a rounding error."""
    (old,) = draw(4, (64, 50), dtype=torch.float32)
    new = (30 * old).requires_grad_()
    distillation(new, 30 * old, 2.0).sum().backward()
    assert new.grad is not None
    assert not new.grad.any()


@pytest.mark.parametrize(
    ("part", "rows"), [(Distil(beta=0.5, tau=2.0), [0, 0, 2]), (PromptDivergence(strength=3), [1])]
)
def test_a_comparison_is_of_its_own_rows_alone(part: Any, rows: list[int]) -> None:
    """LwF's of the new task's rows, LFPT5's of rehearsed ones; weights of rows act as in the task's loss."""
    labels = torch.tensor([[7, 8], [IGNORE, 9], [6, IGNORE]])
    places, rehearsed = [0, 0, 1, 2], torch.tensor([False, True, False])
    old, new, weights = draw(6, (4, 5), (4, 5), (4,), dtype=torch.float32)
    besides = ExtraLosses(outputs=(part,), teacher=cast(Any, SimpleNamespace(logits=lambda *_: old)))

    def found(marks: torch.Tensor | None, by: torch.Tensor | None = None) -> float:
        return float(besides.loss(cast(Any, None), cast(Any, None), {"labels": labels}, new, marks, by))

    each = part.strength * part.per_position(new, old)
    here = [k for k, row in enumerate(places) if row in rows]
    assert found(rehearsed) == pytest.approx(float(each[here].sum()), rel=1e-5)
    assert found(rehearsed, weights) == pytest.approx(float((each * weights)[here].sum()), rel=1e-5)
    # Where nothing is rehearsed, all rows are new.
    assert found(None) == pytest.approx(float(each.sum()) if part.on == "task" else 0.0, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_answers_as_the_model_did_and_leaves_it_as_it_is(training: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)).train(training)
    (batch,) = draw(7, (5, 3), dtype=torch.float32)
    expected = model[0](batch).detach()
    teacher = Teacher(list(model.parameters()))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    now = [p.detach().clone() for p in model.parameters()]
    family = cast(Any, SimpleNamespace(logits_with_known=lambda model, batch: (None, None, model(batch))))
    found = teacher.logits(model, family, cast(Any, batch))
    assert torch.equal(found, expected), "without dropout"
    assert not found.requires_grad
    assert model.training is training

    def fail() -> None:
        with teacher.former_model():
            assert torch.equal(model[0](batch), expected)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    for p, value in zip(model.parameters(), now, strict=True):
        assert torch.equal(p, value)


def test_options() -> None:
    assert parse("lwf").outputs == (Distil(beta=1.0, tau=2.0),)
    assert parse("lwf").adapter == parse("seqlora").adapter
    for wrong in ("tau=0", "tau=-1", "beta=-1", "beta=nan", "beta=inf", "tau=inf"):
        with pytest.raises(ConfigError):
            parse(f"lwf({wrong})")
    with pytest.raises(ConfigError, match="given twice"):
        parse("lwf+lwf(tau=3)")
    assert parse("lwf+ewc").parts
