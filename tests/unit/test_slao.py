"""SLAO: the orthogonal start, the running merge, and runs in which both happen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_runs
from calculus import draw
from everlora.core.updates import LowRank
from everlora.parts.slow import SlowMerge, orthonormal_rows, towards
from everlora.training import memory


@settings(max_examples=50, deadline=None, derandomize=True)
@given(r=st.integers(1, 4), i=st.integers(4, 9), seed=st.integers(0, 10**6))
def test_the_start_is_orthonormal_and_spans_the_same_rows(r: int, i: int, seed: int) -> None:
    (A,) = draw(seed, (2, r, i))
    Q = orthonormal_rows(A)
    torch.testing.assert_close(Q @ Q.mT, torch.eye(r, dtype=Q.dtype).expand(2, r, r))
    R = A @ Q.mT  # Aᵀ = Qᵀ Rᵀ: lower triangular, with a positive diagonal
    torch.testing.assert_close(R @ Q, A)
    torch.testing.assert_close(R, R.tril(), rtol=0, atol=1e-10)
    assert bool((R.diagonal(dim1=-2, dim2=-1) > 0).all())


def test_the_start_by_hand() -> None:
    A = torch.tensor([[0.0, -2.0, 0.0], [3.0, 1.0, 0.0]])
    torch.testing.assert_close(orthonormal_rows(A), torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_the_merge_by_hand() -> None:
    steps = [float(towards(torch.zeros(1), torch.ones(1), t)) for t in (1, 2, 3, 4)]
    assert steps == pytest.approx([1, 0.70711, 0.57735, 0.5], abs=1e-5)
    part, one = SlowMerge(), LowRank(torch.ones(1, 2), torch.tensor([[2.0], [0.0]]), 3.0)
    two = LowRank(torch.zeros(1, 2), torch.tensor([[4.0], [1.0]]), 3.0)
    assert part.finish(one, None, 1) is one
    merged = part.finish(two, one, 4)
    assert merged.A.tolist() == [[0.0, 0.0]]
    assert merged.B.tolist() == [[3.0], [0.5]]
    assert merged.scale == 3


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    """Three tasks, with what was trained when each was begun and ended."""
    began: list[dict[str, LowRank]] = []
    found = tiny_runs.begin(
        "tiny-t5",
        "slao",
        tmp_path_factory.mktemp("slao") / "run",
        progress=tiny_runs.Watch(learning=lambda _: began.append(found.backend.extract())),
    )
    found.follow(tiny_runs.stream("tiny-t5", 3))
    return found, began


def test_a_run_starts_and_merges_as_written(learner) -> None:
    found, began = learner
    folders = [stage.path for stage in found.folder.stages()]
    answers = [found.backend.load(folder)[0] for folder in folders]
    trained = [memory.read(folder)["slow_merge"] for folder in folders]
    for name in answers[0]:
        assert torch.equal(answers[0][name].B, trained[0][name]["B"]), "the first task stays as it is"
        for t in (1, 2):
            assert torch.equal(began[t][name].B, trained[t - 1][name]["B"])
            assert torch.equal(began[t][name].A, orthonormal_rows(answers[t - 1][name].A))
            expected = towards(answers[t - 1][name].B, trained[t][name]["B"], t + 1)
            torch.testing.assert_close(answers[t][name].B, expected)
            assert not torch.allclose(answers[t][name].B, trained[t][name]["B"], atol=1e-4)


def test_memory_is_constant_and_the_merge_answers(learner) -> None:
    found, _ = learner
    kept = found.storage()
    assert kept.memory_bytes == 4 * sum(2 * s.B.numel() + s.A.numel() for s in found.newest.values())
    model = found.inference_model()
    for name, site in found.backend.trainable().items():
        assert torch.equal(site.B, found.newest[name].B)
        assert torch.equal(site.A, found.newest[name].A)
    assert not model.training
    found.backend.detach()


def test_the_first_task_is_seqloras(tmp_path) -> None:
    tasks = tiny_runs.stream("tiny-bert")[:1]
    one, other = (tiny_runs.train_sequence("tiny-bert", name, tmp_path / name, tasks) for name in ("slao", "seqlora"))
    assert tiny_runs.largest_difference(tiny_runs.adapter(one), tiny_runs.adapter(other)) == 0


@pytest.mark.parametrize("method", ["slao", "slao+migu"])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(method, tmp_path) -> None:
    tasks = tiny_runs.stream("tiny-bert", 3)
    whole = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "whole", tasks)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.train_sequence("tiny-bert", method, tmp_path / "cut", tasks, progress=tiny_runs.Cut("third"))
    again = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "cut", tasks, resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(whole), tiny_runs.adapter(again)) == 0


def test_the_start_is_of_the_newest_pair_and_the_factor_that_was_trained() -> None:
    pairs = [LowRank(*draw(seed, (2, 5), (4, 2)), 3.0) for seed in range(4)]
    plain = SlowMerge().start(pairs[0], pairs[1:])
    assert torch.equal(plain.A, orthonormal_rows(pairs[3].A))
    assert (plain.B is pairs[3].B, plain.scale) == (True, 3.0)
    trained = SlowMerge().start(pairs[0], pairs[1:], memory={"B": pairs[0].B})
    assert trained.B is pairs[0].B
    assert SlowMerge().covers(["q", "head"]) == ("q", "head")


def test_rows_of_nothing_keep_the_sign_that_they_are_given() -> None:
    assert torch.equal(orthonormal_rows(torch.zeros(2, 3)), torch.eye(2, 3))


def test_the_trained_factor_is_remembered_and_counted() -> None:
    update = LowRank(torch.ones(2, 5), torch.ones(7, 2))
    held = SlowMerge().remember(update, {})
    assert (
        sum(t.nbytes for t in held.values())
        == SlowMerge().memory_bytes(7, 5, 2, 3)
        == SlowMerge().memory_bytes(7, 9, 2, 1)
    )
    assert torch.equal(held["B"], update.B)
    assert held["B"] is not update.B
