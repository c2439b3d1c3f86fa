"""LB-CL's projection, how much room it leaves, and the regulariser of triplets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calculus import by_autograd, draw, numeric
from everlora.core.history import UpdateHistory
from everlora.core.roles import GradientTransform, HasCapacity, State, TaskContext, WeightPenalty
from everlora.core.updates import LowRank, stack
from everlora.methods.lbcl import b_cl, lb_cl
from everlora.parts import subspace
from everlora.parts.subspace import OrthonormalTriplets, ProjectOut, basis, departure, free, project_out

U = torch.tensor([[0.6], [0.8]], dtype=torch.float64)
g = torch.tensor([[1.0], [2.0]], dtype=torch.float64)


def updates(seed: int, tasks: int, r: int, o: int, i: int, *lead: int) -> tuple[LowRank, ...]:
    found = []
    for t in range(tasks):
        A, B, sigma = draw(seed + t, (*lead, r, i), (*lead, o, r), (*lead, r, 1))
        found.append(LowRank(A, B, 2.0, sigma))
    return tuple(found)


def shaped(part: ProjectOut, past: tuple[LowRank, ...], A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    state = part.prepare(TaskContext(updates=past))
    assert state is not None
    return in_two(part, A, B, state)


def in_two(part: ProjectOut, A: Tensor, B: Tensor, state: State) -> tuple[Tensor, Tensor]:
    shaped = part.shape({"A": A, "B": B}, state)
    return shaped["A"], shaped["B"]


# --- projecting ------------------------------------------------------------------------------------------------------


def test_the_worked_example() -> None:
    torch.testing.assert_close(project_out(g, basis(U)).flatten(), torch.tensor([-0.32, 0.24], dtype=torch.float64))
    torch.testing.assert_close(basis(5 * U) @ basis(5 * U).T, U @ U.T)  # lengths have no meaning
    past = (stack([LowRank(U.T, U, 4.0)]),)
    for form in ("joint", "literal"):
        A, B = shaped(ProjectOut(form=form), past, g.T[None], g[None])  # type: ignore[arg-type]
        assert A.flatten().tolist() == pytest.approx([-0.32, 0.24])
        assert B.flatten().tolist() == pytest.approx([-0.32, 0.24])


@pytest.mark.parametrize(("tasks", "r", "o", "i"), [(1, 1, 5, 7), (3, 2, 9, 7), (2, 8, 20, 33)])
def test_what_is_left_is_orthogonal_to_every_old_direction_and_stays(tasks: int, r: int, o: int, i: int) -> None:
    past = updates(r, tasks, r, o, i, 3)
    A, B = draw(99, (3, r, i), (3, o, r))
    part = ProjectOut()
    gA, gB = shaped(part, past, A, B)
    for old in past:
        torch.testing.assert_close(old.B.mT @ gB, torch.zeros(3, r, r).double(), rtol=0, atol=1e-10)
        torch.testing.assert_close(gA @ old.A.mT, torch.zeros(3, r, r).double(), rtol=0, atol=1e-10)
    again = shaped(part, past, gA, gB)
    torch.testing.assert_close(again[0], gA, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(again[1], gB, rtol=1e-10, atol=1e-10)
    assert (gA.shape, gB.shape) == (A.shape, B.shape)
    # The least change that does it, by least squares.
    for k in range(3):
        old = torch.cat([u.B[k] for u in past], -1)
        rest = B[k] - old @ torch.linalg.lstsq(old, B[k]).solution
        torch.testing.assert_close(gB[k], rest, rtol=1e-8, atol=1e-8)


def test_of_a_column_in_the_span_exactly_nothing_is_left() -> None:
    """In fp32 rounding leaves about 1e-7 of it, of which Adam would make a step of full size."""
    Q, within, free = draw(12, (3, 40, 6), (3, 6, 2), (3, 40, 1), dtype=torch.float32)
    Q = torch.linalg.qr(Q)[0]
    inside = 1e3 * Q @ within
    rounding = inside - Q @ (Q.mT @ inside)
    assert 0 < float(rounding.abs().max()) < 1e-5 * float(inside.norm())
    left = project_out(torch.cat([inside, free], -1), Q)
    assert not left[..., :2].any()
    torch.testing.assert_close(left[..., 2:], free - Q @ (Q.mT @ free))
    # A column that is small all over is no rounding, and one that sticks out by more than 1e-5 of itself stays.
    assert project_out(1e-9 * free, Q).any(-2).all()
    out = free - Q @ (Q.mT @ free)
    near = inside[..., :1] + 2e-5 * inside[..., :1].norm(dim=-2, keepdim=True) * out / out.norm(dim=-2, keepdim=True)
    assert project_out(near.double(), Q.double()).any(-2).all()


def test_a_bound_itself_is_rounding_whatever_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in (2**-10, 1, 2**10):
        pair = unit * torch.diag(torch.tensor([1.0, subspace.DEPENDENT], dtype=torch.float64))
        assert basis(pair).any(-2).tolist() == [True, False]
        pair[1, 1] *= 1.01
        assert basis(pair).any(-2).tolist() == [True, True]
    monkeypatch.setattr(subspace, "ROUNDING", 0.6)
    column, Q = torch.tensor([[4.0], [3.0]], dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    assert not project_out(column, Q).any(), "three of five are left"
    monkeypatch.setattr(subspace, "ROUNDING", 0.59)
    assert project_out(column, Q).flatten().tolist() == [0, 3]


def test_what_is_orthogonal_already_is_left_alone() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    past = (stack([LowRank(eye[:2], eye[:, :2])]), stack([LowRank(eye[2:4], eye[:, 2:4])]))
    A, B = eye[None, 4:], eye[None, :, 4:]
    for form in ("joint", "literal"):
        gA, gB = shaped(ProjectOut(form=form), past, A, B)  # type: ignore[arg-type]
        torch.testing.assert_close(gA, A)
        torch.testing.assert_close(gB, B)


def test_the_slides_sum_is_the_joint_projection_for_orthogonal_tasks_alone() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    A, B = draw(1, (1, 2, 6), (1, 6, 2))
    apart = (stack([LowRank(eye[:2], eye[:, :2])]), stack([LowRank(eye[2:4], eye[:, 2:4])]))
    joint, literal = (shaped(ProjectOut(form=form), apart, A, B) for form in ("joint", "literal"))  # type: ignore[arg-type]
    torch.testing.assert_close(joint[0], literal[0])
    torch.testing.assert_close(joint[1], literal[1])
    # What two tasks hold alike is turned around and not removed: x − 2x = −x.
    twins = (apart[0], stack([LowRank(3 * eye[:2].flip(0), -eye[:, :2])]))
    joint, literal = (shaped(ProjectOut(form=form), twins, A, B) for form in ("joint", "literal"))  # type: ignore[arg-type]
    assert not joint[1][0, :2].any()
    torch.testing.assert_close(literal[1][0, :2], -B[0, :2])
    torch.testing.assert_close(literal[0][0, :, :2], -A[0, :, :2])
    torch.testing.assert_close(literal[1][0, 2:], joint[1][0, 2:])


def test_a_past_that_repeats_itself_counts_once() -> None:
    one = updates(3, 1, 2, 9, 7, 1)[0]
    copies = (one, one.map(lambda tensor: 100 * tensor), one.map(torch.negative))
    A, B = draw(4, (1, 2, 7), (1, 9, 2))
    alone, many = shaped(ProjectOut(), (one,), A, B), shaped(ProjectOut(), copies, A, B)
    torch.testing.assert_close(many[0], alone[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(many[1], alone[1], rtol=1e-9, atol=1e-9)
    assert not ProjectOut().prepare(TaskContext(updates=copies))["U"][..., 2:].any()  # type: ignore[index]


def test_modules_of_different_rank_stand_in_one_stack() -> None:
    rich, poor = updates(5, 1, 3, 9, 7)[0], updates(6, 1, 3, 9, 7)[0]
    poor = LowRank(poor.A[:1].expand(3, -1), poor.B[:, :1].expand(-1, 3))
    nothing = LowRank(torch.zeros(3, 7).double(), torch.zeros(9, 3).double())
    past = stack([LowRank(u.A, u.B) for u in (rich, poor, nothing)])
    A, B = draw(7, (3, 3, 7), (3, 9, 3))
    gA, gB = shaped(ProjectOut(), (past,), A, B)
    for k, each in enumerate((rich, poor, nothing)):
        torch.testing.assert_close(each.B.T @ gB[k], torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
        torch.testing.assert_close(gA[k] @ each.A.T, torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
    assert torch.equal(gB[2], B[2])
    assert ProjectOut().free(ProjectOut().prepare(TaskContext(updates=(past,)))).tolist() == [4, 6, 7]  # type: ignore[arg-type]


@pytest.mark.parametrize(("tasks", "o", "i"), [(4, 5, 9), (2, 3, 4)])
def test_a_full_space_leaves_nothing_to_learn(tasks: int, o: int, i: int) -> None:
    past = updates(8, tasks, 2, o, i, 1)
    A, B = draw(9, (1, 2, i), (1, o, 2))
    _, gB = shaped(ProjectOut(), past, A, B)
    torch.testing.assert_close(gB, torch.zeros_like(gB), rtol=0, atol=1e-10)
    state = ProjectOut().prepare(TaskContext(updates=past))
    assert ProjectOut().free(state).tolist() == [0]  # type: ignore[arg-type]


def test_on_the_first_task_nothing_is_projected() -> None:
    assert ProjectOut().prepare(TaskContext()) is None
    assert ProjectOut(form="literal").prepare(TaskContext()) is None


def test_the_options_of_the_method() -> None:
    (part,) = b_cl().transforms
    assert part == ProjectOut(acts_on="gradient", form="joint")
    assert isinstance(part, GradientTransform)
    assert isinstance(part, HasCapacity)
    assert lb_cl(strict=True, projection="literal").transforms == (ProjectOut(acts_on="update", form="literal"),)


def test_with_plain_descent_the_way_is_orthogonal_to_the_past_and_with_adam_only_if_steps_are_projected() -> None:
    """Adam scales single entries and so brings a part of the old directions back: 4 to 18 % of the way, not 0."""
    o, i, r = 64, 24, 2
    past = updates(10, 4, r, o, i, 1)
    target, A0, B0 = draw(11, (1, o, i), (1, r, i), (1, o, r))
    part = ProjectOut()
    state = part.prepare(TaskContext(updates=past))
    assert state is not None

    def old_part_of_the_way(solver: type[torch.optim.Optimizer], strict: bool, lr: float) -> float:
        A, B = A0.clone().requires_grad_(), B0.clone().requires_grad_()
        step = solver([A, B], lr=lr)  # type: ignore[call-arg]
        for _ in range(50):
            step.zero_grad()
            (B @ A - target).square().sum().backward()
            assert A.grad is not None
            assert B.grad is not None
            before = A.detach().clone(), B.detach().clone()
            if not strict:
                A.grad, B.grad = in_two(part, A.grad, B.grad, state)
            step.step()
            if strict:
                with torch.no_grad():
                    dA, dB = in_two(part, A - before[0], B - before[1], state)
                    A.copy_(before[0] + dA)
                    B.copy_(before[1] + dB)
        way = B.detach() - B0
        assert float(way.norm()) > 0.1
        return float((state["U"].mT @ way).norm() / way.norm())

    assert old_part_of_the_way(torch.optim.SGD, False, 1e-3) < 1e-12
    assert 0.02 < old_part_of_the_way(torch.optim.Adam, False, 1e-2) < 0.5
    assert old_part_of_the_way(torch.optim.Adam, True, 1e-2) < 1e-12


# --- room ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "r", "o", "i"), [(1, 2, 9, 7), (3, 2, 9, 7), (5, 2, 9, 7), (24, 8, 192, 192)])
def test_directions_left(tasks: int, r: int, o: int, i: int) -> None:
    past = updates(12, tasks, r, o, i, 1)
    out, into = free(past)
    assert (out.tolist(), into.tolist()) == ([max(0, o - tasks * r)], [max(0, i - tasks * r)])
    alone = free([LowRank(past[0].A[0], past[0].B[0])])
    assert (int(alone[0]), int(alone[1])) == (o - r, i - r)
    part = ProjectOut()
    state = part.prepare(TaskContext(updates=past))
    assert state is not None
    assert part.free(state).tolist() == [max(0, min(o, i) - tasks * r)]
    assert part.free({side: Q[0] for side, Q in state.items()}).tolist() == max(0, min(o, i) - tasks * r)


@pytest.mark.parametrize("copies", [2, 6])
def test_directions_left_do_not_depend_on_how_the_past_is_written(copies: int) -> None:
    """Tasks that share directions share room, in the slide's sum as well; there is never less than none."""
    past = updates(13, 1, 2, 9, 7, 3) * copies
    for form in ("joint", "literal"):
        part = ProjectOut(form=form)  # type: ignore[arg-type]
        assert part.free(part.prepare(TaskContext(updates=past))).tolist() == [5] * 3  # type: ignore[arg-type]
    assert [count.tolist() for count in free(past)] == [[7] * 3, [5] * 3]


