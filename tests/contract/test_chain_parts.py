"""What the gradient chain does in whole runs: steps off the old subspaces, and strengths that find themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import tiny_runs
from everlora import parse
from everlora.core.history import UpdateHistory
from everlora.core.roles import AutoStrength
from everlora.core.updates import LowRank
from everlora.parts.penalties import EnergyOverlap
from everlora.parts.subspace import basis
from everlora.training.chain import Chain

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}
SGD = {"train": {"optim": "sgd", "learning_rate": 0.5}, "lora": {"target_modules": ["v_proj"]}}
"""Query projections hardly move under it, so that rounding would show."""
PLAIN, TRIPLETS = "inclora+project-out(strict={})", "b-cl(strict={})"


def learned_from(method, folder, model="tiny-llama", **settings):
    """A run of three tasks, and where the third began."""
    start = {}
    watch = tiny_runs.Watch(learning=lambda task: start.update(learner.backend.extract() if task == "third" else {}))
    learner = tiny_runs.begin(model, method, folder, progress=watch, **DIAGONAL, **settings)
    learner.follow(tiny_runs.stream(model, 3))
    return learner, start


def overlap(learner, start):
    """Per side, the largest share of the third task's change that lies in the span of the first two."""
    shares = {"U": [], "V": []}
    for name, site in learner.newest.items():
        past = [delta[name] for delta in learner.past.deltas[:2]]
        for side, old, change in (
            ("U", [u.B for u in past], site.B - start[name].B),
            ("V", [u.A.mT for u in past], (site.A - start[name].A).mT),
        ):
            assert change.norm() > 0
            Q = basis(torch.cat(old, -1).double())
            shares[side].append(float((Q.mT @ change.double()).norm() / change.double().norm()))
    return shares


@pytest.mark.parametrize(("form", "model"), [(PLAIN, "tiny-llama"), (TRIPLETS, "tiny-bert")])
def test_a_strict_step_of_adam_stays_off_the_old_subspaces(model, form, tmp_path):
    strict, loose = (overlap(*learned_from(form.format(s), tmp_path / s, model)) for s in ("yes", "no"))
    assert max(strict["U"] + strict["V"]) < 1e-5
    assert min(loose["U"] + loose["V"]) > 1e-3


@pytest.mark.parametrize("form", [PLAIN, TRIPLETS])
def test_under_plain_sgd_the_projected_gradient_is_enough(form, tmp_path):
    projected, free = (
        overlap(*learned_from(method, tmp_path / method[-6:], **SGD))
        for method in (form.format("no"), "inclora" if form == PLAIN else "nlnb-cl")
    )
    assert max(projected["U"] + projected["V"]) < 1e-5
    assert min(free["U"] + free["V"]) > 1e-3


def test_literal_projection_turns_around_what_two_old_tasks_share(tmp_path):
    """Tasks that start as copies share directions; taken out twice, those come back with the other sign."""
    copies = "copy-layers+project-out(projection={},strict=yes)"
    joint, literal = (learned_from(copies.format(form), tmp_path / form) for form in ("joint", "literal"))
    for name, site in joint[0].past.deltas[1].items():
        torch.testing.assert_close(site.A, literal[0].past.deltas[1][name].A, rtol=0, atol=1e-6)
    assert max(overlap(*joint)["V"]) < 1e-5
    assert min(overlap(*literal)["V"]) > 1e-2


@pytest.mark.parametrize("strict", ["yes", "no"])
def test_sigma_is_not_projected(strict, tmp_path):
    """One step without clipping: σ moves as it would without any projection, U and V do not."""
    train = {"max_steps": 1, "max_grad_norm": 0.0}
    projected, free = (
        tiny_runs.train_sequence("tiny-llama", method, tmp_path / method[:4], train=train, **DIAGONAL).newest
        for method in (f"b-cl(strict={strict})", "nlnb-cl")
    )
    for name, site in projected.items():
        assert torch.equal(site.sigma, free[name].sigma)
        assert (site.sigma != 0).all()
        assert not torch.equal(site.A, free[name].A)
        assert not torch.equal(site.B, free[name].B)


