"""What a chain does in one step with memories that differ in shape, and how often it stacks what it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import GradientTransform, HasMemory
from everlora.core.updates import LowRank
from everlora.parts import ProjectOut
from everlora.training.chain import Chain


@dataclass(frozen=True, kw_only=True)
class Uneven(GradientTransform, HasMemory):
    """Takes what lies along its memory out of A's gradient."""

    name: ClassVar[str] = "uneven"
    acts_on: ClassVar[str] = "gradient"
    contexts: ClassVar[list[tuple[int, ...]]] = []

    def prepare(self, before):  # type: ignore[no-untyped-def]
        if not before.memory:
            return None
        self.contexts.append(tuple(before.memory["basis"].shape))
        return {"basis": before.memory["basis"]}

    def shape(self, gradient, state):  # type: ignore[no-untyped-def]
        F = state["basis"]
        return {**gradient, "A": gradient["A"] - gradient["A"] @ F @ F.mT}

    def remember(self, update, memory, seen=None):  # type: ignore[no-untyped-def]
        return memory

    def memory_bytes(self, out, into, rank, tasks):  # type: ignore[no-untyped-def]
        return 0


def test_bases_of_different_width_come_apart_and_each_module_has_its_own() -> None:
    """Four modules of one shape: two bases of one column, one of three, one of none at all."""
    draw = torch.Generator().manual_seed(0)
    widths = {"a": 1, "b": 3, "c": 1, "d": None}
    bases = {
        name: torch.linalg.qr(torch.randn(5, width, generator=draw))[0] for name, width in widths.items() if width
    }
    live = {
        name: LowRank(*(torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((2, 5), (4, 2))))
        for name in widths
    }
    params = [p for update in live.values() for p in update.tensors.values()]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)  # type: ignore[attr-defined]
    before = {name: update.A.grad.clone() for name, update in live.items()}  # type: ignore[union-attr]
    Uneven.contexts.clear()
    chain = Chain.build(
        params,  # type: ignore[arg-type]
        live,
        UpdateHistory(),
        replace(parse("seqlora"), transforms=(Uneven(),)),
        task="t",
        max_norm=0,
        every=1,
        memory={"uneven": {name: {"basis": basis} for name, basis in bases.items()}},
    )
    assert [group.names for group in chain.groups] == [("a", "c"), ("b",), ("d",)]
    assert Uneven.contexts == [(2, 5, 1), (1, 5, 3)]
    for group in chain.groups:
        group.shape(None)
    for name, update in live.items():
        F = bases.get(name, torch.zeros(5, 0))
        torch.testing.assert_close(update.A.grad, before[name] - before[name] @ F @ F.mT)
        assert name == "d" or float((update.A.grad @ F).abs().max()) < 1e-6  # type: ignore[operator]


def test_a_step_stacks_weights_and_gradient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two penalties, a transform and the record of the step look at them, and clipping changes the gradient."""
    draw = torch.Generator().manual_seed(0)

    def update() -> LowRank:
        return LowRank(torch.randn(2, 5, generator=draw), torch.randn(4, 2, generator=draw))

    past = UpdateHistory().append({"a": update(), "b": update()})
    drawn = {"a": update(), "b": update()}
    live = {name: LowRank(*map(torch.nn.Parameter, (one.A, one.B))) for name, one in drawn.items()}
    params = [p for one in live.values() for p in one.tensors.values()]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)
    method = replace(parse("ella+o-lora"), transforms=(ProjectOut(),))
    chain = Chain.build(params, live, past, method, task="t", max_norm=0.1, every=1)  # type: ignore[arg-type]
    (group,) = chain.groups
    assert (len(group.penalties), len(group.transforms)) == (2, 1)
    stacked, stack = [], torch.stack

    def counting(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
        stacked.append(tensors[0].data_ptr())
        return stack(tensors, dim)

    monkeypatch.setattr(torch, "stack", counting)
    chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None)
    for p in live["a"].tensors.values():
        assert p.grad is not None
        assert (stacked.count(p.data_ptr()), stacked.count(p.grad.data_ptr())) == (1, 1)
