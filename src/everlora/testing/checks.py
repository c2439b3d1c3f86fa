"""Defines the checks of the battery: what must hold of every method of low-rank updates, on every model family."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from everlora.adapters import files as adapters
from everlora.core.expressions import parse
from everlora.core.history import UpdateHistory
from everlora.core.method import Method
from everlora.core.registry import entries, entry
from everlora.learner.sequential import SequentialLearner
from everlora.testing import tiny_runs
from everlora.testing.record import Record
from everlora.training.chain import Chain
from everlora.training.group import added, by_blocks, norms, scaled

DIAGONAL: dict[str, Any] = {"evaluation": {"schedule": "diagonal"}}
CLOSE = 1e-4
"""AdamW divides by the gradient's own size, so rounding shows where a gradient is nearly 0; its steps are of 5e-3."""

STEP, OFF = 1e-6, 1e-3
"""A step along a direction, and how far from the gradient the difference quotient may be, of both their norms."""


@dataclass(frozen=True)
class Case:
    """Holds one method on one tiny model.

    >>> from everlora.testing import record_run
    >>> run = record_run("inclora", "tiny-bert", Path("run"))
    >>> a_new_adapter_changes_nothing(Case("inclora", "tiny-bert", lambda method, model: run, Path("empty")))

    Attributes:
        method: the expression.
        model: the model's name.
        recorded: gives the recorded run of a method on a model; to be looked at, not touched.
        folder: an empty folder.
    """

    method: str
    model: str
    recorded: Callable[[str, str], Record]
    folder: Path

    @property
    def composed(self) -> Method:
        return parse(self.method)

    @property
    def record(self) -> Record:
        return self.recorded(self.method, self.model)


def a_new_adapter_changes_nothing(case: Case) -> None:
    """At the start of a task the model answers as it does with the new adapter off."""
    record, method = case.record, case.composed
    fresh = method.adapter.policy == "new" and method.initialiser is None
    for stage, facts in record.began.items():
        if fresh or stage == next(iter(record.began)):
            for task, outputs in facts["outputs"].items():
                assert torch.equal(outputs, facts["below"][task])


def a_task_starts_where_the_one_before_ended(case: Case) -> None:
    """Outputs at the start of the second task are those at the end of the first."""
    record, method = case.record, case.composed
    if method.initialiser:
        return  # may move the function at once
    start, end = record.began["second"]["outputs"].get("first"), record.ended["first"]["first"]
    rule = method.consolidator.rule
    if rule == "continue":
        # A head that has grown multiplies another shape, which may round otherwise.
        torch.testing.assert_close(start, end, rtol=0, atol=1e-6 if record.learner.base.family.head else 0)
    elif rule == "sum":
        torch.testing.assert_close(start, end, rtol=1e-5, atol=5e-6)
        assert not torch.allclose(end, record.began["first"]["outputs"]["first"], atol=1e-4), "nothing was learned"
    elif not record.learner.base.family.head:
        assert start is not None
        assert torch.equal(start, record.began["first"]["outputs"]["first"])


def one_adapter_named_default_and_nothing_else_trains(case: Case) -> None:
    """PEFT holds one adapter, and only it and a classification head are trainable."""
    record = case.record
    head = record.learner.base.family.head
    for facts in record.began.values():
        assert facts["active"] == facts["adapters"] == ["default"]
        for name in facts["trainable"]:
            assert ".default" in name
            assert "lora_" in name or (head and f"{head}.modules_to_save" in name)


def the_base_is_untouched_but_for_what_was_folded(case: Case) -> None:
    """After a run the base weights are what they were, plus the folded updates where a method sums them."""
    record = case.record
    learner, pristine = record.learner, dict(tiny_runs.base(case.model).model.named_parameters())
    assert learner.backend.model is None
    adapted = {f"{name}.weight": name for name in learner.newest or {}}
    head = f"{learner.base.family.head}."
    now = dict(learner.base.model.named_parameters())
    assert {n for n in now if not n.startswith(head)} == {n for n in pristine if not n.startswith(head)}
    for name, weight in now.items():
        if name.startswith(head):
            continue
        assert not weight.requires_grad
        if name in adapted and case.composed.consolidator.rule == "sum":
            torch.testing.assert_close(weight - pristine[name], _carried(learner, adapted[name]), rtol=1e-4, atol=2e-7)
        else:
            assert torch.equal(weight, pristine[name]), name