@pytest.mark.parametrize(
    ("method", "warned"),
    [("b-cl", 4), ("b-cl(projection=literal)", 4), ("inclora+project-out(strict=yes)", 4), ("nlnb-cl", 0)],
)
def test_a_warning_comes_before_the_room_runs_out(method, warned, tmp_path):
    """The value projection has 32 outputs: rank 8 fills it in four tasks, and the third is warned."""
    watch, lora = tiny_runs.Watch(), {"r": 8, "lora_alpha": 16}
    tasks = [task.take(8, 1) for task in tiny_runs.stream("tiny-llama", 6)]
    learner = tiny_runs.begin("tiny-llama", method, tmp_path / "run", progress=watch, lora=lora, **DIAGONAL)
    learner.follow(tasks)
    found = [line for line in watch.warnings if "directions are left" in line]
    assert len(found) == warned
    for line, (task, left) in zip(found, [("third", 16), ("task4", 8), ("task5", 0), ("task6", 0)], strict=False):
        assert line.startswith(f"task {task!r}: {left} directions are left in ")
        assert "v_proj" in line
        assert f"room for {left // 8} more tasks of rank 8" in line


def training(learner):
    return [
        json.loads(line) for line in (learner.folder.stages()[-1].path / "training.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize(
    ("method", "model"),
    [
        *(("ella(lam=auto,rho=0.25)", model) for model in tiny_runs.MODELS),
        ("ps-lora(rho=0.25)", "tiny-llama"),
        ("ella(lam=auto,rho=0.25,policy=continue)", "tiny-bert"),
    ],
)
def test_the_strength_found_is_the_share_of_the_gradient_asked_for(method, model, tmp_path):
    """After every step λ Σ‖∇Ω‖ / Σ‖∇L‖ = ρ, and the last λ stands in the task's COMMIT."""
    learner = tiny_runs.train_sequence(model, method, tmp_path / "run", train={"max_steps": 5}, **DIAGONAL)
    (part,) = learner.method.penalties
    steps = [row for row in training(learner) if "rho" in row]
    assert len(steps) == 5
    task, pull, found = 0.0, 0.0, []
    for row in steps:
        lam, norm = row[f"lam/{part.name}"], row["adapter_grad_norm"]
        assert norm < row["task_grad_norm"] if learner.base.family.head else norm == row["task_grad_norm"]
        task += norm
        if lam:
            pull += row["rho"] * norm / lam
            found.append(lam * pull / task)
    assert found == pytest.approx([0.25] * 4, rel=1e-4)  # at the first step of a task ΔW = 0, and nothing pulls
    first, last = (stage.facts.strengths for stage in learner.folder.stages())
    assert first == {}
    assert last == {part.name: steps[-1][f"lam/{part.name}"]}


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_every_module_may_find_its_own_strength(model, tmp_path):
    learner = tiny_runs.train_sequence(model, "ella(lam=auto,per_module=yes)", tmp_path / "run", **DIAGONAL)
    found = learner.folder.stages()[-1].facts.strengths["energy_overlap"]
    assert found.keys() == learner.newest.keys()
    assert len(set(found.values())) == len(found)
    assert all(0 < lam < float("inf") for lam in found.values())


def made(rng):
    shapes = {"q": (6, 5), "k": (6, 5), "v": (3, 5)}
    draw = partial(torch.randn, generator=rng)
    return {n: LowRank(draw(2, i), draw(o, 2), 0.5) for n, (o, i) in shapes.items()}


@pytest.mark.parametrize("per_module", [False, True])
def test_what_the_chain_adds_is_the_share_worked_out_by_hand(per_module):
    rng = torch.Generator().manual_seed(0)
    past, live, part = made(rng), made(rng), EnergyOverlap(lam=AutoStrength(rho=0.2, per_module=per_module))
    live = {n: s.map(torch.nn.Parameter) for n, s in live.items()}
    params = [p for s in live.values() for p in s.tensors.values()]
    method = replace(parse("inclora"), penalties=(part,))
    chain = Chain.build(params, live, UpdateHistory((past,)), method, task="second", max_norm=0.0, every=1)
    task, pull = (dict.fromkeys(live, 0.0) for _ in range(2))
    for step in range(3):
        own, wanted = {}, {}
        for name, site in live.items():
            D = (site.B @ site.A * site.scale).detach()
            pi = 2 * site.scale * D * past[name].dense() ** 2
            wanted[name] = (site.B.mT @ pi).detach(), (pi @ site.A.mT).detach()
            own[name] = torch.randn(site.A.shape, generator=rng), torch.randn(site.B.shape, generator=rng)
            site.A.grad, site.B.grad = own[name][0].clone(), own[name][1].clone()
        size = {
            k: {n: sum(t.square().sum() for t in pair) for n, pair in of.items()}
            for k, of in (("g", own), ("p", wanted))
        }
        for name in live:
            for into, of in ((task, size["g"]), (pull, size["p"])):
                into[name] += float(of[name] if per_module else sum(of.values())) ** 0.5
        chain.on_pre_optimizer_step(None, SimpleNamespace(global_step=step), None)
        for name, site in live.items():
            lam = 0.2 * task[name] / pull[name]
            torch.testing.assert_close(site.A.grad, own[name][0] + lam * wanted[name][0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(site.B.grad, own[name][1] + lam * wanted[name][1], rtol=1e-4, atol=1e-5)
            site.A.data.add_(site.A.grad, alpha=-0.1)
        found = chain.strengths()["energy_overlap"]
        for name in live:
            lam = found[name] if per_module else found
            assert lam == pytest.approx(0.2 * task[name] / pull[name], rel=1e-5)


@dataclass(frozen=True, kw_only=True)
class Louder(EnergyOverlap):
    """The energy of every module times a constant."""

    factor: float = 1.0

    def prepare(self, before):
        state = super().prepare(before)
        return state and {**state, "squared": state["squared"] * self.factor**2}


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_the_size_of_the_past_does_not_matter_to_a_strength_that_is_found(model, tmp_path):
    ella = parse("ella(lam=auto)")
    one, loud = (
        tiny_runs.train_sequence(
            model,
            replace(ella, penalties=(Louder(lam=AutoStrength(rho=0.5), factor=c),)),
            tmp_path / str(c),
            **DIAGONAL,
        )
        for c in (1.0, 100.0)
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(one), tiny_runs.adapter(loud)) < 1e-5
    lams = [learner.folder.stages()[-1].facts.strengths["energy_overlap"] for learner in (one, loud)]
    assert lams[0] / lams[1] == pytest.approx(1e4, rel=1e-3)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_scalings_of_the_energy_are_one_where_every_module_finds_its_strength(model, tmp_path):
    raw, rms, top = (
        tiny_runs.adapter(
            tiny_runs.train_sequence(
                model, f"ella(lam=auto,rho=0.5,per_module=yes,energy={energy})", tmp_path / energy, **DIAGONAL
            )
        )
        for energy in ("raw", "rms", "max")
    )
    assert tiny_runs.largest_difference(raw, rms) < 1e-5
    assert tiny_runs.largest_difference(raw, top) < 1e-5
    together = tiny_runs.adapter(
        tiny_runs.train_sequence(model, "ella(lam=auto,rho=0.5,energy=raw)", tmp_path / "one", **DIAGONAL)
    )
    assert tiny_runs.largest_difference(raw, together) > 1e-4


@pytest.mark.parametrize(
    ("method", "base"),
    [
        ("ella(lam=auto,rho=0)", "inclora"),
        ("ella(lam=auto,rho=0,per_module=yes)", "inclora"),
        ("ps-lora(rho=0,merge=no)", "inclora"),
        ("ella(policy=continue,lam=0)", "seqlora"),
        ("ella(policy=continue,lam=auto,rho=0)", "seqlora"),
        ("b-cl(gamma=0)+o-lora(lam=0)", "b-cl(gamma=0)"),
    ],
)
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_no_share_is_no_penalty_bit_for_bit(model, method, base, recorded, tmp_path):
    off = tiny_runs.train_sequence(model, method, tmp_path / "off", **DIAGONAL)
    if "(" in base:
        plain = tiny_runs.adapter(tiny_runs.train_sequence(model, base, tmp_path / "plain", **DIAGONAL))
    else:
        plain = recorded(base, model).adapter
    assert tiny_runs.largest_difference(tiny_runs.adapter(off), plain) == 0


@pytest.mark.parametrize("model", ["tiny-llama"])
def test_a_dense_store_of_the_past_is_its_factors(model, tmp_path):
    """Over three tasks; eight bits differ, but little."""
    tasks = tiny_runs.stream(model, 3)
    factors, dense, svd, int8 = (
        tiny_runs.adapter(tiny_runs.train_sequence(model, f"ella(store={store})", tmp_path / store, tasks, **DIAGONAL))
        for store in ("factors", "dense", "svd", "int8")
    )
    assert tiny_runs.largest_difference(factors, dense) < 1e-5
    assert tiny_runs.largest_difference(factors, svd) < 1e-5  # rank 8 holds two tasks of rank 4
    assert (
        0 < sum(float((factors[n] - int8[n]).norm()) for n in factors) < 0.01 * sum(map(torch.norm, factors.values()))
    )
