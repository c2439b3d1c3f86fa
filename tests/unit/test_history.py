from __future__ import annotations

import pytest
import torch
from torch import Tensor

from everlora.core.adapter import Consolidator
from everlora.core.history import UpdateHistory
from everlora.core.roles import TaskContext
from everlora.core.updates import LowRank
from everlora.parts.penalties import energy_overlap


def delta(seed: int, r: int = 2, scale: float = 4.0) -> dict[str, LowRank]:
    source = torch.Generator().manual_seed(seed)

    def one(o: int, i: int) -> LowRank:
        return LowRank(torch.randn(r, i, generator=source), torch.randn(o, r, generator=source), scale)

    return {"q": one(7, 5), "v": one(7, 5), "out": one(4, 6)}


def delta_elements() -> int:
    return 2 * (2 * (7 + 5) + (4 + 6))


def test_appending_keeps_the_old_past_as_it_was() -> None:
    empty = UpdateHistory()
    one = empty.append(delta(0))
    two = one.append(delta(1))
    assert [len(empty), len(one), len(two)] == [0, 1, 2]
    assert empty.sites == ()
    assert one.sites == two.sites == ("q", "v", "out")
    assert [d["q"].A.data_ptr() for d in two] == [two.deltas[0]["q"].A.data_ptr(), two.deltas[1]["q"].A.data_ptr()]


def test_dense_and_factor_views_agree_with_a_running_sum() -> None:
    """P1 (accumulated after each task) and P2 (factors behind one another) of the method notes."""
    past, running = UpdateHistory(), {name: torch.zeros(s.shape) for name, s in delta(0).items()}
    for t in range(4):
        update = delta(t, r=1 + t, scale=4.0 / (1 + t))
        past = past.append(update)
        for name, site in update.items():
            running[name] += site.dense()
        for name in running:
            assert past.factors(name).rank == sum(range(1, t + 2))
            torch.testing.assert_close(past.total(name), running[name], rtol=1e-5, atol=1e-5)


def test_one_past_update_is_itself() -> None:
    update = delta(3)
    torch.testing.assert_close(UpdateHistory((update,)).total("out"), update["out"].dense(), rtol=1e-6, atol=1e-6)


def test_stacked_is_every_modules_updates_task_by_task() -> None:
    past = UpdateHistory((delta(0), delta(1), delta(2)))
    tasks = past.stacked(["v", "q"])
    assert [task.A.shape for task in tasks] == [(2, 2, 5)] * 3
    assert [task.B.shape for task in tasks] == [(2, 7, 2)] * 3
    for task, update in zip(tasks, past, strict=True):
        for k, name in enumerate(["v", "q"]):
            assert torch.equal(task.A[k], update[name].A)
            assert torch.equal(task.B[k], update[name].B)
            torch.testing.assert_close(task.dense()[k], update[name].dense(), rtol=1e-6, atol=1e-6)
    whole = TaskContext(updates=tasks).factors()
    assert whole is not None
    assert (whole.A.shape, whole.B.shape, whole.scale) == ((2, 6, 5), (2, 7, 6), 1.0)
    torch.testing.assert_close(whole.dense()[0], past.total("v"))
    torch.testing.assert_close(whole.dense()[1], past.total("q"))
    with pytest.raises(ValueError, match="one shape"):
        past.stacked(["q", "out"])
    assert UpdateHistory().stacked(["q"]) == ()


def test_triplets_and_pairs_make_one_past() -> None:
    triplets = {name: LowRank(s.A, s.B, s.scale, torch.tensor([[2.0], [-0.5]])) for name, s in delta(0).items()}
    past = UpdateHistory((triplets, delta(1)))
    assert past.numel == delta_elements() * 2 + 3 * 2  # σ counts
    torch.testing.assert_close(past.total("out"), triplets["out"].dense() + delta(1)["out"].dense())


@pytest.mark.parametrize("tasks", [1, 3])
def test_what_is_kept_is_what_the_consolidator_declares(tasks: int) -> None:
    past = UpdateHistory(tuple(delta(t) for t in range(tasks)))
    adapter = delta_elements()
    assert past.numel == tasks * adapter
    assert Consolidator(rule="sum").stored_elements(tasks, adapter) == past.numel
    assert Consolidator(rule="keep").stored_elements(tasks, adapter) == past.numel
    assert Consolidator(rule="continue").stored_elements(tasks, adapter) == adapter


# --- ‖(BA) ⊙ (PQ)‖² by Grams of Khatri-Rao products, section 20.2 of the method notes: an independent way there ----


def khatri_rao(X: Tensor, Y: Tensor) -> Tensor:
    """(X * Y)_{i,(a,b)} = X_ia Y_ib."""
    return (X[:, :, None] * Y[:, None, :]).flatten(1)


def by_grams(A: Tensor, B: Tensor, s: float, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    C, D = khatri_rao(B, P), khatri_rao(A.mT, Q.mT)
    H, M = C.mT @ C, D.mT @ D
    on_B = 2 * s**2 * ((C @ M).unflatten(1, (B.shape[1], P.shape[1])) * P[:, None, :]).sum(-1)
    on_A = 2 * s**2 * ((D @ H).unflatten(1, (B.shape[1], P.shape[1])) * Q.mT[:, None, :]).sum(-1).mT
    return s**2 * (H * M).sum(), on_A, on_B


@pytest.mark.parametrize(("d", "k", "r", "R"), [(5, 7, 2, 3), (11, 6, 3, 4), (64, 48, 4, 12)])
def test_the_gram_identity_reaches_the_same_penalty(d: int, k: int, r: int, R: int) -> None:
    source = torch.Generator().manual_seed(d)
    A, B, P, Q = (
        torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((r, k), (d, r), (d, R), (R, k))
    )
    value, on_A, on_B = energy_overlap(A, B, 2.0, (P @ Q).square())
    expected, by_A, by_B = by_grams(A, B, 2.0, P, Q)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(on_A, by_A, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(on_B, by_B, rtol=1e-10, atol=1e-8)


def test_the_worked_example_by_grams() -> None:
    A, B = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [2.0]])
    value, on_A, on_B = by_grams(A, B, 1.0, torch.eye(2), torch.tensor([[1.0, 0.0], [0.5, -1.0]]))
    assert (float(value), on_A.tolist(), on_B.flatten().tolist()) == (6.0, [[4.0, -8.0]], [2.0, 5.0])
