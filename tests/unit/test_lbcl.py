"""LB-CL's start: scores, blends and the modules that are started so. Its projection stands in test_subspace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculus import by_autograd, draw
from everlora.core.errors import ConfigError
from everlora.core.roles import Evidence
from everlora.core.updates import LowRank, top_blocks
from everlora.methods.lbcl import l_cl
from everlora.parts.blend import SensitivityBlend, blend, sensitivity, triplet_gradients
from everlora.parts.copy_layers import CopyLayers

G = torch.tensor([[[1.0, 2.0], [-1.0, 1.0]]])
ONE = LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6], [0.8]]), 1.0, torch.tensor([[2.0]]))
TWO = LowRank(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.8], [-0.6]]), 1.0, torch.tensor([[1.0]]))
FRESH = LowRank(torch.zeros(1, 2), torch.zeros(2, 1), 1.0, torch.zeros(1, 1))
often = settings(max_examples=60, deadline=None, derandomize=True)


def triplets(seed: int, r: int, o: int, i: int, scale: float = 1.0) -> LowRank:
    A, B, sigma = draw(seed, (r, i), (o, r), (r, 1))
    return LowRank(A, B, scale, sigma)


def gradients(seed: int, n: int, o: int, i: int) -> Tensor:
    return draw(seed + 1000, (n, o, i))[0]


def equal(a: LowRank, b: LowRank) -> bool:
    return a.scale == b.scale and all(torch.equal(tensor, b.tensors[key]) for key, tensor in a.tensors.items())


# --- the worked example ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "on_u", "on_v", "on_sigma", "score"),
    [(ONE, [2.0, -2.0], [-0.4, 4.0], -0.2, 2.0), (TWO, [2.0, 1.0], [1.4, 1.0], 1.0, 2.6)],
)
def test_the_worked_example_of_scores(
    update: LowRank, on_u: list[float], on_v: list[float], on_sigma: float, score: float
) -> None:
    found = triplet_gradients(update, G)
    assert found["B"].flatten().tolist() == pytest.approx(on_u)
    assert found["A"].flatten().tolist() == pytest.approx(on_v)
    assert found["sigma"].flatten().tolist() == pytest.approx([on_sigma])
    assert sensitivity(update, G).tolist() == pytest.approx([score])


def test_the_worked_example_of_the_blend() -> None:
    scores = torch.stack([sensitivity(update, G) for update in (ONE, TWO)])
    alpha = (scores / scores.sum(0)).flatten().tolist()
    assert alpha == pytest.approx([0.434783, 0.565217], abs=1e-6)
    for found in (blend([ONE, TWO], scores), SensitivityBlend().start(FRESH, [ONE, TWO], Evidence(gradients=G))):
        assert found.B.flatten().tolist() == pytest.approx([0.713043, 0.008696], abs=1e-6)
        assert found.sigma.flatten().tolist() == pytest.approx([1.434783], abs=1e-6)  # type: ignore[union-attr]
        assert found.A.flatten().tolist() == pytest.approx([0.434783, 0.565217], abs=1e-6)


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("r", "o", "i"), [(1, 5, 7), (2, 7, 5), (8, 11, 6)])
def test_gradients_of_triplets_are_autograds(r: int, o: int, i: int, scale: float) -> None:
    update, g = triplets(r, r, o, i, scale), gradients(r, 1, o, i)
    _, gB, gA, gS = by_autograd(
        lambda B, A, s: (scale * (B * s.T) @ A * g[0]).sum(),  # its gradient for W is g
        update.B,
        update.A,
        update.sigma,  # type: ignore[arg-type]
    )
    found = triplet_gradients(update, g)
    for key, want in (("B", gB), ("A", gA), ("sigma", gS)):
        torch.testing.assert_close(found[key][0], want, rtol=1e-10, atol=1e-10)


def test_gradients_of_triplets_in_a_loss_that_is_not_linear() -> None:
    update, (x, y) = triplets(3, 2, 7, 5, 0.5), draw(4, (5, 9), (7, 9))

    def loss(B: Tensor, A: Tensor, s: Tensor) -> Tensor:
        return (torch.tanh(0.5 * (B * s.T) @ A @ x) - y).square().sum()

    _, gB, gA, gS = by_autograd(loss, update.B, update.A, update.sigma)  # type: ignore[arg-type]
    W = update.scale * update.up @ update.A
    _, gW = by_autograd(lambda w: (torch.tanh(w @ x) - y).square().sum(), W)
    found = triplet_gradients(update, gW[None])
    for key, want in (("B", gB), ("A", gA), ("sigma", gS)):
        torch.testing.assert_close(found[key][0], want, rtol=1e-10, atol=1e-10)


@often
@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8), st.integers(0, 10**6))
def test_signed_sums_agree_and_bound_the_score(r: int, o: int, i: int, seed: int) -> None:
    """Σ_a U ∂U = Σ_b V ∂V = σ ∂σ per triplet, hence S_j ≥ S(σ_j) (1 + 1/o + 1/i)."""
    update, g = triplets(seed, r, o, i, 2.0), gradients(seed, 1, o, i)
    found = triplet_gradients(update, g)
    by_sigma = (update.sigma * found["sigma"][0]).squeeze(-1)
    torch.testing.assert_close((update.B * found["B"][0]).sum(0), by_sigma, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((update.A * found["A"][0]).sum(1), by_sigma, rtol=1e-9, atol=1e-9)
    score = sensitivity(update, g)
    assert (score >= by_sigma.abs() * (1 + 1 / o + 1 / i) * (1 - 1e-12)).all()


def test_a_score_is_the_loop_of_the_paper() -> None:
    update, g = triplets(5, 3, 4, 6, 2.0), gradients(5, 1, 4, 6)
    found = triplet_gradients(update, g)
    for j in range(3):
        of_sigma = abs(float(update.sigma[j] * found["sigma"][0, j]))  # type: ignore[index]
        of_u = sum(abs(float(update.B[a, j] * found["B"][0, a, j])) for a in range(4)) / 4
        of_v = sum(abs(float(update.A[j, b] * found["A"][0, j, b])) for b in range(6)) / 6
        assert float(sensitivity(update, g)[j]) == pytest.approx(of_sigma + of_u + of_v, rel=1e-12)


def test_per_sample_scores_are_the_mean_of_each_rows_own() -> None:
    update, g = triplets(6, 2, 4, 6), gradients(6, 5, 4, 6)
    each = torch.stack([sensitivity(update, row[None]) for row in g])
    torch.testing.assert_close(sensitivity(update, g), each.mean(0), rtol=1e-12, atol=0)
    mean = sensitivity(update, g.mean(0, keepdim=True))
    assert (mean < each.mean(0)).all()  # rows that disagree cancel in the mean loss, here they do not
    opposed = torch.stack([g[0], -g[0]])
    torch.testing.assert_close(sensitivity(update, opposed), sensitivity(update, g[:1]))


# --- the blend -------------------------------------------------------------------------------------------------------


@often
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_weights_sum_to_one_for_every_triplet(tasks: int, r: int, seed: int) -> None:
    updates = [triplets(seed + t, r, 5, 7) for t in range(tasks)]
    scores = torch.stack([sensitivity(update, gradients(seed, 2, 5, 7)) for update in updates])
    ones = [LowRank(torch.ones(r, 1), torch.ones(1, r), 1.0, torch.ones(r, 1)) for _ in updates]
    whole = blend(ones, scores)
    for tensor in whole.tensors.values():  # a blend of ones is the sum of its weights
        torch.testing.assert_close(tensor.double(), torch.ones_like(tensor).double(), rtol=1e-6, atol=0)
    found, alpha = blend(updates, scores), scores / scores.sum(0)
    for j in range(r):
        torch.testing.assert_close(found.B[:, j], sum(alpha[t, j] * u.B[:, j] for t, u in enumerate(updates)))
        torch.testing.assert_close(found.A[j], sum(alpha[t, j] * u.A[j] for t, u in enumerate(updates)))
        torch.testing.assert_close(found.sigma[j], sum(alpha[t, j] * u.sigma[j] for t, u in enumerate(updates)))


@pytest.mark.parametrize("samples", [1, 3])
def test_the_second_task_starts_at_the_first_exactly(samples: int) -> None:
    update = triplets(7, 8, 16, 24, 1.0).map(Tensor.float)
    for g in (gradients(7, samples, 16, 24).float(), torch.zeros(samples, 16, 24), 1e-20 * torch.ones(1, 16, 24)):
        start = SensitivityBlend().start(update.map(torch.zeros_like), [update], Evidence(gradients=g))
        assert equal(start, update)  # so the function stands at W0 + 2 ΔW_1


def test_without_sigma_the_function_stays_and_the_vectors_come() -> None:
    update, g = triplets(8, 3, 6, 5), gradients(8, 1, 6, 5)
    other = triplets(9, 3, 6, 5)
    start = SensitivityBlend(sigma="without").start(update, [update, other], Evidence(gradients=g))
    full = SensitivityBlend(sigma="with").start(update, [update, other], Evidence(gradients=g))
    assert torch.equal(start.A, full.A)
    assert torch.equal(start.B, full.B)
    assert not start.sigma.any()  # type: ignore[union-attr]
    assert not start.dense().any()
    assert full.dense().any()


def test_where_nothing_is_sensitive_all_tasks_weigh_alike() -> None:
    updates = [triplets(t, 2, 4, 3) for t in range(3)]
    found = SensitivityBlend().start(
        updates[0], updates, Evidence(gradients=torch.zeros(1, 4, 3, dtype=torch.float64))
    )
    for key, tensor in found.tensors.items():
        torch.testing.assert_close(tensor, sum(u.tensors[key] for u in updates) / 3)
    # One dead triplet beside a live one: each has its own weights.
    scores = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    mixed = blend(updates, scores)
    torch.testing.assert_close(mixed.A[0], sum(u.A[0] for u in updates) / 3)
    torch.testing.assert_close(mixed.A[1], 0.75 * updates[0].A[1] + 0.25 * updates[1].A[1])


def test_every_task_needs_its_scores() -> None:
    with pytest.raises(ValueError, match="rows of scores"):
        blend([ONE, TWO], torch.ones(1, 1))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_weights_do_not_depend_on_the_size_of_the_loss(size: float) -> None:
    """Sum or mean over rows cancels in α, and neither very small nor very large gradients break it."""
    updates = [triplets(t, 2, 4, 3).map(Tensor.float) for t in range(3)]
    g = gradients(0, 1, 4, 3).float()
    one, other = (SensitivityBlend().start(updates[0], updates, Evidence(gradients=c * g)) for c in (1.0, size))
    for key, tensor in one.tensors.items():
        torch.testing.assert_close(other.tensors[key], tensor, rtol=1e-5, atol=1e-6)


# --- where -----------------------------------------------------------------------------------------------------------

LLAMA = [f"model.layers.{k}.self_attn.{p}" for k in range(12) for p in ("q_proj", "v_proj")]
BERT = [f"bert.encoder.layer.{k}.attention.self.{p}" for k in range(12) for p in ("query", "value")]
VIT = [f"vit.encoder.layer.{k}.attention.attention.{p}" for k in range(12) for p in ("query", "value")]
GPT2 = [f"transformer.h.{k}.attn.c_attn" for k in range(12)]
T5 = [
    *[f"encoder.block.{k}.layer.0.SelfAttention.{p}" for k in range(12) for p in "qv"],
    *[f"decoder.block.{k}.layer.{s}.{a}.{p}"
      for k in range(12) for s, a in enumerate(("SelfAttention", "EncDecAttention")) for p in "qv"],
]  # fmt: skip
BART = [f"model.{side}.layers.{k}.self_attn.q_proj" for side in ("encoder", "decoder") for k in range(12)]


@pytest.mark.parametrize(
    ("names", "stack", "each"),
    [
        (LLAMA, "model.layers", 2),
        (BERT, "bert.encoder.layer", 2),
        (VIT, "vit.encoder.layer", 2),
        (GPT2, "transformer.h", 1),
        (T5, "decoder.block", 4),
        (BART, "model.decoder.layers", 1),
    ],
    ids=["llama", "bert", "vit", "gpt2", "t5", "bart"],
)
@pytest.mark.parametrize("count", [1, 3, 12, 40])
def test_the_top_blocks_are_the_last_of_the_stack_that_answers(
    names: list[str], stack: str, each: int, count: int
) -> None:
    found = top_blocks(names, count)
    last = range(12 - min(count, 12), 12)  # by number: block 11 is above block 9
    assert list(found) == [name for name in names if any(name.startswith(f"{stack}.{k}.") for k in last)]
    assert len(found) == each * min(count, 12)
    assert sorted(top_blocks(names[::-1], count)) == sorted(found)
    part: Any = l_cl(top_layers=count).initialiser
    assert part.covers([*names, "classifier", "lm_head"]) == found


def test_without_a_limit_every_module_is_covered() -> None:
    assert SensitivityBlend().covers([*LLAMA, "lm_head"]) == (*LLAMA, "lm_head")


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": -1}, {"top_layers": 0}, {"top_layers": -2}])
def test_counts_start_at_one(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"at least one sample|counts blocks from the top"):
        l_cl(**options)  # type: ignore[arg-type]


def test_layers_are_copied_from_the_newest_task() -> None:
    old, new, fresh = (LowRank(torch.full((2, 5), k), torch.full((4, 2), k)) for k in (1.0, 2.0, 0.0))
    assert CopyLayers().start(fresh, [old, old, new]) is new
    assert CopyLayers().covers(GPT2) == tuple(GPT2)
    assert CopyLayers(top_layers=2).covers(GPT2) == tuple(GPT2[-2:])
