"""The battery of methods that train something else than low-rank updates, on every family that they are made for.

Nothing here knows a form: it is opened, looked at and closed through `AdapterBackend` and `SequentialLearner` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny_runs
from everlora import parse
from everlora.adapters import make_backend
from everlora.learner.sequential import SequentialLearner
from everlora.runtime.seeds import seed_for
from plan import daily, pairs, planned

DIAGONAL = {"evaluation": {"schedule": "diagonal"}}
ROUNDING = 2e-5
"""Of a form in `DECOMPOSED`, in fp32."""
DECOMPOSED = {"osf"}
"""Forms that decompose a weight anew whenever they are attached: they sum to it but for rounding."""
NO_IDENTITY = {"osf", "prompt", "prompt-chain", "prompt-pool"}
"""Forms whose parameters change the model's answers before any training step."""
RENORMALISED = {"directions"}
"""Forms that store a finished task in other numbers than those it was trained in."""


def rounding(form: str, near: float) -> float:
    """How far two outputs of ``form`` may differ: ``near``, unless it decomposes the weights."""
    return ROUNDING if form in DECOMPOSED else near


VARIANTS = ("mtl(mode=full)", "per-task(mode=full)", "ewc(on=all)", "seqft(freeze_embeddings=true)")
"""Options that change what is trained, of methods that train low-rank updates without them."""

SHORT = {"lfpt5": "lfpt5(length=20,tries=4,text_length=12)"}
"""A prompt of 300 tokens and 64 written texts per task take long, and show no more of a form than few do."""
METHODS = (*(SHORT.get(method, method) for method in tiny_runs.OTHERS), *VARIANTS)


CASES = planned(PAIRS := pairs(METHODS), daily(PAIRS))
SEQUENTIAL = [case for case in CASES if parse(case.values[0]).regime == "sequence"]
everywhere = pytest.mark.parametrize(("method", "model"), CASES)
in_sequence = pytest.mark.parametrize(("method", "model"), SEQUENTIAL)


@dataclass
class Record:
    """One run of two tasks, with what was seen while it ran."""

    learner: SequentialLearner
    folder: Path
    began: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Outputs on every task known by then, with the form on the model and nothing trained yet."""
    ended: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    start: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """What is live when a task begins."""
    strays: list[str] = field(default_factory=list)
    """What trains and is neither live nor the head."""
    final: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)


def known(learner: SequentialLearner, model: str) -> dict[str, Tensor]:
    """Outputs of the model as it stands on those tasks that it can answer by now."""
    family, inside = learner.base.family, learner.backend.model or learner.base.model
    tasks = [t for t in tiny_runs.stream(model) if not family.head or set(t.labels) <= set(family.labels)]
    return {task.name: tiny_runs.outputs(inside, family, task) for task in tasks}


def flat(sites) -> dict[str, Tensor]:
    return {f"{place}.{key}": t.detach().clone() for place, site in sites.items() for key, t in site.tensors.items()}


def record_of(method: str, model: str, folder: Path) -> Record:
    last: list[str] = []

    def at_start(stage: str) -> None:
        learner = record.learner
        live = {id(t) for site in learner.backend.trainable().values() for t in site.tensors.values()}
        if learner.base.family.head:
            live |= {id(p) for n, p in learner.backend.model.named_parameters() if f"{learner.base.family.head}." in n}
        record.strays += [
            n for n, p in learner.backend.model.named_parameters() if p.requires_grad and id(p) not in live
        ]
        record.start[stage] = flat(learner.backend.trainable())
        record.began[stage] = known(learner, model)
        last.append(stage)

    def at_answer(_: str) -> None:
        if last and last[-1] not in record.ended:
            record.ended[last[-1]] = known(record.learner, model)

    record = Record(learner=None, folder=folder)  # type: ignore[arg-type]
    watch = tiny_runs.Watch(learning=at_start, answering=at_answer)
    record.learner = tiny_runs.begin(model, method, folder, progress=watch, **DIAGONAL)
    record.learner.follow(tiny_runs.stream(model))
    record.adapter = tiny_runs.adapter(record.learner)
    record.learner.inference_model()
    record.final = known(record.learner, model)
    record.learner.backend.detach()
    return record


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Give the one recorded run of a method on a model; look, do not touch."""
    found: dict[tuple[str, str], Record] = {}

    def get(method: str, model: str) -> Record:
        if (method, model) not in found:
            found[method, model] = record_of(method, model, tmp_path_factory.mktemp("form") / "run")
        return found[method, model]

    return get


def test_there_are_forms_on_every_family():
    assert {case.values[1] for case in CASES} == set(tiny_runs.MODELS)


