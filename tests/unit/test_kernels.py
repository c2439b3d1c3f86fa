"""Penalties in tiles equal plain torch: Triton in its interpreter, and what parts prepare for it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from everlora.core.errors import ConfigError
from everlora.core.roles import PenaltyGradient, TaskContext, WeightPenalty
from everlora.core.updates import LowRank
from everlora.kernels import RATE, Problem, choice, keep_factors, use_tiles
from everlora.parts.penalties import EnergyOverlap, energy_overlap
from everlora.parts.signs import SignConflict, sign_conflict
from everlora.parts.sparsity import Sparsity, sparsity

CLOSE = 1e-5
"""How far a result may be from the reference, relative to its norm: rounding in fp32."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_given_up", [])
    monkeypatch.setattr(choice, "_checked", set())
    monkeypatch.setenv(choice.SWITCH, "auto")


@pytest.fixture
def tiles() -> ModuleType:
    """The kernels, computed by Triton's interpreter (tests/conftest.py chooses it)."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (everlora[gpu])")
    return importlib.import_module("everlora.kernels.tiles")


def drawn(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size


def a_problem(
    out: int, into: int, rank: int, past_rank: int | None, *, start: bool = False, count: int = 2, dtype: Any = None
) -> Problem:
    """Random modules whose update and past are of one size, so that no term vanishes."""
    A, B = drawn(count, rank, into, seed=0).to(dtype), drawn(count, out, rank, seed=1, size=rank**-0.5).to(dtype)
    pairs = [
        LowRank(drawn(count, r, into, seed=s), drawn(count, out, r, seed=s + 1, size=max(1, r) ** -0.5))
        for s, r in ((2, past_rank or 0), (4, 3))
    ]
    past = None if past_rank is None else pairs[0]
    rate = drawn(count, seed=6).abs() + 0.5
    return Problem(A=A, B=B, scale=0.7, past=past, rate=rate, start=pairs[1] if start else None)


def reference(form: str, of: Problem, made: Tensor | None = None) -> tuple[Tensor, ...]:
    """The functions that parts compute with on a CPU; ``made`` is what has been made of the past."""
    start = None if of.start is None else of.start.dense()
    if form == "l1":
        return sparsity(of.A, of.B)
    if form == "energy":
        return energy_overlap(of.A, of.B, of.scale, of.W.square() if made is None else made, start)
    sigma, rate = torch.tanh(of.W) if made is None else made, of.rate.view(-1, 1, 1)
    return sign_conflict(of.A, of.B, of.scale, sigma, rate, detach_weight=form == "sign_detached", start=start)


def assert_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == torch.float32
        # Module by module: a large one must not hide what is wrong in a small one.
        wrong, size = (one - other).flatten(1 if one.ndim > 1 else 0), other.flatten(1 if one.ndim > 1 else 0)
        far = wrong.norm(dim=-1) if one.ndim > 1 else wrong.abs()
        near = size.norm(dim=-1) if one.ndim > 1 else size.abs()
        assert (far <= CLOSE * near).all(), (far / near).tolist()


@pytest.mark.parametrize("form", ["energy", "sign", "sign_detached"])
@pytest.mark.parametrize(
    ("out", "into", "rank", "past_rank", "start"),
    [
        (5, 7, 1, 1, False),  # less than a tile
        (64, 64, 16, 16, False),  # one tile
        (67, 131, 8, 40, True),  # five tasks of rank 8
        (65, 33, 8, 400, False),  # fifty
        (130, 66, 64, 64, True),
        (33, 70, 3, 0, False),  # a past of rank 0
        (33, 70, 3, None, True),
    ],
)
def test_tiles_equal_plain_torch(
    tiles: ModuleType, form: Any, out: int, into: int, rank: int, past_rank: int | None, start: bool
) -> None:
    of = a_problem(out, into, rank, past_rank, start=start)
    expected = reference(form, of)
    assert_close(tiles.solve(form, of), expected)
    made = (of.W.square() if form == "energy" else torch.tanh(of.W)).expand(2, out, into)
    assert_close(tiles.solve(form, replace(of, past=made)), expected)


def test_the_norm_of_all_entries(tiles: ModuleType) -> None:
    of = a_problem(67, 70, 5, None)
    one = replace(of, scale=1.0)
    assert_close(tiles.solve("l1", one), reference("l1", one))
    zero = replace(of, scale=1.0, B=torch.zeros_like(of.B))
    assert all(not found.any() for found in tiles.solve("l1", zero))


def test_a_past_of_zeros_pulls_nowhere(tiles: ModuleType) -> None:
    of = a_problem(20, 30, 4, 8)
    assert isinstance(of.past, LowRank)
    still = replace(of, past=of.past.map(torch.zeros_like))
    assert all(not found.any() for found in tiles.solve("energy", still))


def test_half_precision_is_computed_in_full(tiles: ModuleType) -> None:
    of = a_problem(40, 50, 8, 24, dtype=torch.bfloat16)
    assert of.A.dtype == torch.bfloat16
    for form in ("energy", "sign"):
        assert_close(tiles.solve(form, of), reference(form, of))


def test_the_same_bits_every_time_and_for_any_number_at_once(
    tiles: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = a_problem(20, 30, 8, 24, count=3)
    first, again = tiles.solve("sign", of, rows=16, columns=16), tiles.solve("sign", of, rows=16, columns=16)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    monkeypatch.setattr(tiles, "SHARES", 1)  # one module after the other
    alone = tiles.solve("sign", of, rows=16, columns=16)
    assert all(torch.equal(one, other) for one, other in zip(first, alone, strict=True))
    assert_close(tiles.solve("sign", of, rows=32, columns=32), first)


def test_small_updates_keep_their_digits(tiles: ModuleType) -> None:
    """Where tanh is nearly its argument, 1 - 2 / (exp + 1) would leave three digits of it."""
    of = a_problem(24, 24, 4, 4)
    assert isinstance(of.past, LowRank)
    small = replace(of, B=of.B * 1e-4, rate=of.rate * 1e-3)
    assert_close(tiles.solve("sign", small), reference("sign", small))
    large = replace(of, rate=of.rate * 1e4)
    assert_close(tiles.solve("sign_detached", large), reference("sign_detached", large))


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from everlora.kernels.tiles import _band as band

pointers, names = 11, band.arg_names
wanted = (("energy", "dense", False, 16), ("sign", "factors", True, 64), ("l1", "none", False, 16))
for form, past, start, rank in wanted:
    fixed = dict(FORM=form, PAST=past, START=start, ROWS=64, COLS=32, RANK=rank, STEP=32, PRECISE="ieee")
    kinds = {name: "*bf16" if k < 2 else "*fp32" if k < pointers else "i32" for k, name in enumerate(names)}
    kinds |= {"scale": "fp32"} | dict.fromkeys(fixed, "constexpr")
    source = ASTSource(band, kinds, constexprs={(names.index(name),): value for name, value in fixed.items()})
    for capability in (80, 90):
        made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8, "num_stages": 2})
        assert made.metadata.shared < 99 * 1024, made.metadata.shared  # what the smallest of these devices offers
print("compiled")
"""


