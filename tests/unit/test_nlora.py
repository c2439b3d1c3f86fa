"""N-LoRA's pull by hand and against autograd; C-LoRA is ELLA on raw entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from calculus import by_autograd, draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.roles import AutoStrength, TaskContext
from everlora.core.updates import LowRank
from everlora.parts.sparsity import Sparsity, sparsity


def test_by_hand() -> None:
    A, B = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [2.0]])  # B A = [[1, −1], [2, −2]]
    value, on_A, on_B = sparsity(A, B)
    assert float(value) == 6
    assert on_A.tolist() == [[3.0, -3.0]]
    assert on_B.tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("r", [1, 2, 4])
@pytest.mark.parametrize("svd", [False, True])
def test_the_gradient_is_autograds(form: str, r: int, svd: bool) -> None:
    o = 5 if form == "code" else 7
    A, B, sigma = draw(r, (2, r, 5), (2, o, r), (2, r, 1))
    live = LowRank(A, B, 3.0, sigma if svd else None)

    def value(*tensors: torch.Tensor) -> torch.Tensor:
        one = LowRank(tensors[0], tensors[1], 3.0, tensors[2] if svd else None)
        product = one.up @ one.A if form == "paper" else one.A @ one.up
        return product.abs().sum((-2, -1))

    norm, *gradients = by_autograd(value, *live.tensors.values())
    pull = Sparsity(form=form).value_and_grad(live, {})  # type: ignore[arg-type]
    torch.testing.assert_close(pull.value, norm, rtol=0, atol=1e-10)
    assert pull.gradient.keys() == live.tensors.keys()
    for mine, autograds in zip(pull.gradient.values(), gradients, strict=True):
        torch.testing.assert_close(mine, autograds, rtol=0, atol=1e-10)


def test_no_pull_where_a_task_starts_and_one_on_the_first_task() -> None:
    live = LowRank(torch.randn(1, 2, 3), torch.zeros(1, 4, 2))
    state = Sparsity().prepare(TaskContext())
    assert state is not None
    pull = Sparsity().value_and_grad(live, state)
    assert not pull.value.any()
    assert not pull.A.any()
    assert not pull.B.any()


def test_the_norm_does_not_see_the_gauge_and_grows_with_either_factor() -> None:
    A, B = draw(9, (2, 5), (7, 2))
    value = sparsity(A, B)[0]
    torch.testing.assert_close(sparsity(8 * A, B / 8)[0], value)
    torch.testing.assert_close(sparsity(-3 * A, B)[0], 3 * value)


def test_the_form_of_the_code_needs_square_weights() -> None:
    with pytest.raises(ConfigError, match="square weights, and one is 4 x 3"):
        Sparsity(form="code").value_and_grad(LowRank(torch.ones(1, 2, 3), torch.ones(1, 4, 2)), {})


def test_options_are_checked() -> None:
    assert parse("n-lora").penalties == (Sparsity(lam=AutoStrength(rho=0.03)),)
    assert parse("n-lora(lam=0.4)").penalties == (Sparsity(lam=0.4),)
    assert parse("o-lora+n-lora").policy.startswith("new")
    with pytest.raises(ConfigError, match="rho and per_module"):
        parse("n-lora(lam=0.4,rho=0.1)")
    with pytest.raises(ConfigError, match="fresh adapter"):
        replace(parse("seqlora"), penalties=(Sparsity(),))


def test_clora_is_ella_on_raw_entries() -> None:
    for options in ("", "lam=1000", "rho=0.1,per_module=yes"):
        raw = parse(f"ella({options},energy=raw)" if options else "ella(energy=raw)")
        assert replace(raw, name="c-lora") == parse(f"c-lora({options})" if options else "c-lora")
    assert parse("clora") == parse("C-LoRA")
