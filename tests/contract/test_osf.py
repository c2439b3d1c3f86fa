"""OSF run through on PEFT's own tuner: decomposition, projection, and a weight that goes from task to task."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.osf.layer import OSFLayer

import tiny_runs
from everlora import parse
from everlora.adapters import make_backend
from everlora.core.errors import ConfigError, ModelError
from tiny_runs import MODELS

by_model = pytest.mark.parametrize("model", MODELS)
DIAGONAL = {"schedule": "diagonal", "scoring": "labels"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    known = {}

    def get(model):
        if model in known:
            return known[model]
        notes, first = {}, tiny_runs.stream(model)[0]

        def note(word):
            def look(task):
                notes.setdefault((task, word), tiny_runs.outputs(learner.backend.model, learner.base.family, first))

            return look

        watch = tiny_runs.Watch(learning=note("start"), answering=note("end"))
        learner = tiny_runs.begin(
            model, "osf", tmp_path_factory.mktemp("run") / "run", progress=watch, evaluation=DIAGONAL
        )
        learner.follow(tiny_runs.stream(model))
        known[model] = learner, notes
        return learner, notes

    return get


def opened(model, **lora):
    loaded = tiny_runs.fresh(model)
    loaded.family.prepare(loaded.model, tiny_runs.stream(model)[:1], torch.Generator().manual_seed(0))
    carrier = make_backend(loaded, lora, "auto", parse("osf").adapter)
    return loaded, carrier


def frozen_bases(carrier):
    """The frozen left and right singular directions of each weight, (o, q) and (q, i)."""
    found = {}
    for name, layer in carrier.model.named_modules():
        if isinstance(layer, OSFLayer):
            U, _, V = torch.linalg.svd(carrier.layers[name].weight.detach(), full_matrices=False)
            q = layer.effective_rank["default"]
            found[name] = U[:, :q], V[:q]
    return found


@by_model
def test_the_decomposition_is_the_weight(model):
    loaded, carrier = opened(model)
    task = tiny_runs.stream(model)[0]
    before = tiny_runs.outputs(loaded.model, loaded.family, task)
    inside = carrier.attach(seed=0, tasks=[task])
    torch.testing.assert_close(tiny_runs.outputs(inside, loaded.family, task), before, rtol=0, atol=1e-5)
    for name, (U, V) in frozen_bases(carrier).items():
        low, weight = carrier.trainable()[name].tensors, carrier.layers[name].weight
        whole = U @ (U.mT @ weight @ V.mT) @ V + (low["U_low"] * low["S_low"]) @ low["V_low"]
        torch.testing.assert_close(whole, weight, rtol=0, atol=2e-6)
    assert all(float(site.norm()) < 1e-6 for site in carrier.extract().values())
    carrier.detach()
    assert torch.equal(tiny_runs.outputs(loaded.model, loaded.family, task), before)


@by_model
def test_gradients_are_off_the_frozen_directions(model):
    loaded, carrier = opened(model)
    task = tiny_runs.stream(model)[0]
    inside = carrier.attach(seed=0, tasks=[task])
    for _ in range(2):  # accumulated
        logits, targets = loaded.family.logits(
            inside, loaded.family.collate([loaded.family.features(row, task) for row in task.train[:4]])
        )
        torch.nn.functional.cross_entropy(logits, targets).backward()
    for name, (U, V) in frozen_bases(carrier).items():
        factors = carrier.trainable()[name].tensors
        for grad, meets in (
            (factors["U_low"].grad, U.mT @ factors["U_low"].grad),
            (factors["V_low"].grad, factors["V_low"].grad @ V.mT),
        ):
            assert float(grad.norm()) > 0
            assert float(meets.norm()) < 1e-5 * float(grad.norm()) + 1e-9
    carrier.detach()


def test_the_frozen_part_of_a_weight_stays_under_sgd(tmp_path):
    """U_highᵀ W V_highᵀ = S_high, and nothing else meets the frozen directions, after steps as before them."""
    train = {"optim": "sgd", "learning_rate": 0.5}
    learner = tiny_runs.train_sequence(
        "tiny-llama", "osf", tmp_path / "run", train=train, tasks=tiny_runs.stream("tiny-llama")[:1]
    )
    _, carrier = opened("tiny-llama")
    carrier.attach(seed=0)
    for name, (U, V) in frozen_bases(carrier).items():
        change = learner.newest[name].tensors["change"]
        assert float(change.norm()) > 1e-4
        assert float((U.mT @ change).norm()) < 1e-3 * float(change.norm())
        assert float((change @ V.mT).norm()) < 1e-3 * float(change.norm())
    carrier.detach()


@by_model
def test_a_task_starts_where_the_last_ended(model, seen):
    learner, notes = seen(model)
    torch.testing.assert_close(notes["second", "start"], notes["first", "end"], rtol=0, atol=1e-5)
    assert not torch.allclose(notes["first", "start"], notes["first", "end"], atol=1e-4), "nothing was learned"
    final = tiny_runs.outputs(learner.inference_model(), learner.base.family, tiny_runs.stream(model)[0])
    learner.backend.detach()
    assert not torch.allclose(final, notes["first", "end"], atol=1e-4), "the second task is not there"
    torch.testing.assert_close(final, notes["second", "end"], rtol=0, atol=1e-5)  # both tasks' changes


@by_model
def test_the_base_is_untouched_and_what_is_stored_is_what_was_learned(model, seen):
    learner, _ = seen(model)
    head = f"{learner.base.family.head}."
    now = dict(learner.base.model.named_parameters())
    for name, weight in tiny_runs.base(model).model.named_parameters():
        if not name.startswith(head):
            assert torch.equal(now[name], weight)
            assert not now[name].requires_grad
    for folder in (learner.folder.path, learner.folder.stages()[-1].path):
        sites, rest = learner.backend.load(folder)
        assert sites.keys() == learner.newest.keys()
        assert all(torch.equal(s.tensors["change"], learner.newest[n].tensors["change"]) for n, s in sites.items())
        assert bool(rest) == bool(learner.base.family.head)
    assert learner.storage().stored_elements == sum(site.numel for site in learner.newest.values())


@by_model
def test_a_cut_run_leaves_no_trace_and_resumes_to_the_bit(model, seen, tmp_path):
    whole, _ = seen(model)
    cut = tiny_runs.begin(model, "osf", tmp_path / "run", progress=tiny_runs.Cut(), evaluation=DIAGONAL)
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tiny_runs.stream(model))
    pristine, head = dict(tiny_runs.base(model).model.named_parameters()), f"{whole.base.family.head}."
    for name, weight in cut.base.model.named_parameters():
        if not name.startswith(head):
            assert torch.equal(weight, pristine[name])
    resumed = tiny_runs.begin(model, "osf", tmp_path / "run", resume=True, evaluation=DIAGONAL)
    resumed.follow(tiny_runs.stream(model))
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0


def test_splits_of_a_batch_are_one(tmp_path):
    found = []
    for size, steps in ((8, 1), (2, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        train = {**split, "optim": "sgd", "learning_rate": 0.5}
        found.append(
            tiny_runs.adapter(tiny_runs.train_sequence("tiny-llama", "osf", tmp_path / str(size), train=train))
        )
    assert tiny_runs.largest_difference(*found) < 2e-6


def test_bf16_weights_are_decomposed_in_fp32(tmp_path):
    learner = tiny_runs.train_sequence("tiny-llama", "osf", tmp_path / "run", dtype="bfloat16")
    assert all(float(site.norm()) > 1e-4 for site in learner.newest.values())
    assert learner.backend.attach(seed=0, start=learner.newest) is learner.base.model
    assert {t.dtype for site in learner.backend.trainable().values() for t in site.tensors.values()} == {torch.float32}
    learner.backend.detach()


@pytest.mark.parametrize("expression", ["osf(frozen=0)", "osf(frozen=1)", "osf+o-lora", "osf+seqlora"])
def test_bad_options_are_refused(expression):
    with pytest.raises(ConfigError):
        parse(expression)


def test_a_share_that_freezes_nothing_is_refused(tmp_path):
    learner = tiny_runs.begin("tiny-llama", "osf(frozen=0.001)", tmp_path / "run")
    with pytest.raises(ModelError, match="cannot be decomposed"):
        learner.follow(tiny_runs.stream("tiny-llama"))
    assert not any(p.requires_grad for p in learner.base.model.parameters())
