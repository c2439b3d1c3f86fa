"""A head that learns at a rate of its own: AdamW's first step moves every entry by the rate, whatever its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaForSequenceClassification

import tiny_runs
from everlora.core.errors import ConfigError
from everlora.learner import dry_run
from everlora.learner.resolve import resolve
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.learn import teach
from everlora.models.families import TextClassifier
from everlora.settings.spec import RunSpec
from everlora.training.arguments import checked
from everlora.training.head_rate import set_head_rate


def learned(out: Path, model: str, steps: int = 1, **train: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train one task, and return what the adapter and the head then are."""
    train = {"max_steps": steps, "learning_rate": 0.01, **train}
    learner = tiny_runs.train_sequence(model, "inclora", out, tiny_runs.stream(model)[:1], train=train)
    head = dict(learner.base.model.get_submodule(str(learner.base.family.head)).named_parameters())
    found = tiny_runs.adapter(learner)
    return {name: one for name, one in found.items() if name not in head}, {name: found[name] for name in head}


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_the_head_alone_moves_at_its_rate(model: str, tmp_path: Path) -> None:
    """From one start and in one step, 0.03 leads 0.02 further than 0.01 in every entry; the adapter stays."""
    adapter, head = learned(tmp_path / "same", model)
    named, head_named = learned(tmp_path / "named", model, head_learning_rate=0.01)
    faster, head_faster = learned(tmp_path / "faster", model, head_learning_rate=0.03)
    for name, one in adapter.items():
        assert torch.equal(one, named[name])
        assert torch.equal(one, faster[name])
    for name, one in head.items():
        assert torch.equal(one, head_named[name])
        torch.testing.assert_close((head_faster[name] - one).abs(), torch.full_like(one, 0.02), rtol=1e-3, atol=0)


def test_both_layers_of_a_head_have_its_rate_where_no_peft_marks_them() -> None:
    """RoBERTa's head is a hidden layer and one with a row a label; the body keeps the optimiser's rate."""
    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = RobertaForSequenceClassification(config)
    family = object.__new__(TextClassifier)
    family.head, family.saved_modules = "classifier.out_proj", ("classifier",)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    set_head_rate(optimizer, model, family, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        assert rates[id(p)] == (0.5 if name.startswith("classifier.") else 0.1), name


def test_a_schedule_lowers_both_rates(tmp_path: Path) -> None:
    """Over two steps of a linear schedule a zero rate stays zero, and that of the other part is as without it."""
    more: Any = {"lr_scheduler_type": "linear", "steps": 2}
    _, start = learned(tmp_path / "start", "tiny-bert", learning_rate=0.0)
    adapter, _ = learned(tmp_path / "both", "tiny-bert", **more, learning_rate=0.0, head_learning_rate=0.02)
    still, moved = learned(tmp_path / "none", "tiny-bert", learning_rate=0.0, head_learning_rate=0.02, **more)
    assert all(torch.equal(still[name], one) for name, one in adapter.items())
    # Two steps of AdamW at 0.02 and 0.01 move no entry further than their sum.
    steps = torch.cat([(moved[name] - start[name]).abs().flatten() for name in start])
    assert 0.02 < float(steps.max()) <= 0.0301


@pytest.mark.parametrize(
    ("model", "more", "why"),
    [
        ("tiny-llama", {}, "has none; leave it out"),
        ("tiny-bert", {"head": "names"}, "--head names is fixed; leave one out"),
    ],
)
def test_a_head_that_is_not_trained_is_refused_before_anything_is_learned(
    model: str, more: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        tiny_runs.train_sequence(
            model, "inclora", tmp_path / "run", train={"head_learning_rate": 0.1, "max_steps": 1}, **more
        )
    with pytest.raises(ConfigError, match=why):
        tiny_runs.train_sequence(
            model, "inclora", tmp_path / "of", train_of={"first": {"head_learning_rate": 0.1}}, **more
        )


@pytest.mark.parametrize(
    ("model", "more", "fits"),
    [
        ("tiny-llama", {}, False),
        ("tiny-bert", {"head": "names"}, False),
        ("tiny-bert", {}, True),
        ("tiny-vit", {}, True),
    ],
)
def test_a_dry_run_says_what_the_run_would(model: str, more: dict[str, Any], fits: bool) -> None:
    benchmark = "vision-digits" if model == "tiny-vit" else "builtin"
    shown = {"model": model, "benchmark": benchmark, "train": {"head_learning_rate": 0.1}, **more}
    if fits:
        dry_run.check(resolve(RunSpec, shown))
        return
    with pytest.raises(ConfigError, match=r"leave it out|leave one out"):
        dry_run.check(resolve(RunSpec, shown))


def test_a_learner_that_is_taught_one_more_task_refuses_it_too(tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-llama", "inclora", tmp_path / "run", tiny_runs.stream("tiny-llama")[:1])
    with pytest.raises(ConfigError, match="has none; leave it out"):
        teach(learner, tiny_runs.stream("tiny-llama")[1], Teaching(train={"head_learning_rate": 0.5}))


def test_a_rate_is_a_number_that_is_not_negative() -> None:
    assert checked("head_learning_rate", "1e-3") == 1e-3
    assert checked("head_learning_rate", None) is None
    with pytest.raises(ConfigError, match="must not be negative"):
        checked("head_learning_rate", -1.0)
    with pytest.raises(ConfigError, match="must be a finite number"):
        checked("head_learning_rate", float("inf"))