def what_is_stored_is_what_was_learned(case: Case) -> None:
    """The task's folder holds the adapter that was trained, and the root what answers."""
    record = case.record
    newest: Any = record.learner.newest
    sites, rest = adapters.read(record.learner.folder.stages()[-1].path)
    assert adapters.equal(sites, newest)
    head = record.learner.base.family.head
    for name, tensor in rest.items():
        assert torch.equal(tensor, record.adapter[name.removeprefix(f"{head}.")])
    assert bool(rest) == bool(head)
    exported, _ = adapters.read(record.folder)
    for name, site in exported.items():
        summed = record.learner.method.consolidator.rule == "sum"
        expected = _carried(record.learner, name) if summed else sites[name].dense()
        torch.testing.assert_close(site.dense(), expected, rtol=1e-6, atol=1e-8)


def strength_zero_is_the_base_method_bit_for_bit(case: Case) -> None:
    """With every penalty's ``lam`` at 0 the method is the one without penalties; with its own strength it is not."""
    full = case.composed
    penalties: Any = full.penalties
    assert all("lam" in {f.name for f in fields(p)} for p in penalties), "a penalty without a field lam"
    zero = replace(full, penalties=tuple(replace(p, lam=0.0) for p in penalties))
    none = replace(full, penalties=())
    known = [e.name for e in entries() if parse(e.name).adapter.low_rank and parse(e.name).regime == "sequence"]
    same = [name for name in known if replace(none, name=parse(name).name) == parse(name)]
    if same:
        plain = case.recorded(same[0], case.model).adapter
    else:
        plain = tiny_runs.adapter(
            tiny_runs.train_sequence(case.model, none.named("none"), case.folder / "none", **DIAGONAL)
        )
    off = tiny_runs.train_sequence(case.model, zero, case.folder / "zero", **DIAGONAL)
    assert tiny_runs.largest_difference(tiny_runs.adapter(off), plain) == 0
    assert tiny_runs.largest_difference(case.record.adapter, plain) > 0, "the penalty does nothing"


def the_gradient_of_a_penalty_is_that_of_its_value(case: Case) -> None:
    """Around a place drawn at random a penalty's value changes as its gradient says, in fp64, on every module."""
    learner = case.record.learner
    newest: Any = learner.newest
    draw = torch.Generator().manual_seed(0)
    start = newest if learner.method.consolidator.rule == "continue" else None
    past = learner.past if start is None else UpdateHistory((newest,))
    chain = Chain.build(
        [], newest, past, learner.method, task="", max_norm=0, every=1, start=start, memory=learner.memory
    )
    for group in chain.groups:
        here = group.before.weights.map(lambda t: torch.randn(t.shape, generator=draw).double())
        for part, constants in group.penalties:
            state = {key: c.double() if c.is_floating_point() else c for key, c in constants.items()}
            found = part.value_and_grad(here, state).gradient
            of_one = by_blocks(part, here, state, at_once=1).gradient  # as large modules are computed
            assert all(torch.allclose(of_one[key], g, rtol=1e-9, atol=0) for key, g in found.items()), (
                f"{part.name!r} says that each module stands by itself, and what it says of one depends on others"
            )
            aside = {key: torch.randn(g.shape, generator=draw).double() for key, g in found.items()}
            for way in (found, aside):
                step = scaled(way, STEP / norms(way).double().clamp_min(1e-30))
                up, down = (
                    part.value_and_grad(here.holding({**here.tensors, **moved}), state).value
                    for moved in (added(step, here.tensors), added(scaled(step, torch.tensor(-1.0)), here.tensors))
                )
                expected = 2 * sum((found[key] * step[key]).flatten(1).sum(1) for key in found)
                wrong = (up - down - expected).abs() > OFF * STEP * norms(found)
                assert not wrong.any(), f"{part.name!r}: its gradient is not that of its value"


