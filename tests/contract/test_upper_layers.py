"""Runs in which the upper layers alone are adapted, and the layers below them are run once for each text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_runs
from everlora.adapters import files as adapters
from everlora.core.errors import EverloraError
from everlora.learner import dry_run
from everlora.learner.resolve import resolve
from everlora.learner.sequential import SequentialLearner
from everlora.models.families.frozen import FrozenLayers
from everlora.models.families.frozen_encoder import FrozenEncoder
from everlora.models.skeleton import skeleton
from everlora.settings.spec import RunSpec
from everlora.training.evidence_rows import to_batch

UPPER = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "layers": "top:1"}
DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


def begin(model: str, method: str, out: Path, **settings: Any) -> SequentialLearner:
    return tiny_runs.begin(model, method, out, **{"lora": UPPER, **DIAGONAL, **settings})


@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("replay", "tiny-bert"),
        ("lwf", "tiny-bert"),
        ("ella", "tiny-llama"),
        ("lb-cl", "tiny-bert"),
        ("inflora", "tiny-bert"),
        ("kfac", "tiny-bert"),
        ("kfac", "tiny-llama"),
    ],
)
def test_a_run_that_goes_on_equals_one_that_was_not_cut(method: str, model: str, tmp_path: Path) -> None:
    whole = begin(model, method, tmp_path / "whole")
    whole.follow(tiny_runs.stream(model))
    assert whole.base.family.frozen is not None
    assert whole.base.family.frozen.fits
    assert {name.split(".layers.")[-1].split(".layer.")[-1][0] for name in whole.newest or {}} == {"1"}

    cut = begin(model, method, tmp_path / "cut", progress=tiny_runs.Cut())
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tiny_runs.stream(model))
    resumed = begin(model, method, tmp_path / "cut", resume=True)
    resumed.follow(tiny_runs.stream(model))
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(whole)) == 0
    for task in tiny_runs.stream(model):
        here, there = (tiny_runs.outputs(one.inference_model(), one.base.family, task) for one in (resumed, whole))
        assert torch.equal(here, there)


@pytest.mark.parametrize(
    ("method", "model"), [("seqlora", "tiny-bert"), ("kfac", "tiny-bert"), ("ella", "tiny-llama"), ("ella", "tiny-t5")]
)
def test_a_run_equals_the_one_that_computes_all_layers_at_every_step(
    method: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny models have no dropout; T5 has two stacks of layers, and is not cut at all."""
    once = begin(model, method, tmp_path / "once")
    once.follow(tiny_runs.stream(model))
    monkeypatch.setattr(FrozenLayers, "below", classmethod(lambda *_: None))
    always = begin(model, method, tmp_path / "always")
    always.follow(tiny_runs.stream(model))
    assert (once.base.family.frozen is None) == (model == "tiny-t5")
    assert always.base.family.frozen is None
    there = tiny_runs.adapter(always)
    assert tiny_runs.largest_difference(tiny_runs.adapter(once), there) < 2e-6
    assert max(float(value.abs().max()) for value in there.values()) > 1e-3


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-llama"])
def test_what_a_task_leaves_is_measured_from_what_its_training_held(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the curvature are rows that were learned: nothing frozen is computed for them again."""
    run, again = [0], []
    compute, remember = FrozenLayers._compute, SequentialLearner.remember

    def counted(self: FrozenLayers, *given: Any) -> Any:
        run[0] += 1
        return compute(self, *given)

    def watched(self: SequentialLearner, *given: Any) -> Any:
        before = run[0]
        found = remember(self, *given)
        again.append(run[0] - before)
        return found

    monkeypatch.setattr(FrozenLayers, "_compute", counted)
    monkeypatch.setattr(SequentialLearner, "remember", watched)
    learner = begin(model, "kfac", tmp_path / "run", train={"num_train_epochs": 1, "max_steps": -1})
    learner.follow(tiny_runs.stream(model))
    assert again == [0, 0]
    assert run[0] > 0


@pytest.mark.parametrize("method", ["seqlora", "sd-lora", "osf", "data"])
def test_other_forms_take_layers_too(method: str, tmp_path: Path) -> None:
    settings = {"layers": "1"} if method != "seqlora" else UPPER
    learner = begin("tiny-bert", method, tmp_path / "run", lora=settings, pooling="mean")
    learner.follow(tiny_runs.stream("tiny-bert"))
    modules = [name for name in learner.newest or {} if name.startswith("bert.")]  # some have gates and scalars, too
    assert modules
    assert all(".layer.1." in name for name in modules)


def test_a_model_of_images_takes_layers_and_runs_as_a_whole(tmp_path: Path) -> None:
    learner = begin("tiny-vit", "inclora", tmp_path / "run")
    learner.follow(tiny_runs.stream("tiny-vit"))
    assert learner.base.family.frozen is None or learner.base.family.frozen.fits is False
    assert all(".1." in name for name in learner.newest or {})


def test_the_adapter_names_its_modules_to_peft(tmp_path: Path) -> None:
    learner = begin("tiny-bert", "seqlora", tmp_path / "run")
    learner.follow(tiny_runs.stream("tiny-bert"))
    sites, _ = adapters.read(tmp_path / "run")
    assert sites.keys() == (learner.newest or {}).keys()
    base = tiny_runs.fresh("tiny-bert")
    base.family.prepare(base.model, tiny_runs.stream("tiny-bert"), torch.Generator())
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(base.model, tmp_path / "run").eval()
    task = tiny_runs.stream("tiny-bert")[0]
    found = tiny_runs.outputs(wrapped, base.family, task)
    expected = tiny_runs.outputs(learner.inference_model(), learner.base.family, task)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_that_a_second_learner_takes_over_is_whole_again(tmp_path: Path) -> None:
    first = begin("tiny-bert", "seqlora", tmp_path / "first", head="names")
    first.follow(tiny_runs.stream("tiny-bert"))
    tiny_runs.begin("tiny-bert", "seqlora", tmp_path / "second", loaded=first.base, **DIAGONAL)
    assert first.base.family.frozen is None
    assert first.base.family.fixed is False


@pytest.mark.parametrize(
    ("method", "layers", "message"),
    [
        ("ella", "top:3", "there are no layers top:3 .*has 2, counted from 0"),
        ("ella", "2-4", "there are no layers 2-4"),
        ("ella", "top:0", "layers are top:2, the two upper ones, or 4-5"),
        ("ella", "some", "layers are top:2, the two upper ones, or 4-5"),
        ("seqft", "top:1", "layers say where adapters stand, and here .* are trained; leave out --lora-layers"),
        ("l2p", "top:1", "layers say where adapters stand, and here .* are trained; leave out --lora-layers"),
    ],
)
def test_layers_that_cannot_be_are_refused_in_a_line(method: str, layers: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EverloraError, match=message) as refused:
        begin("tiny-bert", method, tmp_path / "run", lora={"layers": layers})
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "run").glob("tasks/*"))


@pytest.mark.parametrize("method", ["ella", "slao", "data"])
def test_a_module_outside_the_chosen_layers_is_not_taken_for_a_slip(method: str, tmp_path: Path) -> None:
    with pytest.raises(EverloraError) as refused:
        begin("tiny-bert", method, tmp_path / "run", lora={**UPPER, "target_modules": ["query", "classifier"]}).follow(
            tiny_runs.stream("tiny-bert")[:1]
        )
    assert str(refused.value) == (
        "the module 'classifier' of 'tiny-bert' is in none of the layers that are adapted; choose others "
        "(--lora-layers, --lora-target-modules)"
    )


@pytest.mark.parametrize(
    ("model", "layers"),
    [("tiny-bert", "2-4"), ("tiny-bert", "decoder:top:1"), ("tiny-t5", "top:3"), ("tiny-vit", "0-2")],
)
def test_a_dry_run_refuses_layers_as_the_run_does(model: str, layers: str, tmp_path: Path) -> None:
    """From the configuration alone, without the weights; layers that are there pass."""
    tiny_runs.fresh(model).model.save_pretrained(tmp_path / "base")
    for weights in (tmp_path / "base").glob("*.safetensors"):
        weights.write_bytes(b"")
    with pytest.raises(EverloraError, match="there are no layers") as refused:
        begin(model, "ella", tmp_path / "run", lora={"layers": layers})
    for name in (model, str(tmp_path / "base")):
        shown, fits = ({"model": name, "benchmark": "builtin", "lora": {"layers": one}} for one in (layers, "top:2"))
        with pytest.raises(EverloraError) as seen:
            dry_run.check(resolve(RunSpec, shown))
        assert str(seen.value) == str(refused.value)
        dry_run.check(resolve(RunSpec, fits))


@pytest.mark.parametrize("method", ["seqft", "l2p", "progprompt"])
def test_a_dry_run_refuses_layers_where_no_adapter_stands_in_one(method: str) -> None:
    shown = {"model": "not-there", "benchmark": "builtin", "method": method, "lora": {"layers": "top:1"}}
    with pytest.raises(EverloraError, match=r"are trained; leave out --lora-layers, or say all$"):
        dry_run.check(resolve(RunSpec, shown))
    over = {"lora": {"layers": "all"}}  # as --lora-layers all over a recipe's layers
    assert resolve(RunSpec, shown, over).lora.layers is None
    dry_run.check(resolve(RunSpec, shown, over))


def test_a_dry_run_leaves_a_model_that_is_not_there_to_the_run(tmp_path: Path) -> None:
    assert skeleton("nobody/has-this") is None
    (tmp_path / "config.json").write_text("{ not json")
    assert skeleton(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("method", "model", "layers"),
    [("replay", "tiny-bert", "top:1"), ("kfac", "tiny-llama", "top:1"), ("ella", "tiny-t5", "decoder")],
)
def test_a_folder_of_features_changes_no_bit(method: str, model: str, layers: str, tmp_path: Path) -> None:
    """Neither when it is written nor when it is read, and the runs are the same to everlora."""
    upper, shown = {**UPPER, "layers": layers}, tiny_runs.Watch()
    places = {"without": "off", "writes": str(tmp_path / "features"), "reads": str(tmp_path / "features")}
    learners = {
        name: begin(model, method, tmp_path / name, lora=upper, feature_cache=place, progress=shown)
        for name, place in places.items()
    }
    for learner in learners.values():
        learner.follow(tiny_runs.stream(model))
    assert list((tmp_path / "features").glob("*.safetensors"))
    assert not any("cache" in line or "damaged" in line for line in shown.warnings)
    assert len({learner.folder.record.id for learner in learners.values()}) == 1
    fingerprints = [learner.folder.stages()[-1].facts.fingerprint for learner in learners.values()]
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]
    there = tiny_runs.adapter(learners["without"])
    for learner in learners.values():
        assert tiny_runs.largest_difference(tiny_runs.adapter(learner), there) == 0


def test_what_was_computed_is_read_and_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = FrozenLayers._compute

    def count(self: FrozenLayers, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        computed.append(len(inputs["input_ids"]))
        return compute(self, model, inputs)

    monkeypatch.setattr(FrozenLayers, "_compute", count)
    place = str(tmp_path / "features")
    begin("tiny-bert", "ella", tmp_path / "one", feature_cache=place).follow(tiny_runs.stream("tiny-bert"))
    first = len(computed)
    assert first > 0
    begin("tiny-bert", "seqlora", tmp_path / "two", feature_cache=place).follow(tiny_runs.stream("tiny-bert"))
    assert len(computed) == first  # the same rows in the same order, whatever the method


@pytest.mark.parametrize("method", ["inflora", "kfac", "ewc"])
def test_evidence_of_a_decoder_is_the_same_behind_an_encoder_that_ran_before(method: str, tmp_path: Path) -> None:
    """Cross-attention reads the encoder's output, whose padding is that of the prompt and not of the answer."""
    one = begin("tiny-t5", method, tmp_path / "one", lora={**UPPER, "layers": "decoder"})
    every = {key: value for key, value in UPPER.items() if key != "layers"}
    all_ = begin("tiny-t5", method, tmp_path / "all", lora={**every, "target_modules": r".*decoder.*\.(q|v)"})
    for learner in (one, all_):
        learner.follow(tiny_runs.stream("tiny-t5")[:1])
    for part, modules in one.memory.items():
        for name, state in modules.items():
            for key, tensor in state.items():
                torch.testing.assert_close(tensor, all_.memory[part][name][key], rtol=1e-3, atol=1e-5)
    assert any("EncDecAttention" in name for modules in one.memory.values() for name in modules)


def test_an_encoder_below_an_adapted_decoder_runs_once_for_each_text(tmp_path: Path) -> None:
    """Training and answers are those of a model whose encoder runs every time, and a run that goes on finds them."""
    decoder = {**UPPER, "layers": "decoder"}
    every = {**UPPER, "target_modules": r".*decoder.*\.(q|v)"}
    every.pop("layers")
    once = begin("tiny-t5", "ella", tmp_path / "once", lora=decoder)
    once.follow(tiny_runs.stream("tiny-t5"))
    assert isinstance(once.base.family.frozen, FrozenEncoder)
    assert once.base.family.frozen.fits
    always = begin("tiny-t5", "ella", tmp_path / "always", lora=every)
    always.follow(tiny_runs.stream("tiny-t5"))
    assert always.base.family.frozen is not None
    assert not always.base.family.frozen.learned.held  # its dropout, if it had any, belongs to the numbers of the run
    there = tiny_runs.adapter(always)
    assert tiny_runs.adapter(once).keys() == there.keys()
    assert tiny_runs.largest_difference(tiny_runs.adapter(once), there) < 2e-6
    assert max(float(value.abs().max()) for value in there.values()) > 1e-3
    cut = begin("tiny-t5", "ella", tmp_path / "cut", lora=decoder, progress=tiny_runs.Cut())
    with pytest.raises(KeyboardInterrupt):
        cut.follow(tiny_runs.stream("tiny-t5"))
    resumed = begin("tiny-t5", "ella", tmp_path / "cut", lora=decoder, resume=True)
    resumed.follow(tiny_runs.stream("tiny-t5"))
    assert tiny_runs.largest_difference(tiny_runs.adapter(resumed), tiny_runs.adapter(once)) == 0


def test_the_encoder_reads_each_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of eight rows are two epochs of 24 texts; a batch that is answered again is not read again."""
    read, compute = {True: 0, False: 0}, FrozenEncoder._compute

    def count(frozen: FrozenEncoder, model: torch.nn.Module, inputs: Any) -> torch.Tensor:
        read[model.training] += len(inputs["input_ids"])
        return compute(frozen, model, inputs)

    monkeypatch.setattr(FrozenEncoder, "_compute", count)
    task = tiny_runs.stream("tiny-t5")[0]
    train = {"max_steps": 6, "per_device_train_batch_size": 8}
    learner = begin("tiny-t5", "inclora", tmp_path / "run", lora={**UPPER, "layers": "decoder"}, train=train)
    learner.follow([task])
    assert len({row.input for row in task.train}) == 24
    assert read[True] == 24
    model = learner.inference_model()
    before = read[False]
    for _ in range(3):
        batch = to_batch(model, learner.base.family, [(row, task) for row in task.test])
        learner.base.family.logits(model, batch)
    assert read[False] - before == len(task.test)


def test_looking_at_a_models_layers_runs_no_code_of_its_folder(tmp_path: Path) -> None:
    config = {"model_type": "of-its-own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()", encoding="utf-8")
    assert skeleton(str(tmp_path)) is None
    assert not (tmp_path / "ran").exists()
