"""What the optimiser is given: task gradient plus the closed form of the penalties, clipped as a sum, no graph."""

from __future__ import annotations

import json

import pytest
import torch

import tiny_runs
from everlora.training.alarms import change, collapse
from everlora.training.chain import Chain
from plan import crossed
from tiny_runs import MODELS

ELLA, ORTHOGONAL = 0.3, 0.01
STRONG = f"ella(lam={ELLA})+o-lora(lam={ORTHOGONAL})"


def written_out(learner, A, B):
    """Both penalties as the papers write them, module by module, in double precision."""
    total = torch.zeros((), dtype=torch.float64)
    for name, site in learner.backend.trainable().items():
        past = learner.past.factors(name)
        W = (past.B.double() @ past.A.double()).abs()
        delta = site.scale * B[name] @ A[name]
        total = total + ELLA * (delta * W / W.square().mean().sqrt()).square().sum()
        total = total + ORTHOGONAL * (past.A.double() @ A[name].T).abs().sum()
    return total


@crossed(model=MODELS, max_norm=[0.1, 1.0, 0.0])
def test_the_applied_gradient(model, max_norm, monkeypatch, tmp_path):
    real, steps = Chain.on_pre_optimizer_step, []

    def no_graph(_):
        raise AssertionError("a graph is being built")

    def spied(chain, args, state, control, **kwargs):
        assert args.max_grad_norm == 0, "clipping is ours"
        before = {id(p): p.grad.double().clone() for p in chain.params}
        with torch.autograd.graph.saved_tensors_hooks(no_graph, lambda x: x), torch.enable_grad():
            real(chain, args, state, control, **kwargs)
        steps.append(1)
        for p in chain.params:
            assert p.grad.grad_fn is None
            assert p.is_leaf
        if len(learner.past):
            live = learner.backend.trainable()
            A = {n: s.A.detach().double().requires_grad_() for n, s in live.items()}
            B = {n: s.B.detach().double().requires_grad_() for n, s in live.items()}
            value = written_out(learner, A, B)
            value.backward()
            for n, s in live.items():
                before[id(s.A)] += A[n].grad
                before[id(s.B)] += B[n].grad
            claimed = sum(v for k, v in chain.latest.items() if k.startswith("penalty/"))
            assert claimed == pytest.approx(value.item(), rel=1e-4)
            assert chain.latest["rho"] > 0
        norm = torch.stack([g.norm() for g in before.values()]).norm()
        factor = min(1.0, max_norm / float(norm)) if max_norm else 1.0
        for p in chain.params:
            torch.testing.assert_close(p.grad.double(), before[id(p)] * factor, rtol=1e-4, atol=1e-6)
        if max_norm:
            now = torch.stack([p.grad.double().norm() for p in chain.params]).norm()
            assert float(now) <= max_norm * (1 + 1e-5)

    monkeypatch.setattr(Chain, "on_pre_optimizer_step", spied)
    train = {"max_grad_norm": max_norm, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    learner = tiny_runs.begin(model, STRONG, tmp_path / "run", train=train)
    learner.follow(tiny_runs.stream(model))
    assert len(steps) == 2 * 3, "once per optimiser step, not per micro-batch"


def test_what_is_logged(recorded):
    stage = recorded("ella", "tiny-t5").learner.folder.stages()[1].path
    logs = [json.loads(line) for line in (stage / "training.jsonl").read_text().splitlines()]
    steps = [row for row in logs if "loss" in row]
    assert len(steps) == 3
    assert all({"task_grad_norm", "penalty/energy_overlap", "rho"} <= row.keys() for row in steps)
    assert steps[0]["penalty/energy_overlap"] == 0, "B is 0 at the first step"
    assert all(row["penalty/energy_overlap"] > 0 for row in steps[1:])
    modules = [json.loads(line) for line in (stage / "modules.jsonl").read_text().splitlines()]
    assert {row["module"] for row in modules} == set(recorded("ella", "tiny-t5").learner.newest)
    assert all({"step", "penalty", "rho", "update_norm"} <= row.keys() for row in modules)
    assert all(row["update_norm"] > 0 for row in modules if row["step"] > 1)


class Shrinking(tiny_runs.Watch):
    """Takes the second task's update away step by step, as a penalty that is far too strong would."""

    def __init__(self) -> None:
        super().__init__(learning=lambda task: setattr(self, "task", task))
        self.task = ""

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.task == "second":
            started = self.learner.adapter_start() or {}
            for name, site in self.learner.backend.trainable().items():
                if name in started:  # back to where it began, nearly: a fresh B began at 0
                    site.A.data.copy_(started[name].A)
                begin = started[name].B if name in started else torch.zeros_like(site.B)
                site.B.data.lerp_(begin, 0.999)


@pytest.mark.parametrize(("method", "warned"), [("ella", True), ("ella(policy=continue)", True), ("inclora", False)])
def test_a_collapsed_update_is_said_and_recorded(method, warned, tmp_path):
    progress = Shrinking()
    progress.learner = tiny_runs.begin("tiny-bert", method, tmp_path / "run", progress=progress)
    progress.learner.follow(tiny_runs.stream("tiny-bert"))
    first, second = (stage.facts.warning for stage in progress.learner.folder.stages())
    assert first is None
    assert (second is not None) == warned
    assert any("collapsed" in line and "second" in line for line in progress.warnings) == warned


def test_collapse_needs_a_past_and_a_fall(recorded):
    from everlora.core.updates import LowRank

    first, second = recorded("ella", "tiny-bert").learner.past.deltas
    one, two = change(first, None), change(second, None)
    assert one == pytest.approx(sum(float(site.dense().norm()) ** 2 for site in first.values()) ** 0.5, rel=1e-5)
    assert collapse(two, []) == []
    assert collapse(two, [one]) == []
    tiny = {name: LowRank(site.A, 1e-3 * site.B, site.scale) for name, site in first.items()}
    assert "collapsed" in collapse(change(tiny, None), [one])[0]
    assert collapse(0.06, [1e-3, 1.0, 1e3]) == []
    assert "that of earlier tasks 1;" in collapse(0.04, [1e3, 1e-3, 1.0])[0], "the middle one counts"


def test_the_change_of_an_adapter_that_goes_on_is_what_it_moved(recorded):
    first, second = recorded("ella", "tiny-bert").learner.past.deltas
    moved = sum(float((second[name].dense() - first[name].dense()).norm()) ** 2 for name in first) ** 0.5
    assert change(second, first) == pytest.approx(moved, rel=1e-5)
    assert change(first, first) == pytest.approx(0, abs=1e-6 * moved)


@pytest.mark.parametrize("method", ["ella", "ella(policy=continue)"])
def test_a_resumed_run_knows_how_much_earlier_tasks_changed(method, tmp_path):
    whole = tiny_runs.train_sequence("tiny-bert", method, tmp_path / "run")
    again = tiny_runs.begin("tiny-bert", method, tmp_path / "run", resume=True)
    again.follow(tiny_runs.stream("tiny-bert"))
    assert len(whole.changes) == 2
    assert again.changes == whole.changes