@pytest.mark.full
def test_the_kernel_compiles_for_gpus_that_are_not_here(tiles: ModuleType) -> None:
    """Compiled for CUDA: the interpreter lets pass what the compiler refuses."""
    outside = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=outside, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]


PARTS: list[WeightPenalty] = [
    EnergyOverlap(),
    EnergyOverlap(energy="rms"),
    EnergyOverlap(energy="max"),
    EnergyOverlap(store="svd", store_rank=3),
    SignConflict(),
    SignConflict(sharpness=30.0, detach_weight=True),
    SignConflict(past="merged"),
    SignConflict(first_task_decay=True),
    Sparsity(),
]


def context(part: WeightPenalty, tasks: int, *, start: bool) -> TaskContext:
    updates = tuple(
        LowRank(drawn(3, 2, 11, seed=k), drawn(3, 9, 2, seed=k + 100, size=1e-2), 0.5) for k in range(tasks)
    )
    memory: dict[str, Tensor] = {}
    if isinstance(part, EnergyOverlap) and part.store != "factors":
        each = []
        for m in range(3):
            held: dict[str, Tensor] = {}
            for update in updates:
                held = part.remember(LowRank(update.A[m], update.B[m], update.scale), held)
            each.append(held)
        memory = {key: torch.stack([one[key] for one in each]) for key in each[0]}
    begun = LowRank(drawn(3, 2, 11, seed=50), drawn(3, 9, 2, seed=51, size=1e-2), 0.5) if start else None
    return TaskContext(updates=updates, start=begun, memory=memory)


