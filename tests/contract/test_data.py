"""DATA run through: two adapters under gates, pools that grow, one function in training and in decoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import linear

import tiny_runs
from everlora import Method, parse
from everlora.adapters import make_backend
from everlora.adapters.hooked import HOLDER
from everlora.core.errors import ModelError
from everlora.core.method import compose
from everlora.parts.forms_dual import cosine_gate
from everlora.roles import Needs, Rehearsal
from plan import crossed
from tiny_runs import MODELS

SMALL = "data(components=2,blocks=1,low=2,high=3)"
by_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One run per model, with the outputs on the first task at the start and at the end of each task."""
    known = {}

    def get(model, method=SMALL):
        if (model, method) in known:
            return known[model, method]
        notes, first = {}, tiny_runs.stream(model)[0]

        def note(word):
            def look(task):
                if (task, word) not in notes:
                    notes[task, word] = tiny_runs.outputs(learner.backend.model, learner.base.family, first)

            return look

        watch = tiny_runs.Watch(learning=note("start"), answering=note("end"))
        out = tmp_path_factory.mktemp("run") / "run"
        learner = tiny_runs.begin(model, method, out, progress=watch, evaluation={"schedule": "diagonal"})
        with torch.enable_grad():
            learner.follow(tiny_runs.stream(model))
        known[model, method] = learner, notes
        return learner, notes

    return get


def lively(learner):
    """Open the model, with gates that differ from row to row as after a long training."""
    opened, draw = learner.inference_model(), torch.Generator().manual_seed(0)
    size = 0.2 if learner.method.adapter.gate == "code" else 5  # sums over tokens saturate
    with torch.no_grad():
        for site in learner.backend.trainable().values():
            for key, p in site.tensors.items():
                if key == "W":
                    p.copy_(size * torch.randn(p.shape, generator=draw))
                elif key.startswith("B_"):
                    p.copy_(torch.randn(p.shape, generator=draw))
    return opened


def rows(pools, side="low"):
    return {name: site.tensors for name, site in pools.items() if name.startswith("gates.") and name.endswith(side)}


@by_model
def test_fresh_adapters_change_nothing_and_a_task_starts_where_the_last_ended(model, seen):
    learner, notes = seen(model)
    before = tiny_runs.fresh(model)
    before.family.prepare(before.model, tiny_runs.stream(model)[:1], torch.Generator().manual_seed(0))
    if not learner.base.family.head:  # a head starts at random, and here its seed is another
        assert torch.equal(
            notes["first", "start"], tiny_runs.outputs(before.model, before.family, tiny_runs.stream(model)[0])
        )
    # A head that has grown multiplies another shape, which may round otherwise.
    apart = 1e-6 if learner.base.family.head else 0
    torch.testing.assert_close(notes["second", "start"], notes["first", "end"], rtol=0, atol=apart)
    assert not torch.allclose(notes["first", "start"], notes["second", "start"], atol=1e-4), "nothing was learned"


@by_model
def test_answers_after_a_resume_are_those_of_an_uninterrupted_run(model, seen, tmp_path):
    whole, _ = seen(model)
    cut = tiny_runs.begin(model, SMALL, tmp_path / "run", progress=tiny_runs.Cut())
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tiny_runs.stream(model))
    assert not hasattr(cut.base.model, HOLDER)
    resumed = tiny_runs.begin(model, SMALL, tmp_path / "run", resume=True)
    resumed.follow(tiny_runs.stream(model))
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0


@by_model
def test_the_base_is_untouched_and_what_is_stored_is_what_was_learned(model, seen):
    learner, _ = seen(model)
    head = f"{learner.base.family.head}."
    pristine = dict(tiny_runs.base(model).model.named_parameters())
    now = dict(learner.base.model.named_parameters())
    for name, weight in pristine.items():
        if not name.startswith(head):
            assert torch.equal(now[name], weight)
            assert not now[name].requires_grad
    sites, rest = learner.backend.load(learner.folder.stages()[-1].path)
    assert sites.keys() == learner.newest.keys()
    for name, site in sites.items():
        for key, tensor in site.tensors.items():
            assert torch.equal(tensor, learner.newest[name].tensors[key])
    assert bool(rest) == bool(learner.base.family.head)
    for name, tensor in rest.items():
        assert torch.equal(tensor, now[name])
    sites, _ = learner.backend.load(learner.folder.path)
    assert sites.keys() == learner.newest.keys()
    assert learner.storage().stored_elements == sum(site.numel for site in learner.newest.values())


@by_model
def test_pools_grow_and_earlier_components_stay(model, seen):
    learner, _ = seen(model)
    first, _ = learner.backend.load(learner.folder.stages()[0].path)
    for name, pools in rows(learner.newest).items():
        for key, pool in pools.items():
            old = first[name].tensors[key]
            assert (len(old), len(pool)) == (2, 4)
            assert torch.equal(pool[:2], old)