# --- orthonormal triplets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "r"), [(5, 1), (7, 2), (11, 8), (3, 5)])
def test_departure_from_orthonormal_is_autograds_and_the_finite_difference(n: int, r: int) -> None:
    (X,) = draw(n, (n, r))
    eye = torch.eye(r, dtype=torch.float64)
    value, by_rule = by_autograd(lambda x: (x.T @ x - eye).square().sum(), X)
    found, gradient = departure(X)
    torch.testing.assert_close(found, value, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, by_rule, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, numeric(lambda x: departure(x)[0], X), rtol=1e-5, atol=1e-5)


def test_the_regulariser_acts_on_both_sides_of_every_task_and_never_on_sigma() -> None:
    V, U, sigma = draw(14, (3, 2, 5), (3, 7, 2), (3, 2, 1))
    part = OrthonormalTriplets(lam=0.1)
    assert isinstance(part, WeightPenalty)
    eye = torch.eye(2, dtype=torch.float64)
    expected = by_autograd(lambda v, u: ((u.mT @ u - eye).square() + (v @ v.mT - eye).square()).sum((-2, -1)), V, U)
    for past in ((), updates(0, 2, 2, 7, 5, 3)):
        state = part.prepare(TaskContext(updates=past))
        assert state is not None
        pull = part.value_and_grad(LowRank(V, U, 4.0, sigma), state)
        for got, want in zip((pull.value, pull.A, pull.B), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        assert torch.equal(pull.sigma, torch.zeros_like(sigma))


def test_orthonormal_triplets_feel_nothing() -> None:
    X, Y = draw(15, (7, 2), (5, 2))
    U, V = torch.linalg.qr(X).Q[None], torch.linalg.qr(Y).Q.T[None]
    pull = OrthonormalTriplets().value_and_grad(LowRank(V, U, 1.0, torch.full((1, 2, 1), 9.0)), {})
    for tensor in (pull.value, pull.A, pull.B):
        torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=1e-12)
    twice = OrthonormalTriplets().value_and_grad(LowRank(V, 2 * U, 1.0, torch.ones(1, 2, 1)), {})
    assert float(twice.value) == pytest.approx(2 * 3**2)  # ‖4I − I‖² of a 2 × 2


