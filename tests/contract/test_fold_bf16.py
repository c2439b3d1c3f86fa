"""A past folded into pairs of bf16 matrices: how exact they are, what they hold, and that as much is learned."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import tiny_runs
from everlora.adapters.base import PastAs
from everlora.adapters.folded import FoldedBase
from everlora.core.errors import ModelError
from everlora.core.updates import LowRank
from everlora.parts.merges import LargestMagnitude

OUT, INTO, RANK = 24, 64, 4


def drawn(*shape: int, seed: int, size: float) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size


def layer_of(kind: type[nn.Module] = nn.Linear) -> nn.Module:
    layer: Any = nn.Linear(INTO, OUT) if kind is nn.Linear else Conv1D(OUT, INTO)
    weight = drawn(OUT, INTO, seed=0, size=0.05)
    layer.weight.data = weight if kind is nn.Linear else weight.T.contiguous()
    return layer.requires_grad_(False).bfloat16()


def updates(count: int) -> list[LowRank]:
    """Updates of 1e-4 on weights of 0.05, of which a bf16 matrix by itself would lose most."""
    return [
        LowRank(drawn(RANK, INTO, seed=2 * k + 1, size=1.0), drawn(OUT, RANK, seed=2 * k + 2, size=5e-5))
        for k in range(count)
    ]


def held(below: FoldedBase) -> Tensor:
    """The matrix that the layer computes with, in fp64."""
    weight: Any = below.layer.weight.detach()
    matrix = (weight.T if isinstance(below.layer, Conv1D) else weight).double()
    return matrix if below.rest is None else matrix + below.rest.double()


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_pair_is_the_sum_to_two_to_the_minus_17(kind: type[nn.Module], count: int) -> None:
    """At any number of tasks: the pair is made of the original each time, so that nothing adds up."""
    layer: Any = layer_of(kind)
    weight = (layer.weight.T if kind is Conv1D else layer.weight).double()
    below, past = FoldedBase.of(layer, "fold-bf16"), updates(count)
    exact = weight + sum(u.B.double() @ u.A.double() for u in past)
    for n in range(1, count + 1) if count <= 5 else (count,):
        below.set_past(past[:n])
    assert below.rest is not None
    assert {layer.weight.dtype, below.rest.dtype} == {torch.bfloat16}
    assert ((held(below) - exact).abs() <= 2.0**-17 * exact.abs() + 1e-9).all()
    rounded = layer.weight.T if kind is Conv1D else layer.weight
    assert not ((rounded.double() - exact).abs() <= 2.0**-12 * exact.abs()).all()  # by itself it is not


def test_outputs_are_those_of_the_exact_matrix_within_the_rounding_of_outputs() -> None:
    layer, past = layer_of(), updates(5)
    below = FoldedBase.of(layer, "fold-bf16")
    below.set_past(past)
    x = drawn(100, INTO, seed=99, size=1.0).bfloat16()
    exact = (x.double() @ held(below).T) + layer.bias.double()  # type: ignore[operator, union-attr]
    # Both products and their sum are rounded to bf16, by 2⁻⁸ each, and the second is at most 2⁻⁸ of the first's terms.
    size = x.double().abs() @ held(below).abs().T
    assert ((layer(x).double() - exact).abs() <= 2.0**-7 * exact.abs() + 2.0**-14 * size).all()


def test_gradients_pass_through_both_matrices() -> None:
    layer, past = layer_of(), updates(5)
    below = FoldedBase.of(layer, "fold-bf16")
    below.set_past(past)
    x = drawn(7, INTO, seed=99, size=1.0).bfloat16().requires_grad_()
    out = drawn(7, OUT, seed=98, size=1.0)
    (layer(x).float() * out).sum().backward()
    assert x.grad is not None
    expected = out.bfloat16().double() @ held(below)
    torch.testing.assert_close(x.grad.double(), expected, rtol=2.0**-6, atol=2.0**-8 * float(expected.std()))


def test_a_resumed_past_a_shorter_one_and_none_are_exact() -> None:
    layer, past = layer_of(), updates(3)
    pristine = layer.weight.clone()  # type: ignore[union-attr, operator]
    below = FoldedBase.of(layer, "fold-bf16")
    assert below.rest is None  # a first task costs what it costs without all this
    assert below.original is None
    for n in (1, 2, 3):
        below.set_past(past[:n])
    again = FoldedBase.of(layer_of(), "fold-bf16")
    again.set_past(past)
    assert torch.equal(held(below), held(again))
    below.set_past(past[:1])
    once = FoldedBase.of(layer_of(), "fold-bf16")
    once.set_past(past[:1])
    assert torch.equal(held(below), held(once))
    below.set_past([])
    assert below.rest is None
    assert torch.equal(layer.weight, pristine)  # type: ignore[arg-type]


def test_a_merge_is_split_like_a_sum() -> None:
    layer, past = layer_of(), updates(3)
    weight = layer.weight.double()  # type: ignore[union-attr, operator]
    below = FoldedBase.of(layer, "fold-bf16")
    below.set_past(past, LargestMagnitude().merge(u.dense() for u in past))
    exact = weight + LargestMagnitude().merge(u.dense() for u in past).double()
    assert ((held(below) - exact).abs() <= 2.0**-17 * exact.abs() + 1e-9).all()
    below.set_past(past)
    exact = weight + sum(u.B.double() @ u.A.double() for u in past)
    assert ((held(below) - exact).abs() <= 2.0**-17 * exact.abs() + 1e-9).all()


@pytest.mark.parametrize(("past", "expected"), [("fold", 6), ("fold-bf16", 6)])
def test_bytes_per_adapted_weight(past: PastAs, expected: int) -> None:
    """What was loaded in bf16 is kept in bf16, on the CPU, to start again from; computed with are 4 in either form."""
    layer: Any = layer_of()
    below = FoldedBase.of(layer, past)
    below.set_past(updates(2))
    assert below.original is not None
    tensors = [layer.weight, below.original, *([] if below.rest is None else [below.rest])]
    assert sum(t.nbytes for t in tensors) == expected * OUT * INTO
    assert below.original.dtype == torch.bfloat16


def test_weights_in_fp32_and_quantised_ones_are_refused() -> None:
    with pytest.raises(ModelError, match="past=fold-bf16 is for bf16 weights, and these are float32; use past=fold"):
        FoldedBase.of(nn.Linear(2, 2), "fold-bf16")
    packed: Any = nn.Linear(2, 2)
    packed.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="quantised"):
        FoldedBase.of(packed, "fold-bf16")


def losses(folder: Path, past: str, seed: int) -> list[float]:
    """The loss of every step of two tasks."""
    learner = tiny_runs.train_sequence(
        "tiny-llama", "ella", folder, dtype="bfloat16", past=past, seed=seed, evaluation={"schedule": "diagonal"}
    )
    logs = [stage.path / "training.jsonl" for stage in learner.folder.stages()]
    rows = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return [float(row["loss"]) for row in rows if "loss" in row]


@pytest.mark.parametrize("seeds", [pytest.param(1, id="one"), pytest.param(5, marks=pytest.mark.full, id="five")])
def test_as_much_is_learned_as_in_fp32(seeds: int, tmp_path: Path) -> None:
    """Loss curves of both forms differ by less than a tenth of what those of two seeds do."""
    wanted = {"fold": max(2, seeds), "fold-bf16": seeds}
    curves = {p: [losses(tmp_path / f"{p}-{seed}", p, seed) for seed in range(n)] for p, n in wanted.items()}
    between = mean(abs(a - b) for a, b in zip(curves["fold"][0], curves["fold"][1], strict=True))
    for one, other in zip(curves["fold-bf16"], curves["fold"], strict=False):
        apart_by = mean(abs(a - b) for a, b in zip(one, other, strict=True))
        assert len(one) > 4
        assert 0 < apart_by < between / 10
