"""InfLoRA: A off the old features, a basis that grows to a share of the energy, runs that keep both promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny_runs
from calculus import draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.roles import Evidence
from everlora.core.updates import LowRank
from everlora.parts import features
from everlora.parts.features import (
    ROW,
    FeatureStart,
    complement,
    design_down_projection,
    extend_basis,
    keep_components,
    leading,
)
from everlora.training import memory
from everlora.training.evidence import second_moments

often = settings(max_examples=50, deadline=None, derandomize=True)


def moment(seed: int, i: int, rank: int) -> Tensor:
    """C of features that live in ``rank`` dimensions."""
    left, right = draw(seed, (i, rank), (rank, 40))
    x = left @ right
    return x @ x.mT / 40


def basis(seed: int, i: int, q: int) -> Tensor:
    return torch.linalg.qr(draw(seed, (i, q))[0])[0]


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def test_the_rows_of_a_by_hand() -> None:
    C = torch.diag(torch.tensor([9.0, 4.0, 1.0]).double())
    F = eye(3)[:, :1]
    rows = design_down_projection(C, F, False, 2)
    torch.testing.assert_close(rows.abs(), ROW * eye(3)[1:])
    assert design_down_projection(C, F, False, 3)[2].tolist() == [0, 0, 0], "no third direction is left"
    torch.testing.assert_close(design_down_projection(C, complement(F), True, 2).abs(), rows.abs())


@pytest.mark.parametrize(
    ("share", "measure", "q"),
    [(0.6, "features", 1), (0.7, "features", 2), (0.95, "features", 3), (0.82, "moment", 1), (0.98, "moment", 2)],
)
def test_the_basis_by_hand(share: float, measure: str, q: int) -> None:
    """Energies 9, 4 and 1 of 14: .643, .929, 1; of the moment's own, 81, 16 and 1 of 98: .827, .990, 1."""
    C = torch.diag(torch.tensor([9.0, 4.0, 1.0]).double())
    F = extend_basis(C, torch.zeros(3, 0).double(), share, measure)  # type: ignore[arg-type]
    torch.testing.assert_close(F.abs(), eye(3)[:, :q])


@often
@given(seed=st.integers(0, 10**6), i=st.integers(3, 12), q=st.integers(0, 3), share=st.floats(0.1, 1))
def test_the_basis_holds_the_share_with_as_few_directions_as_can_be(seed: int, i: int, q: int, share: float) -> None:
    C, F = moment(seed, i, i), basis(seed + 1, i, q)
    G = extend_basis(C, F, share)
    torch.testing.assert_close(G.mT @ G, eye(G.shape[1]))
    torch.testing.assert_close(G @ (G.mT @ F), F)  # what it held it holds
    held = lambda Q: float((Q.mT @ C @ Q).trace() / C.trace())  # noqa: E731
    assert held(G) >= share - 1e-9
    if G.shape[1] > q:
        left = C - F @ (F.mT @ C)
        left = left - left @ F @ F.mT
        best = torch.linalg.eigvalsh(left).flip(0)[: G.shape[1] - q - 1].sum() / C.trace()
        assert held(F) + float(best) < share + 1e-9, "one direction fewer would do"
    else:
        assert held(F) >= share - 1e-9 or q == i


@often
@given(seed=st.integers(0, 10**6), q=st.integers(0, 5), r=st.integers(1, 4), dual=st.booleans())
def test_a_stays_off_the_old_features_in_either_form(seed: int, q: int, r: int, dual: bool) -> None:
    F, C, (A, B) = basis(seed, 9, q), moment(seed + 1, 9, 6), draw(seed + 2, (r, 9), (7, r))
    kept = complement(F) if dual else F
    for rows in (design_down_projection(C, kept, dual, r), keep_components(A, kept, dual)):
        assert rows.shape == (r, 9)
        torch.testing.assert_close(rows @ F, torch.zeros(r, q).double(), rtol=0, atol=1e-10)
        assert float((B @ rows @ F).norm()) < 1e-9
        lengths = rows.norm(dim=-1)
        torch.testing.assert_close(lengths[lengths > 0], torch.full_like(lengths[lengths > 0], ROW))
    assert (
        int((design_down_projection(C, kept, dual, r).norm(dim=-1) > 0).sum()) == r
    )  # 6 directions, at most 5 taken: q < 9 - r
    inside = design_down_projection(C, kept, dual, r)
    left = torch.linalg.svd(C - F @ F.mT @ C)[0][:, :r]
    torch.testing.assert_close(left @ (left.mT @ inside.mT), inside.mT)