@everywhere
def test_a_fresh_form_changes_nothing(method, model, seen):
    record = seen(method, model)
    loaded, stage = tiny_runs.fresh(model), next(iter(record.began))
    tasks = list(tiny_runs.stream(model)) if parse(method).regime == "joint" else list(tiny_runs.stream(model))[:1]
    loaded.family.prepare(loaded.model, tasks, torch.Generator().manual_seed(seed_for(0, 1, "head")))
    compared = 0
    for name, outputs in record.began[stage].items():
        task = next(t for t in tiny_runs.stream(model) if t.name == name)
        bare = tiny_runs.outputs(loaded.model, loaded.family, task)
        compared += 1
        if record.learner.backend.adapter.form not in NO_IDENTITY:
            assert torch.equal(outputs, bare), name
        else:
            assert outputs.isfinite().all()
    assert compared


@in_sequence
def test_a_task_starts_where_the_one_before_ended(method, model, seen):
    record, composed = seen(method, model), parse(method)
    start, end = record.began["second"].get("first"), record.ended["first"]["first"]
    assert not torch.allclose(end, record.began["first"]["first"], atol=1e-4), "nothing was learned"
    if composed.consolidator.rule == "continue" and composed.initialiser is None:
        # A head that has grown multiplies another shape, which may round otherwise.
        near = 1e-6 if record.learner.base.family.head else 0
        torch.testing.assert_close(start, end, rtol=0, atol=rounding(composed.adapter.form, near))
    elif (
        composed.consolidator.rule == "keep"
        and composed.adapter.form not in NO_IDENTITY
        and not record.learner.base.family.head
    ):
        assert torch.equal(start, record.began["first"]["first"]), "a task of its own starts from the base"


@everywhere
def test_all_that_trains_is_live_or_the_head(method, model, seen):
    """Whatever else trained would be lost on the way to the next task."""
    assert seen(method, model).strays == []


@everywhere
def test_the_base_is_untouched(method, model, seen):
    learner, pristine = seen(method, model).learner, dict(tiny_runs.base(model).model.named_parameters())
    assert learner.backend.model is None
    head = f"{learner.base.family.head}."
    now = {n: p for n, p in learner.base.model.named_parameters() if not n.startswith(head)}
    assert now.keys() == {n for n in pristine if not n.startswith(head)}
    for name, weight in now.items():
        assert torch.equal(weight, pristine[name]), name
        assert weight.dtype == pristine[name].dtype
    assert not any(p.requires_grad or p.grad is not None for p in learner.base.model.parameters())


@everywhere
def test_what_is_stored_is_what_was_learned(method, model, seen):
    record = seen(method, model)
    learner, stages = record.learner, record.learner.folder.stages()
    for folder in (stages[-1].path, record.folder):  # the root of the run is loadable, too
        sites, rest = learner.backend.load(folder)
        stored, learned = flat(sites), flat(learner.newest)
        assert stored.keys() == learned.keys()
        assert all(torch.equal(stored[name], learned[name]) for name in stored)
        head = learner.base.family.head
        assert bool(rest) == bool(head)
        for name, tensor in rest.items():
            assert torch.equal(tensor, record.adapter[name.removeprefix(f"{head}.")])
    started = record.start[list(record.start)[-1]]
    # A form may keep another thing than it trains (the change of a weight, say, of which factors are trained).
    assert any(
        name not in started or not torch.equal(t, started[name].cpu()) for name, t in flat(learner.newest).items()
    )


@everywhere
def test_what_is_written_is_read_back(method, model, seen):
    """Opened on a fresh model from what was stored, the form holds just that."""
    record = seen(method, model)
    loaded, stage, tasks = tiny_runs.fresh(model), record.learner.folder.stages()[-1], tiny_runs.stream(model)
    other = make_backend(loaded, {"r": 4, "lora_alpha": 8}, "auto", parse(method).adapter)
    loaded.family.prepare(loaded.model, list(tasks), torch.Generator())
    start, _ = other.load(stage.path)
    learns = tasks if parse(method).regime == "joint" else tasks[-1:]
    other.attach(seed=9, start=start, tasks=learns)
    now = flat(other.extract())
    for name, stored in ({} if other.adapter.form in RENORMALISED else flat(start)).items():
        held = now[name][tuple(slice(0, n) for n in stored.shape)]  # a form may have grown for the next task
        torch.testing.assert_close(held, stored, rtol=0, atol=rounding(other.adapter.form, 0))
    other.detach()
    assert other.model is None
    other.detach()  # once more does no harm


@everywhere
def test_kept_is_what_the_method_declares(method, model, seen):
    learner = seen(method, model).learner
    kept, rule = learner.storage(), learner.method.consolidator.rule
    whole = sum(t.numel() for t in flat(learner.newest).values())
    assert kept.adapter_elements == whole > 0
    stages = len(learner.folder.stages())
    assert kept.stored_elements == (
        whole if rule == "continue" else sum(s.numel for d in learner.past for s in d.values())
    )
    assert len(learner.past) == (0 if rule == "continue" else stages)
    assert kept.memory_bytes >= 4 * kept.stored_elements


