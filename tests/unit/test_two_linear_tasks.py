"""Closed forms on two linear tasks: where the parts of a method lead once it has converged.

Task k asks of a matrix W (o, i) that ½ tr (W − W_k) C_k (W − W_k)ᵀ be small, C_k the second moment of its inputs.
Plain gradient descent on this and on what a part adds ends where the paper's objective has its minimum; what that is
owes nothing to the part's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from calculus import draw
from everlora.core.roles import Evidence, TaskContext
from everlora.core.updates import LowRank, Weights
from everlora.parts.distil import Distil
from everlora.parts.features import FeatureStart
from everlora.parts.masks import MagnitudeMask
from everlora.parts.penalties import EnergyOverlap, Orthogonality, shrink
from everlora.parts.quadratic import Quadratic
from everlora.parts.sparsity import Sparsity

O, I = 3, 4  # noqa: E741
W1, W2 = draw(1, (O, I), (O, I))


def moment(seed: int) -> Tensor:
    """C of inputs that point everywhere, (i, i), eigenvalues about 1."""
    (x,) = draw(seed, (I, 20))
    return x @ x.mT / 20


C1, C2 = moment(2), moment(3)
EYE = torch.eye(I, dtype=torch.float64)


def descend(
    gradient: Callable[..., Sequence[Tensor]], *start: Tensor, rate: float = 0.05, steps: int = 2000
) -> list[Tensor]:
    now = [tensor.clone() for tensor in start]
    for _ in range(steps):
        now = [tensor - rate * g for tensor, g in zip(now, gradient(*now), strict=True)]
    return now


def held(lam: float, F: Tensor) -> Tensor:
    """Task 2 from the end of task 1, W1, under EWC with Fisher information F."""
    part = Quadratic(lam=lam)
    memory = {key: t[None] for key, t in part.remember(Weights({"w": W1}), {}, Evidence(fisher={"w": F})).items()}
    state = part.prepare(TaskContext(start=Weights({"w": W1[None]}), memory=memory))
    assert state is not None

    def gradient(W: Tensor) -> list[Tensor]:
        return [(W - W2) @ C2 + lam * part.value_and_grad(Weights({"w": W[None]}), state).gradient["w"][0]]

    return descend(gradient, W1)[0]


@pytest.mark.parametrize("lam", [0.0, 0.3, 4.0])
def test_ewc_ends_between_two_quadratics(lam: float) -> None:
    """Row j: (C₂ + λ diag F_j) w = C₂ w_2j + λ F_j w_1j."""
    F = draw(4, (O, I))[0].square()
    rows = [torch.linalg.solve(C2 + lam * F[j].diag(), C2 @ W2[j] + lam * F[j] * W1[j]) for j in range(O)]
    torch.testing.assert_close(held(lam, F), torch.stack(rows), rtol=0, atol=1e-6)


def test_ewc_with_independent_inputs_is_learning_both_tasks_at_once() -> None:
    """The Fisher information of a linear task is C₁ for every row; where C₁ is diagonal, EWC knows all of it."""
    C = C1.diagonal().diag()
    both = (W1 @ C + W2 @ C2) @ torch.linalg.inv(C + C2)
    torch.testing.assert_close(held(1.0, C.diagonal().expand(O, I)), both, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_lwf_ends_at_a_mixture_of_old_answers_and_new_labels(beta: float) -> None:
    """At τ = 1: (y + β p_old) / (1 + β). KL(new ‖ old) would end elsewhere: it has no such mixture."""
    z_old, y = draw(5, (2, 3))[0], torch.eye(3, dtype=torch.float64)[[0, 2]]
    y = 0.9 * y + 0.1 / 3  # within reach of finite logits
    part = Distil(beta=beta, tau=1.0)

    def gradient(z: Tensor) -> list[Tensor]:
        leaf = z.clone().requires_grad_()
        (pull,) = torch.autograd.grad(part.per_position(leaf, z_old).sum(), leaf)
        return [z.softmax(-1) - y + part.strength * pull]

    (z,) = descend(gradient, z_old, rate=0.3)
    torch.testing.assert_close(z.softmax(-1), (y + beta * z_old.softmax(-1)) / (1 + beta), rtol=0, atol=1e-6)


def test_migu_learns_the_rows_that_answer_and_leaves_the_others() -> None:
    """Rows of a linear layer do not meet in its loss, so those with a mask end where task 1 left them, to the bit."""
    wide1, wide2 = draw(6, (10, I), (10, I))
    part = MagnitudeMask(tau=0.7)
    state = part.prepare(TaskContext(start=Weights({"w": wide1[None]})))
    assert state is not None
    (inputs,) = draw(7, (I, 30))
    size = (wide1 @ inputs).abs().sum(-1)
    masks = part.look({"w": size[None]}, state)
    (W,) = descend(lambda W: [part.shape({"w": ((W - wide2) @ C2)[None]}, masks)["w"][0].double()], wide1)
    loud = size.argsort(descending=True)[:3]  # ⌈0.7 · 9⌉ = 7 of 10 are masked
    quiet = [j for j in range(10) if j not in loud]
    torch.testing.assert_close(W[loud], wide2[loud], rtol=0, atol=1e-6)
    assert torch.equal(W[quiet], wide1[quiet])


def test_migu_masks_nothing_on_the_first_task() -> None:
    assert MagnitudeMask().prepare(TaskContext()) is None


@pytest.mark.parametrize("lam", [0.05, 1.0])
def test_ella_ends_at_the_anisotropic_shrinkage(lam: float) -> None:
    """Inputs of unit covariance and a pair of full rank: D_ij = G_ij / (1 + 2 λ E_ij²), G what task 2 lacks."""
    part, eye = EnergyOverlap(lam=lam, energy="raw"), torch.eye(O, dtype=torch.float64)
    state = part.prepare(TaskContext(updates=(LowRank(W1[None], eye[None]),)))
    assert state is not None

    def gradient(A: Tensor, B: Tensor) -> list[Tensor]:
        pull = part.value_and_grad(LowRank(A[None], B[None]), state).gradient
        G = B @ A - W2
        return [B.mT @ G + lam * pull["A"][0], G @ A.mT + lam * pull["B"][0]]

    A, B = descend(gradient, draw(8, (O, I))[0], torch.zeros(O, O).double(), steps=4000)
    torch.testing.assert_close(B @ A, shrink(W2, W1.abs(), 2 * lam), rtol=0, atol=1e-5)


def test_nlora_ends_at_the_soft_threshold() -> None:
    """Inputs of unit covariance: D = sign(G) max(|G| − λ, 0); there task and pull cancel on what is not zero."""
    lam = 0.4
    D = W2.sign() * (W2.abs() - lam).clamp_min(0)
    assert 0 < (D == 0).sum() < D.numel()
    pull = Sparsity(lam=lam).value_and_grad(LowRank(EYE[None], D[None]), {}).gradient["B"][0]
    rest = (D - W2) + lam * pull
    assert rest[D != 0].abs().max() < 1e-12
    assert rest[D == 0].abs().max() <= lam, "within the subgradient of |0|"


@pytest.mark.parametrize("lam", [0.1, 2.0])
def test_olora_ends_off_the_old_rows_as_far_as_it_is_told(lam: float) -> None:
    """``norm=l2sq``, unit covariance, B fixed with orthonormal columns: A = Bᵀ G (I + 2 λ A_pastᵀ A_past)⁻¹."""
    past, B = draw(9, (2, I))[0].float(), torch.linalg.qr(draw(10, (O, 2))[0])[0].float()
    part = Orthogonality(lam=lam, norm="l2sq")
    state = part.prepare(TaskContext(updates=(LowRank(past[None], B[None]),)))
    assert state is not None

    def gradient(A: Tensor) -> list[Tensor]:
        pull = part.value_and_grad(LowRank(A[None], B[None]), state).gradient["A"][0]
        return [B.mT @ (B @ A - W2.float()) + lam * pull]

    stiff = EYE.float() + 2 * lam * past.mT @ past
    (A,) = descend(gradient, draw(12, (2, I))[0].float(), rate=1 / float(stiff.norm()))
    torch.testing.assert_close(A, B.mT @ W2.float() @ torch.linalg.inv(stiff), rtol=0, atol=1e-5)


@pytest.mark.parametrize("design", ["features", "projected"])
def test_inflora_learns_what_the_old_inputs_do_not_show_and_forgets_nothing(design: str) -> None:
    """Task 1 has inputs in two directions; task 2 ends at the least squares on what lies off them."""
    x1 = draw(13, (I, 2))[0] @ draw(14, (2, 20))[0]
    x2 = draw(15, (I, 20))[0]
    part = FeatureStart(energy=1.0, design=design)  # type: ignore[arg-type]
    memory = part.remember(LowRank(W1.new_zeros(1, I), W1.new_zeros(O, 1)), {}, Evidence(moment=x1 @ x1.mT / 20))
    fresh = LowRank(draw(16, (2, I))[0], W1.new_zeros(O, 2))
    A = part.start(fresh, (), Evidence(moment=x2 @ x2.mT / 20), memory).A
    seen = A @ x2
    (B,) = descend(lambda B: [((W1 + B @ A - W2) @ x2) @ seen.mT / 20], fresh.B, steps=10000)
    left = EYE - x1 @ torch.linalg.pinv(x1)  # off task 1's inputs: two directions, and A has two rows
    off = left @ x2
    best = (W2 - W1) @ x2 @ torch.linalg.pinv(off) @ left
    torch.testing.assert_close(B @ A, best, rtol=0, atol=1e-4)
    assert (B @ A).norm() > 0.1
    assert (B @ A @ x1).abs().max() < 1e-5