def test_rounding_of_a_basis_is_no_direction() -> None:
    """F is remembered in fp32: of a row inside it about 1e-8 is left, which would be brought to full length."""
    F = torch.linalg.qr(draw(5, (9, 3))[0])[0]
    inside, held = (F @ draw(6, (3, 2))[0]).mT, F.float()
    left = inside - (held.double() @ (held.double().mT @ inside.mT)).mT
    assert float((left.norm(dim=-1) / inside.norm(dim=-1)).min()) > 1e-10
    assert not keep_components(inside, held.double(), False).any()
    # What sticks out by more than that is a direction.
    (out,) = draw(7, (1, 9))
    out = out - out @ F @ F.mT
    near = inside[:1] + 1e-5 * out
    torch.testing.assert_close(keep_components(near, F, False), out * ROW / out.norm(), rtol=1e-6, atol=1e-8)


def test_a_share_that_is_held_exactly_wants_no_more() -> None:
    assert extend_basis(eye(4), torch.zeros(4, 0).double(), 0.5).shape[1] == 2
    assert extend_basis(eye(4), eye(4)[:, :2], 0.5).shape[1] == 2


def test_half_of_all_directions_is_the_most_that_is_stored() -> None:
    """In fp32; and a byte that says whether it is the complement, and four for the number of tasks."""
    part, update = FeatureStart(energy=0.5, measure="features"), LowRank(torch.zeros(2, 10), torch.zeros(4, 2))
    found = part.remember(update, {}, Evidence(moment=eye(10)))
    assert (found["basis"].shape, int(found["dual"])) == ((10, 5), 0)
    assert sum(t.nbytes for t in found.values()) == part.memory_bytes(4, 10, 2, 1) == 4 * 10 * 5 + 1 + 4
    more = FeatureStart(energy=0.6, measure="features").remember(update, {}, Evidence(moment=eye(10)))
    assert (more["basis"].shape, int(more["dual"])) == ((10, 4), 1)
    assert part.memory_bytes(4, 11, 2, 1) == 4 * 11 * 5 + 5


def test_options_at_their_edges_are_taken() -> None:
    assert FeatureStart(samples=1, tasks=1, energy=1.0).share(1) == 1


def test_a_share_that_is_held_exactly_is_enough() -> None:
    C = torch.diag(torch.tensor([0.5, 0.25, 0.25]).double())
    for share, q in ((0.5, 1), (0.51, 2), (0.75, 2), (1.0, 3)):
        assert extend_basis(C, torch.zeros(3, 0).double(), share).shape == (3, q)