# --- grown task by task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "r", "o", "i"), [(4, 2, 20, 33), (9, 3, 12, 40), (6, 8, 24, 24)])
def test_a_basis_that_is_grown_spans_what_the_joint_one_does(tasks: int, r: int, o: int, i: int) -> None:
    """Projections are equal, and so are counts; past the rank of the matrix nothing is added."""
    past = tuple(u.map(Tensor.float) for u in updates(7, tasks, r, o, i, 3))
    state = ProjectOut().prepare(TaskContext(updates=past))
    assert state is not None
    for side, n in (("U", o), ("V", i)):
        columns = torch.cat([u.B if side == "U" else u.A.mT for u in past], -1)
        joint, Q = basis(columns), state[side]
        assert Q.shape[-1] == min(n, tasks * r)
        torch.testing.assert_close(Q.mT @ Q, torch.eye(Q.shape[-1]).expand(3, -1, -1), atol=1e-5, rtol=0)
        torch.testing.assert_close(Q @ Q.mT, joint @ joint.mT, atol=2e-5, rtol=0)


def test_what_lies_in_the_span_of_earlier_tasks_adds_no_direction() -> None:
    """As a start by a blend does; in a stack a module that is full has columns of 0 behind, others go on."""
    one, other = (u.map(Tensor.float) for u in updates(3, 2, 4, 24, 30, 2))
    both = LowRank(one.A + 0.5 * other.A, one.B - other.B, 1.0)
    state = ProjectOut().prepare(TaskContext(updates=(one, other, both)))
    assert state is not None
    assert [state[side].shape[-1] for side in "UV"] == [8, 8]
    A, B = both.A.clone(), both.B.clone()
    A[1], B[1] = draw(5, (4, 30), (24, 4))[0].float(), draw(6, (24, 4))[0].float()
    state = ProjectOut().extend(state, LowRank(A, B, 1.0))
    assert ProjectOut().free(state).tolist() == [24 - 8, 24 - 12]
    assert not state["U"][0, :, 8:].any()
    assert state["U"][1].any(0).all()