@by_model
def test_padding_changes_nothing(model, seen):
    learner, _ = seen(model)
    opened, family, task = lively(learner), learner.base.family, tiny_runs.stream(model)[0]
    gates = learner.backend.gates

    def of(examples):
        tiny_runs.outputs(opened, family, task, examples)
        return {name: {side: g.clone() for side, g in gate.now.items()} for name, gate in gates.items()}

    together = of(task.test)
    for k, example in enumerate(task.test):
        for name, sides in of([example]).items():
            for side, gate in sides.items():
                assert 0 < float(gate) < 1
                assert float(gate) == pytest.approx(float(together[name][side][k]), abs=1e-6)
    assert float(next(iter(together.values()))["low"].std()) > 1e-3, "gates look at nothing"
    learner.backend.detach()


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_layer_answers_as_the_formula_says(blocks):
    """W0 x + g₁ B₁A₁x + g₂ B₂A₂x, no scale; both gates look at what enters the first block of a group."""
    loaded, task = tiny_runs.fresh("tiny-llama"), tiny_runs.stream("tiny-llama")[0]
    form = parse(f"data(components=2,blocks={blocks},low=2,high=3)").adapter
    carrier = make_backend(loaded, {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0}, "auto", form)
    model, draw = carrier.attach(seed=3, tasks=[task]), torch.Generator().manual_seed(0)
    for site in carrier.trainable().values():
        for key, p in site.tensors.items():
            if key == "W" or key.startswith("B_"):
                p.copy_(5 * torch.randn(p.shape, generator=draw))
    entered, layers = {}, {}
    for k, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _, args, kwargs, k=k: entered.update({k: args[0]}), with_kwargs=True)
    for name, layer in carrier.layers.items():
        layer.register_forward_hook(lambda _, args, out, name=name: layers.update({name: (args[0], out)}))
    batch = loaded.family.collate([loaded.family.features(task.train[0], task)])  # one row: nothing is padded
    loaded.family.logits(model, batch)
    size = int((batch["labels"][0] != -100).nonzero()[0]) + 1  # the prompt, of which the gates are
    different = 0.0
    assert len(carrier.gates) == -(-len(model.model.layers) // blocks)
    for name, (x, out) in layers.items():
        block = int(name.split(".")[2])
        h = entered[block - block % blocks][:, :size]
        expected, gates, pair = linear(x, carrier.layers[name].weight), [], carrier.trainable()[name].tensors
        for side in ("low", "high"):
            pools = carrier.trainable()[f"gates.model.layers.{block // blocks}.{side}"].tensors
            gates.append(cosine_gate(h, torch.ones(h.shape[:2], dtype=torch.bool), **pools).float())
            expected = expected + gates[-1] * x @ pair[f"A_{side}"].mT @ pair[f"B_{side}"].mT
        different = max(different, float((gates[0] - gates[1]).abs()))
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert different > 0.02


def test_down_projections_start_at_the_standard_deviation_of_the_published_code():
    """1 / r²: of r₁ = 4 a sixteenth, of r₂ = 16 a 256th; up-projections at 0."""
    carrier = make_backend(tiny_runs.fresh("tiny-llama"), {}, "auto", parse("data").adapter)
    carrier.attach(seed=3, tasks=tiny_runs.stream("tiny-llama")[:1])
    pairs = [site.tensors for name, site in carrier.trainable().items() if name in carrier.layers]
    for side, r in (("low", 4), ("high", 16)):
        drawn = torch.cat([pair[f"A_{side}"].detach().flatten() for pair in pairs])
        assert float(drawn.std()) == pytest.approx(1 / r**2, rel=0.1)
        assert not any(pair[f"B_{side}"].any() for pair in pairs)


@torch.no_grad()
@crossed(model=["tiny-llama", "tiny-t5"], gate=["cosine", "code"])
def test_decoding_on_a_cache_is_the_function_that_was_trained(model, gate, seen):
    """The public code's gates differ here: they see one token at a time in decoding, and the answer in training."""
    learner, _ = seen(model, f"data(components=2,blocks=1,low=2,high=3,gate={gate})")
    opened, family, task = lively(learner), learner.base.family, tiny_runs.stream(model)[0]
    for example in task.test[:2]:
        batch = family.collate([family.features(example, task)])
        whole, targets = family.logits(opened, batch)
        if model == "tiny-llama":
            size = int((batch["labels"][0] != -100).nonzero()[0]) + 1  # the prompt
            leaky = opened(input_ids=batch["input_ids"], use_cache=False).logits[0, size - 1 :]
            assert not torch.allclose(leaky, whole, atol=2e-4), "gates that see the answer are the same"
            step = opened(input_ids=batch["input_ids"][:, :size], use_cache=True)
        else:
            source = {key: batch[key] for key in ("input_ids", "attention_mask")}
            step = opened(**source, decoder_input_ids=batch["decoder_input_ids"][:, :1], use_cache=True)
        each = [step.logits[0, -1]]
        for token in targets[:-1].tolist():
            fed = torch.tensor([[token]])
            if model == "tiny-llama":
                step = opened(input_ids=fed, past_key_values=step.past_key_values, use_cache=True)
            else:
                states = (step.encoder_last_hidden_state,)
                step = opened(
                    encoder_outputs=states,
                    attention_mask=batch["attention_mask"],
                    decoder_input_ids=fed,
                    past_key_values=step.past_key_values,
                    use_cache=True,
                )
            each.append(step.logits[0, -1])
        torch.testing.assert_close(torch.stack(each), whole, rtol=1e-4, atol=2e-5)
    learner.backend.detach()


@torch.no_grad()
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_a_label_is_scored_as_it_was_learned(model, seen):
    """The label scores of `predict`, prompt once and labels behind it, are those of whole sequences."""
    learner, _ = seen(model)
    opened, family, task = lively(learner), learner.base.family, tiny_runs.stream(model)[1]
    best = []
    for example in task.test:
        whole = []
        for label in task.labels:
            row = family.features(type(example)(example.input, label), task)
            logits, targets = family.logits(opened, family.collate([row]))
            whole.append(float(logits.log_softmax(-1).gather(-1, targets[:, None]).sum()))
        best.append(task.labels[max(range(len(whole)), key=whole.__getitem__)])
    assert family.predict(opened, task, task.test, "labels") == best
    learner.backend.detach()


def test_layers_outside_of_blocks_are_refused(tmp_path):
    learner = tiny_runs.begin("tiny-llama", SMALL, tmp_path / "run", lora={"target_modules": ["lm_head"]})
    with pytest.raises(ModelError, match="'lm_head' stands in no numbered block"):
        learner.follow(tiny_runs.stream("tiny-llama"))
    assert not hasattr(learner.base.model, HOLDER)


def test_a_wrong_target_is_named(tmp_path):
    learner = tiny_runs.begin("tiny-llama", SMALL, tmp_path / "run", lora={"target_modules": ["q_prj"]})
    with pytest.raises(ModelError, match="q_prj"):
        learner.follow(tiny_runs.stream("tiny-llama"))


def test_splits_of_a_batch_are_one(tmp_path):
    found = []
    for size, steps in ((8, 1), (2, 4)):
        train = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        method, out = f"{SMALL[:-1]},mu=10)", tmp_path / str(size)
        learner = tiny_runs.train_sequence(
            "tiny-llama", method, out, train={**train, "optim": "sgd", "learning_rate": 0.5}
        )
        found.append(tiny_runs.adapter(learner))
    assert tiny_runs.largest_difference(*found) < 2e-6


def test_strength_zero_is_no_penalty_bit_for_bit(tmp_path):
    off = parse(f"{SMALL[:-1]},mu=0)")
    none = replace(off, penalties=(), name="none")
    on = tiny_runs.adapter(tiny_runs.train_sequence("tiny-llama", SMALL, tmp_path / "on"))
    a = tiny_runs.adapter(tiny_runs.train_sequence("tiny-llama", off, tmp_path / "off"))
    b = tiny_runs.adapter(tiny_runs.train_sequence("tiny-llama", none, tmp_path / "none"))
    assert tiny_runs.largest_difference(a, b) == 0 < tiny_runs.largest_difference(a, on)


def test_restoration_returns_weights_to_where_the_task_began(tmp_path):
    """At rate 1, every second step: the second of two steps undoes both."""
    method = f"{SMALL[:-1]},restore=1,restore_every=2)"
    train = {"max_steps": 2}
    learner = tiny_runs.train_sequence(
        "tiny-llama", method, tmp_path / "run", train=train, tasks=tiny_runs.stream("tiny-llama")[:1]
    )
    for name, site in learner.newest.items():
        for key, tensor in site.tensors.items():
            if key.startswith("B_"):
                assert float(tensor.abs().max()) < 1e-7, name
    moved = tiny_runs.train_sequence(
        "tiny-llama", f"{SMALL[:-1]},restore=1,restore_every=3)", tmp_path / "moved", train=train
    )
    assert max(float(t.abs().max()) for n, s in moved.newest.items() for k, t in s.tensors.items() if k == "B_low") > 0


def test_rows_of_earlier_tasks_can_be_rehearsed(tmp_path):
    """DATA + Replay: a rehearsal stands beside the form, whatever the form is."""

    @dataclass(frozen=True, kw_only=True)
    class First(Rehearsal):
        name: ClassVar[str] = "first_rows"
        needs: ClassVar[Needs] = Needs(any_form=True)

        def choose(self, targets, draw):
            return [0, 1]

    both = compose(parse(SMALL), Method(name="first", rehearsal=First(), plugin=True))
    assert both.adapter == parse(SMALL).adapter
    learner = tiny_runs.train_sequence("tiny-llama", both, tmp_path / "run")
    assert [len(task.train) for task in learner.stored_rows] == [2, 2]
    alone = tiny_runs.train_sequence("tiny-llama", SMALL, tmp_path / "alone")
    assert tiny_runs.largest_difference(tiny_runs.adapter(learner), tiny_runs.adapter(alone)) > 0