@in_sequence
def test_an_unfinished_task_leaves_no_trace_and_is_learned_again(method, model, seen, tmp_path):
    """Cut off in the second task: in memory all is as before it, and a resumed run comes to the same end."""
    learner = tiny_runs.begin(model, method, tmp_path / "run", **DIAGONAL)
    learner.follow(tiny_runs.stream(model)[:1])
    learner.backend.detach()
    before = {n: p.detach().clone() for n, p in learner.base.model.named_parameters()}
    learned = flat(learner.newest)
    learner.progress = tiny_runs.Cut()
    with pytest.raises(KeyboardInterrupt):
        learner.follow(tiny_runs.stream(model))
    now = dict(learner.base.model.named_parameters())
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert not any(p.requires_grad for p in now.values())
    assert learner.backend.model is None
    assert all(torch.equal(t, learned[name]) for name, t in flat(learner.newest).items())
    assert [s.facts.name for s in learner.folder.stages()] == ["first"]
    # The streams of random numbers outside must not matter.
    torch.manual_seed(12345)
    again = tiny_runs.begin(model, method, tmp_path / "run", resume=True, **DIAGONAL)
    again.follow(tiny_runs.stream(model))
    whole = seen(method, model)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), whole.adapter) == 0
    assert again.storage() == whole.learner.storage()
    for file in whole.learner.backend.files:
        if file.endswith(".safetensors"):
            assert (tmp_path / "run" / file).read_bytes() == (whole.folder / file).read_bytes()


@everywhere
def test_a_finished_run_is_only_recalled(method, model, seen):
    def refuse(task):
        raise AssertionError(f"{task} is learned again")

    whole = seen(method, model)
    again = tiny_runs.begin(
        model, method, whole.folder, resume=True, progress=tiny_runs.Watch(learning=refuse), **DIAGONAL
    )
    again.follow(tiny_runs.stream(model))
    again.inference_model()
    now = known(again, model)
    assert now.keys() == whole.final.keys()
    assert all(torch.equal(now[name], outputs) for name, outputs in whole.final.items())
    if again.method.consolidator.rule == "continue" and again.method.merge is None:
        then = list(whole.ended.values())[-1]["second"]
        torch.testing.assert_close(now["second"], then, rtol=0, atol=rounding(again.backend.adapter.form, 0))


headed = pytest.mark.parametrize(
    ("method", "model"), [case for case in SEQUENTIAL if tiny_runs.base(case.values[1]).family.head]
)


@headed
def test_a_head_that_did_not_grow_comes_back_too(method, model, tmp_path):
    """The second task has the labels of the first, so that it trains on the very head that must come back."""
    first = tiny_runs.stream(model)[0]
    learner = tiny_runs.begin(model, method, tmp_path / "run", **DIAGONAL)
    learner.follow([first])
    learner.backend.detach()
    before = {n: p.detach().clone() for n, p in learner.base.model.named_parameters()}
    learner.progress = tiny_runs.Cut("again")
    with pytest.raises(KeyboardInterrupt):
        learner.follow([first, replace(first, name="again")])
    now = dict(learner.base.model.named_parameters())
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())


@headed
def test_the_head_is_trained_and_restored(method, model, seen, tmp_path):
    """Only rows of the labels that are being learned move; the interrupted run finds its head as it was."""
    heads = []

    def note(_):
        inside = learner.backend.model or learner.base.model
        name = learner.base.family.head
        rows = [p for n, p in inside.named_parameters() if f"{name}." in n and "original_module" not in n]
        heads.append((list(learner.base.family.labels), torch.cat([p.detach().reshape(len(p), -1) for p in rows], 1)))

    watch = tiny_runs.Watch(learning=note, answering=note)
    learner = tiny_runs.begin(model, method, tmp_path / "run", progress=watch, **DIAGONAL)
    learner.follow(tiny_runs.stream(model))
    for task, (labels, start), (_, end) in zip(tiny_runs.stream(model), heads[0:4:2], heads[1:4:2], strict=True):
        for k, label in enumerate(labels):
            if label in task.labels or not learner.method.outputs:  # comparing answers trains former labels, too
                assert torch.equal(start[k], end[k]) == (label not in task.labels), (task.name, label)
    if learner.method.consolidator.rule != "keep":
        assert torch.equal(heads[2][1][: len(heads[1][0])], heads[1][1]), "growing changed a row"
    _, rest = learner.backend.load(learner.folder.stages()[0].path)
    weight = next(t for name, t in rest.items() if name.endswith("weight"))
    assert torch.equal(weight, heads[1][1][:, : weight.shape[1]])