def test_what_is_as_small_as_rounding_may_be_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of energies in a basis, and of singular values and lengths by their roots."""
    unit = torch.diag(torch.tensor([0.75, 0.25]).double())
    for nothing, q in ((0.25, 1), (0.24, 2)):
        monkeypatch.setattr(features, "NOTHING", nothing)
        anew: Any = extend_basis.__wrapped__  # type: ignore[attr-defined]  # not what it made with another constant
        assert anew(unit, torch.zeros(2, 0).double(), 1.0).shape[1] == q
    C, A = torch.diag(torch.tensor([5.0, 3.0]).double()), torch.tensor([[4.0, 3.0]]).double()
    for nothing, some in ((0.36, False), (0.35, True)):
        monkeypatch.setattr(features, "NOTHING", nothing)
        anew = design_down_projection.__wrapped__  # type: ignore[attr-defined]
        assert bool(anew(C, torch.zeros(2, 0).double(), False, 2)[1].any()) is some
        assert bool(keep_components(A, eye(2)[:, :1], False).any()) is some


def test_what_modules_that_read_the_same_features_share_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, decompose = list[int](), torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *args, **more: made.append(1) or decompose(*args, **more))
    C, F = moment(11, 8, 8), torch.zeros(8, 0).double()
    first = design_down_projection(C, F, False, 2)
    assert torch.equal(design_down_projection(C.clone(), F, False, 2), first)
    assert len(made) == 1
    C[0, 0] += 1e-9  # in place, too
    assert not torch.equal(design_down_projection(C, F, False, 2), first)
    design_down_projection(C, F, False, 3)
    assert len(made) == 3


def with_energies(seed: int, energies: Tensor) -> Tensor:
    """C of features with these energies, in directions that are drawn."""
    turn = basis(seed, len(energies), len(energies))
    return turn @ torch.diag(energies.double()) @ turn.mT


@pytest.mark.parametrize("dual", [False, True])
def test_of_wide_layers_the_top_directions_alone_are_looked_for(monkeypatch: pytest.MonkeyPatch, dual: bool) -> None:
    """Without a decomposition of the matrix (200, 200), and as it would have them, up to signs."""
    C, F = with_energies(0, 1 / torch.arange(1, 201)), basis(1, 200, 7)
    U = torch.linalg.svd(C - F @ F.mT @ C)[0][:, :8]
    anew: Any = design_down_projection.__wrapped__  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", None)
        rows = anew(C, complement(F) if dual else F, dual, 8)
    torch.testing.assert_close((rows / ROW) @ U, torch.diag(((rows / ROW) @ U).diagonal().sign()), rtol=0, atol=1e-7)


def test_where_the_top_directions_stand_out_too_little_the_matrix_is_decomposed() -> None:
    F = torch.zeros(200, 0).double()
    few, flat = (torch.arange(200) < 3) / torch.arange(1, 201), torch.linspace(1, 0.9, 200)
    for energies, rank in ((flat, 8), (few, 3), (0 * few, 0)):
        C = with_energies(2, energies)
        assert leading(lambda X, C=C: C @ (C @ X), 8, C) is None  # type: ignore[misc]
        rows = design_down_projection(C, F, False, 8)
        assert int((rows.norm(dim=-1) > 0).sum()) == rank


@pytest.mark.parametrize("into", [9, 10])
def test_the_largest_memory_is_half_of_all_directions(into: int) -> None:
    part, update = FeatureStart(energy=1.0, measure="features"), LowRank(torch.zeros(2, into), torch.zeros(4, 2))
    for rank, stored, dual in ((into // 2, into // 2, 0), (into // 2 + 1, (into - 1) // 2, 1)):
        found = part.remember(update, {}, Evidence(moment=moment(3, into, rank)))
        assert (found["basis"].shape[1], int(found["dual"])) == (stored, dual)
        full = sum(t.nbytes for t in found.values()) == part.memory_bytes(4, into, 2, 1)
        assert full is (stored == into // 2)


def test_a_task_without_rows_has_no_features_to_start_from() -> None:
    fresh = LowRank(*draw(4, (2, 5), (3, 2), dtype=torch.float32))
    with pytest.raises(ConfigError, match="'feature_start' looks at training rows of the new task, and it has none"):
        FeatureStart().start(fresh, [])
    drawn = FeatureStart(design="projected").start(fresh, [])
    torch.testing.assert_close(drawn.A, ROW * fresh.A / fresh.A.norm(dim=-1, keepdim=True))
    assert drawn.B is fresh.B


def test_features_that_are_all_zero_add_no_direction() -> None:
    F = basis(8, 6, 2)
    assert torch.equal(extend_basis(torch.zeros(6, 6), F, 0.99), F)


def test_a_draw_off_a_full_basis_is_zero() -> None:
    assert not keep_components(torch.ones(2, 3), eye(3), False).any()
    assert not design_down_projection(eye(3), eye(3), False, 2).any()


def test_memory_keeps_the_smaller_of_a_basis_and_its_complement() -> None:
    part, update = FeatureStart(energy=0.5, measure="features"), LowRank(torch.zeros(2, 10), torch.zeros(4, 2))
    first = part.remember(update, {}, Evidence(moment=moment(1, 10, 1)))
    assert (first["basis"].shape, int(first["dual"]), int(first["tasks"])) == ((10, 1), 0, 1)
    everything = FeatureStart(energy=1.0, measure="features").remember(
        update, first, Evidence(moment=moment(2, 10, 8))
    )
    assert (everything["basis"].shape[1], int(everything["dual"]), int(everything["tasks"])) == (1, 1, 2)
    F = complement(everything["basis"].double())
    old = first["basis"].double()
    torch.testing.assert_close(F @ (F.mT @ old), old, rtol=0, atol=1e-6)
    bytes_ = sum(t.nbytes for t in everything.values())
    assert bytes_ <= part.memory_bytes(4, 10, 2, 2)
    nothing = part.remember(update, first, Evidence())
    assert torch.equal(nothing["basis"], first["basis"])


def test_the_share_grows_if_the_number_of_tasks_is_known() -> None:
    assert [FeatureStart(energy=0.9).share(t) for t in (1, 5)] == [0.9, 0.9]
    assert FeatureStart(energy=0.9, tasks=1).share(2) == 1
    assert [FeatureStart(energy=0.9, tasks=10).share(t) for t in (1, 6, 11, 40)] == pytest.approx([0.9, 0.95, 1, 1])


@pytest.mark.parametrize(
    "typed", ["samples=0", "energy=0", "energy=1.1", "tasks=0", "design=x", "measure=x", "energy=nan"]
)
def test_bad_options_are_refused(typed: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"inflora({typed})")


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_moments_are_those_of_each_row_alone_without_padding(model: str) -> None:
    loaded, task = tiny_runs.fresh(model), tiny_runs.stream(model)[0]
    if loaded.family.head:
        loaded.family.prepare(loaded.model, [task], torch.Generator().manual_seed(0))
    rows = [(row, task) for row in task.train[:12]]
    layers = {
        n: m
        for n, m in loaded.model.named_modules()
        if isinstance(m, torch.nn.Linear)
        and n.rsplit(".", 1)[-1] in ("q", "k", "v", "q_proj", "v_proj", "query", "value")
    }
    together = second_moments(loaded.model, loaded.family, layers, rows)
    each: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def look(name: str):
        def hook(_, args):
            x = args[0].detach().flatten(0, -2).double()
            each[name], counts[name] = each.get(name, 0) + x.mT @ x, counts.get(name, 0) + len(x)

        return hook

    hooks = [layer.register_forward_pre_hook(look(name)) for name, layer in layers.items()]
    with torch.no_grad():
        for row in rows:
            loaded.family.logits(loaded.model.eval(), loaded.family.collate([loaded.family.features(*row)]))
    for hook in hooks:
        hook.remove()
    assert together.keys() == layers.keys() == each.keys()
    for name, C in together.items():
        torch.testing.assert_close(C, each[name] / counts[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["inflora(energy=0.9)", "inflora(design=projected,energy=0.9)"])
@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_in_a_run_a_is_fixed_and_off_the_old_features(model: str, method: str, tmp_path) -> None:
    learner = tiny_runs.begin(model, method, tmp_path / "run", lora={"r": 2, "lora_alpha": 4, "lora_dropout": 0.0})
    began: list[dict[str, LowRank]] = []
    learner.progress = tiny_runs.Watch(learning=lambda _: began.append(learner.backend.extract()))
    learner.follow(tiny_runs.stream(model, 3))
    for t, stage in enumerate(learner.folder.stages()):
        update = learner.backend.load(stage.path)[0]
        for name, site in update.items():
            assert torch.equal(site.A, began[t][name].A), "A was trained"
            assert bool(site.B.any())
        if t:
            held = memory.read(learner.folder.stages()[t - 1].path)["feature_start"]
            for name, site in update.items():
                kept = held[name]["basis"].double()
                F = complement(kept) if bool(held[name]["dual"]) else kept
                assert F.shape[1] > 0
                assert float((site.dense().double() @ F).abs().max()) < 1e-6
    assert any(bool(site.A.any()) for site in learner.newest.values())


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path) -> None:
    tasks = tiny_runs.stream("tiny-bert", 3)
    whole = tiny_runs.train_sequence("tiny-bert", "inflora+migu", tmp_path / "whole", tasks)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-bert", "inflora+migu", tmp_path / "cut", tasks, progress=tiny_runs.Cut("third"))
    again = tiny_runs.train_sequence("tiny-bert", "inflora+migu", tmp_path / "cut", tasks, resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(again)) == 0
