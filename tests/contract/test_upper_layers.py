"""Runs in which the upper layers alone are adapted, and the layers below them are run once for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_runs
from everlora.adapters import files as adapters
from everlora.core.errors import EverloraError
from everlora.learner.sequential import SequentialLearner
from everlora.models.families.frozen import FrozenLayers

UPPER = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "layers": "top:1"}
DIAGONAL = {"evaluation": {"schedule": "diagonal"}}


def begin(model: str, method: str, out: Path, **settings: Any) -> SequentialLearner:
    return tiny_runs.begin(model, method, out, **{"lora": UPPER, **DIAGONAL, **settings})


@pytest.mark.parametrize(("method", "model"), [("replay", "tiny-bert"), ("lwf", "tiny-bert"), ("ella", "tiny-llama")])
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


@pytest.mark.parametrize("method", ["seqlora", "sd-lora", "osf", "data"])
def test_other_forms_take_layers_too(method: str, tmp_path: Path) -> None:
    settings = {"layers": "1"} if method != "seqlora" else UPPER
    learner = begin("tiny-bert", method, tmp_path / "run", lora=settings, pooling="mean")
    learner.follow(tiny_runs.stream("tiny-bert"))
    modules = [name for name in learner.newest or {} if name.startswith("bert.")]  # some have gates and scalars, too
    assert modules
    assert all(".layer.1." in name for name in modules)


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
    assert not list((tmp_path / "run" / "tasks").iterdir())