def pull(part: WeightPenalty, before: TaskContext) -> PenaltyGradient | None:
    live = LowRank(drawn(3, 2, 11, seed=60), drawn(3, 9, 2, seed=61, size=1e-2), 0.5, drawn(3, 2, 1, seed=62))
    state = part.prepare(before)
    return None if state is None else part.value_and_grad(live, state)


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: repr(part)[:60])
def test_parts_mean_the_same_by_tiles(part: WeightPenalty, start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What parts prepare for tiles is what they prepare for matrices; computed in plain torch on this device."""
    monkeypatch.setattr(choice, "_installed", lambda: False)
    tasks = 0 if part == SignConflict(first_task_decay=True) else 2
    before = context(part, tasks, start=start and bool(tasks))
    expected = pull(part, before)
    monkeypatch.setenv(choice.SWITCH, "factors")
    state = part.prepare(before)
    assert state is not None
    assert RATE in state
    found = pull(part, before)
    assert expected is not None
    assert found is not None
    torch.testing.assert_close(found.value, expected.value, rtol=CLOSE, atol=0)
    for key, gradient in expected.gradient.items():
        torch.testing.assert_close(found.gradient[key], gradient, rtol=CLOSE, atol=CLOSE * float(gradient.norm()))


def test_without_a_past_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.SWITCH, "factors")
    assert EnergyOverlap().prepare(TaskContext()) is None
    assert SignConflict().prepare(TaskContext()) is None


def test_a_part_that_weighs_otherwise_is_given_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(EnergyOverlap):
        name = "halved"

        def weigh(self, total: Tensor) -> Tensor:
            return total.abs() / 2

    monkeypatch.setenv(choice.SWITCH, "factors")
    monkeypatch.setattr(choice, "_installed", lambda: False)
    before = context(EnergyOverlap(), 2, start=False)
    whole, half = pull(EnergyOverlap(), before), pull(Halved(), before)
    assert whole is not None
    assert half is not None
    torch.testing.assert_close(4 * half.value, whole.value)


def test_on_a_cpu_nothing_changes_and_the_switch_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not use_tiles(CPU)
    monkeypatch.setattr(choice, "_installed", lambda: True)
    assert use_tiles(torch.device("cuda"))
    assert keep_factors(choice.FACTORS_UP_TO)
    assert not keep_factors(choice.FACTORS_UP_TO + 1)
    for off in ("off", ""):  # which is the default, too
        monkeypatch.setenv(choice.SWITCH, off)
        assert not use_tiles(torch.device("cuda"))
    monkeypatch.setenv(choice.SWITCH, "factors")
    assert keep_factors(10**6)
    monkeypatch.setenv(choice.SWITCH, "on")
    with pytest.raises(ConfigError, match="EVERLORA_KERNELS must be auto, off or factors, not 'on'"):
        use_tiles(CPU)


@pytest.mark.parametrize("fault", ["raises", "wrong", "nan"])
def test_a_kernel_that_fails_or_is_wrong_is_given_up_with_one_line(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    of = a_problem(6, 5, 2, 4)
    expected = reference("energy", of)

    def broken(form: str, problem: Problem) -> tuple[Tensor, ...]:
        if fault == "raises":
            raise RuntimeError("no compiler\nfor this device")
        value, on_A, on_B = expected
        return value, on_A * (1.01 if fault == "wrong" else float("nan")), on_B

    monkeypatch.setitem(sys.modules, "everlora.kernels.tiles", SimpleNamespace(solve=broken))
    monkeypatch.setattr("everlora.kernels.tiles", SimpleNamespace(solve=broken), raising=False)
    monkeypatch.setattr(choice, "_fits", lambda problem: not choice._given_up)
    with caplog.at_level(logging.WARNING, logger="everlora"):
        for _ in range(2):
            found = choice.solve("energy", of, lambda problem: reference("energy", problem))  # type: ignore[arg-type]
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(caplog.messages) == 1
    assert "\n" not in caplog.messages[0]
    assert ("no compiler for this device" if fault == "raises" else "its gradient of A differs") in caplog.messages[0]


def test_a_kernel_that_is_right_is_used_and_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of, looked = a_problem(6, 5, 2, 4), []
    expected = reference("energy", of)
    stands_in = SimpleNamespace(solve=lambda form, problem: reference(form, problem))
    monkeypatch.setitem(sys.modules, "everlora.kernels.tiles", stands_in)
    monkeypatch.setattr("everlora.kernels.tiles", stands_in, raising=False)
    monkeypatch.setattr(choice, "_fits", lambda problem: True)

    def plain(problem: Problem) -> Any:
        looked.append(len(problem.A))
        return reference("energy", problem)

    for _ in range(3):
        found = choice.solve("energy", of, plain)
    assert looked == [1]
    assert_close(found, expected)
