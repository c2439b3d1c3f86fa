"""What a part would remember of a task is counted before it is trained, and rows for its evidence may be few."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from everlora import parse
from everlora.analysis.status import status
from everlora.core.errors import ConfigError, DataError
from everlora.core.updates import LowRank, Updates
from everlora.data.task import Example, Task
from everlora.testing import tiny_runs
from everlora.training import memory

GB = 10**9


def wide(out: int, into: int) -> Updates:
    """Two modules of that shape, which take no memory to speak of."""
    one = LowRank(torch.zeros(1).expand(8, into), torch.zeros(1).expand(out, 8), 1.0)
    return {"q": one, "v": one}


def check(method: str, live: Updates, held: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: held)
    memory.check_fits(parse(method).remembering, live)


def test_a_full_store_of_wide_layers_is_refused_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules of 50,000 x 50,000: 40 GB while they are measured, and 40 GB in a full store."""
    with pytest.raises(ConfigError, match="80 GB, and there are 64 GB; take store=low-rank, or fewer") as caught:
        check("kfac", wide(50_000, 50_000), 64 * GB, monkeypatch)
    assert "50000 x 50000" in str(caught.value)
    assert "--lora-target-modules" in str(caught.value)
    check("kfac(store=low-rank)", wide(50_000, 50_000), 64 * GB, monkeypatch)
    check("kfac", wide(50_000, 50_000), 81 * GB, monkeypatch)


def test_a_low_rank_store_of_wide_layers_is_not_even_measured_as_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50,000 x 50,000 with rank 32: four roots of 256 columns are measured, and one of them decomposed."""
    for method in ("kfac", "kfac(store=int8)"):
        with pytest.raises(ConfigError, match="there are 16 GB; take store=low-rank, or fewer"):
            check(method, wide(50_000, 50_000), 16 * GB, monkeypatch)
    for store, kept in (("low-rank", 32), ("diagonal", 33)):
        measured = 4 * 4 * (50_000 * 257 + 1) + 24 * 50_000 * 256
        needed = measured + 2 * 8 + 4 * 4 * (50_000 * kept + 1)
        assert needed < GB // 1.5
        check(f"kfac(store={store})", wide(50_000, 50_000), needed, monkeypatch)
        with pytest.raises(ConfigError, match="remembers of 2 modules"):
            check(f"kfac(store={store})", wide(50_000, 50_000), needed - 1, monkeypatch)


def test_what_cannot_even_be_measured_is_not_helped_by_a_smaller_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("kfac", "kfac(store=low-rank)"):
        with pytest.raises(ConfigError, match="take fewer or narrower modules"):
            check(method, wide(50_000, 50_000), GB // 8, monkeypatch)


def test_what_fits_what_remembers_nothing_and_a_system_that_does_not_say_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    check("kfac", wide(4_000, 4_000), 16 * GB, monkeypatch)
    check("inclora", wide(50_000, 50_000), GB, monkeypatch)
    check("kfac", wide(50_000, 50_000), None, monkeypatch)
    check("kfac", {}, 1, monkeypatch)


@pytest.mark.parametrize(
    ("method", "measured"), [("ella(store=dense)", 0), ("kfac(store=full)", 2 * 4 * (10**2 + 20**2))]
)
def test_what_fits_to_the_byte_passes(method: str, measured: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of two modules: what is stored, and of a curvature both factors in fp32 while they are measured."""
    (part,) = parse(method).remembering
    needed = measured + 2 * part.memory_bytes(10, 20, 8, 1)
    check(method, wide(10, 20), needed, monkeypatch)
    with pytest.raises(ConfigError, match=r"remembers of 2 modules \(the widest 10 x 20\)"):
        check(method, wide(10, 20), needed - 1, monkeypatch)