def kept_is_what_the_method_declares(case: Case) -> None:
    """Elements and bytes that are kept are those that consolidator and parts declare."""
    record = case.record
    learner, kept, rule = record.learner, record.learner.storage(), record.learner.method.consolidator
    if learner.method.regime == "frozen":
        assert kept.plain() == {"stored_elements": 0, "adapter_elements": 0, "memory_bytes": 0}
        return
    newest: Any = learner.newest
    stages = 1 if learner.method.regime == "joint" else 2
    assert kept.stored_elements == rule.stored_elements(stages, kept.adapter_elements)
    assert kept.adapter_elements == sum(t.numel() for s in newest.values() for t in s.tensors.values())
    declared = sum(
        part.memory_bytes(out, into, site.rank, 1 if rule.rule == "continue" else stages)
        for part in learner.method.remembering
        for site in newest.values()
        for out, into in [site.shape]
    )
    rows = [row for task in learner.stored_rows for row in task.train]
    assert kept.stored_rows == len(rows)
    assert bool(rows) <= all(entry(name).replay for name in [case.composed.name] if "+" not in name)
    held = kept.memory_bytes - 4 * kept.stored_elements - kept.stored_row_bytes
    bounded = any(part.needs.memory_at_most for part in learner.method.remembering)
    assert 0 < held <= declared if bounded else held == declared


def interrupted_and_resumed_equals_uninterrupted(case: Case) -> None:
    """A run cut off in the midst of its second task and resumed ends with the same bytes as one that was not."""
    tasks, folder = tiny_runs.stream(case.model), case.folder / "run"
    first = tiny_runs.begin(case.model, case.method, folder, progress=tiny_runs.Cut(), **DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        first.follow(tasks)
    assert [s.facts.name for s in first.folder.stages()] == ["first"]
    # The streams of random numbers outside must not matter.
    torch.manual_seed(12345)
    again = tiny_runs.begin(case.model, case.method, folder, resume=True, **DIAGONAL)
    matrix, uninterrupted = again.follow(tasks), case.record
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), uninterrupted.adapter) == 0
    assert again.storage() == uninterrupted.learner.storage()
    there = json.loads((uninterrupted.folder / "matrix.json").read_text())["matrix"]
    assert [list(row) for row in matrix.cells] == there
    root, other = ((p / "adapter_model.safetensors").read_bytes() for p in (folder, uninterrupted.folder))
    assert root == other


def a_batch_in_one_piece_is_a_batch_in_eight(case: Case) -> None:
    """Eight rows at once, or one by one with accumulation: the same adapter but for rounding and directions' signs."""
    train = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    pieces = tiny_runs.train_sequence(
        case.model, case.method, case.folder / "run", train=train, evaluation={"schedule": "final"}
    )
    in_one = case.record.adapter
    assert tiny_runs.largest_difference(tiny_runs.with_signs_of(in_one, tiny_runs.adapter(pieces)), in_one) < CLOSE


def _carried(learner: SequentialLearner, name: str) -> Tensor:
    """Return what answers on top of W0 at one module: the sum of the updates, or what they are merged into."""
    merge = learner.method.merge
    return merge.merge(delta[name].dense() for delta in learner.past) if merge else learner.past.total(name)


@dataclass(frozen=True)
class Check:
    """Holds a check, and the methods to which it applies."""

    look: Callable[[Case], None]
    applies: Callable[[Method], bool]


def _all(method: Method) -> bool:
    return True


def _trained(method: Method) -> bool:
    return method.regime != "frozen"


def _sequential(method: Method) -> bool:
    return method.regime == "sequence"


def _penalised(method: Method) -> bool:
    return bool(method.penalties)


CHECKS = {
    check.__name__: Check(check, applies)
    for check, applies in (
        (a_new_adapter_changes_nothing, _trained),
        (a_task_starts_where_the_one_before_ended, _sequential),
        (one_adapter_named_default_and_nothing_else_trains, _trained),
        (the_base_is_untouched_but_for_what_was_folded, _all),
        (what_is_stored_is_what_was_learned, _trained),
        (strength_zero_is_the_base_method_bit_for_bit, _penalised),
        (the_gradient_of_a_penalty_is_that_of_its_value, _penalised),
        (kept_is_what_the_method_declares, _all),
        (interrupted_and_resumed_equals_uninterrupted, _sequential),
        (a_batch_in_one_piece_is_a_batch_in_eight, _trained),
    )
}
"""By name; each with the methods to which it applies."""