def test_only_new_tasks_are_looked_at() -> None:
    """A history that goes on extends what it has; another one of as many tasks does not take it over."""
    many = [{"q": u} for u in updates(1, 4, 2, 9, 7)]
    seen = list[int]()

    def count(state: State | None, update: LowRank) -> State:
        seen.append(1)
        return {"sum": update.A + (state["sum"] if state else 0)}

    history = UpdateHistory()
    assert history.grown("x", ["q"], count) is None
    for number, one in enumerate(many, start=1):
        history = history.append(one)
        found = history.grown("x", ["q"], count)
        assert len(seen) == number
        torch.testing.assert_close(found["sum"][0], sum(m["q"].A for m in many[:number]))  # type: ignore[index]
    shorter = UpdateHistory(history.deltas[:2], history.made)
    assert len(seen) == 4
    shorter.grown("x", ["q"], count)
    assert len(seen) == 6
    forked = shorter.append(many[3])
    torch.testing.assert_close(
        forked.grown("x", ["q"], count)["sum"][0],  # type: ignore[index]
        many[0]["q"].A + many[1]["q"].A + many[3]["q"].A,
    )


def test_several_gradients_are_projected_together_as_each_by_itself() -> None:
    past = updates(4, 3, 2, 9, 11, 2)
    changes = [dict(zip("AB", draw(seed, (2, r, 11), (2, 9, r)), strict=True)) for seed, r in ((1, 2), (2, 3))]
    changes[1]["sigma"] = torch.ones(2, 3, 1).double()
    part = ProjectOut()
    state = part.prepare(TaskContext(updates=past))
    assert state is not None
    for one, alone in zip(part.shape_each(changes, state), changes, strict=True):
        torch.testing.assert_close(one, part.shape(alone, state), rtol=1e-12, atol=1e-12)