def test_what_two_parts_remember_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fits by itself: a curvature, measured and stored, and past updates that are stored as matrices."""
    parts = parse("kfac+ella(store=dense)").remembering
    curvature, dense = 2 * 4 * (10**2 + 20**2), 2 * 4 * 10 * 20
    stored = sum(2 * part.memory_bytes(10, 20, 8, 1) for part in parts)
    assert stored == curvature + 16 + dense
    check("kfac+ella(store=dense)", wide(10, 20), stored + curvature, monkeypatch)
    with pytest.raises(ConfigError, match="what 'kronecker_curvature' and 'energy_overlap' remember of 2 modules"):
        check("kfac+ella(store=dense)", wide(10, 20), stored + curvature - 1, monkeypatch)


def test_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured are two dense matrices of each module, n² + m² numbers; stored, here, the same and 8 bytes."""
    live: Updates = {
        name: LowRank(torch.zeros(2, into), torch.zeros(out, 2), 1.0)
        for name, out, into in (("q", 40, 30), ("v", 20, 60))
    }
    measured = 4 * (40**2 + 30**2 + 20**2 + 60**2)
    check("kfac", live, 2 * measured + 16, monkeypatch)
    # The smallest store, int8, takes n² + 4 n + 4 bytes of a factor; where not even that fits, none is advised.
    smallest = 8 * 2 + sum(n**2 + 4 * n + 4 for n in (40, 30, 20, 60))
    cures = (
        (2 * measured + 15, "store=low-rank, or fewer"),
        (measured + smallest, "store=int8, or fewer"),
        (measured + smallest - 1, "fewer"),
    )
    for held, cure in cures:
        with pytest.raises(ConfigError, match=f"take {cure}") as caught:
            check("kfac", live, held, monkeypatch)
        assert "remembers of 2 modules (the widest 20 x 60) needs 52 kB" in str(caught.value)
    with pytest.raises(ConfigError, match="take fewer or narrower"):
        check("kfac", live, measured - 1, monkeypatch)
    dense = 4 * (40 * 30 + 20 * 60)
    check("ella(store=dense)", live, dense, monkeypatch)
    with pytest.raises(ConfigError, match=r"'energy_overlap' remembers of 2 modules.*take store=factors, or fewer"):
        check("ella(store=dense)", live, dense - 1, monkeypatch)
    check("ella(store=factors)", live, dense - 1, monkeypatch)


def test_a_memory_is_counted_in_bytes() -> None:
    held: memory.Memory = {"p": {"q": {"x": torch.zeros(3), "y": torch.zeros(5, dtype=torch.int8)}}, "o": {"q": {}}}
    assert (memory.size(held), memory.size({})) == (17, 0)


@pytest.mark.parametrize("method", ["seqlora", "slao"])
def test_what_answers_is_put_on_the_model_where_a_part_has_changed_it(method: str) -> None:
    put: list[Updates] = []
    backend = cast(Any, SimpleNamespace(set_values=put.append))
    first: Updates = {"q": LowRank(torch.ones(1, 2), torch.tensor([[2.0]]), 1.0)}
    second: Updates = {"q": LowRank(torch.ones(1, 2), torch.tensor([[4.0]]), 1.0)}
    assert memory.finished(parse(method), backend, first, None, 1) == first
    found = memory.finished(parse(method), backend, second, first, 4)
    assert cast(LowRank, found["q"]).B.tolist() == ([[4.0]] if method == "seqlora" else [[3.0]])
    assert put == ([] if method == "seqlora" else [first, found])


def test_a_run_is_refused_before_its_first_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: 1000)
    steps: list[str] = []
    with pytest.raises(ConfigError, match="'kronecker_curvature' remembers"):
        tiny_runs.train_sequence(
            "tiny-bert", "kfac", tmp_path / "run", progress=tiny_runs.Watch(learning=steps.append)
        )
    assert steps == []


def test_fewer_rows_than_samples_are_all_looked_at_and_the_prediction_is_recorded(tmp_path: Path) -> None:
    tasks = [tiny_runs.text_task(name, ("yes", "no"), seed=k, train=3) for k, name in enumerate(("one", "two"))]
    tiny_runs.train_sequence("tiny-bert", "kfac(samples=32)", tmp_path / "run", tasks)
    first, second = status(tmp_path / "run").tasks
    assert first.predicted_rise is None
    assert second.predicted_rise is not None
    assert second.predicted_rise > 0
    assert f"two {second.predicted_rise:.2g}" in (status(tmp_path / "run").forecast or "")


def test_where_nothing_predicts_nothing_is_recorded(tmp_path: Path) -> None:
    tiny_runs.train_sequence("tiny-bert", "ella", tmp_path / "run")
    assert {task.predicted_rise for task in status(tmp_path / "run").tasks} == {None}
    assert status(tmp_path / "run").forecast is None


def test_no_rows_at_all_are_one_line() -> None:
    with pytest.raises(DataError, match="empty train split; give it at least one row"):
        Task(name="none", train=[], test=[Example("a", "yes")], labels=("yes", "no"), instruction="Say.")
