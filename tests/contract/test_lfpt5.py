"""LFPT5 where the model's own rows are rows: tiny models write noise, so a part here takes whatever they write."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

import tiny_runs
from everlora import parse
from everlora.core.method import Method
from everlora.models.families.base import GREEDY
from everlora.models.families.seq2seq import Seq2Seq
from everlora.parts.pseudo import PseudoSamples

MODELS = ("tiny-llama", "tiny-t5")
TRAIN = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 0.1, "logging_steps": 1}


@dataclass(frozen=True, kw_only=True)
class Credulous(PseudoSamples):
    """Reads whatever was written as a row of the task's first label."""

    name = "credulous"

    def read(self, said, labels):
        return (said, labels[0]) if said.strip() else None


def credulous(kappa=0.3, weigh=True):
    """LFPT5 that takes any text; ``weigh`` keeps the divergence."""
    method = parse("lfpt5(length=6)" if kappa else "lfpt5(length=6, kappa=0)")
    outputs = tuple(replace(o, strength=kappa / (1 - kappa)) for o in method.outputs) if weigh else ()
    part = Credulous(tries=4, length=8, eta=0.25, kappa=kappa)
    return replace(method, rehearsal=part, outputs=outputs, name="credulous")


def learn(model, method, out, **settings):
    return tiny_runs.train_sequence(model, method, out, **({"train": TRAIN} | settings))


@pytest.mark.parametrize("model", MODELS)
def test_written_rows_hold_the_second_task_alone(model, tmp_path):
    """The first task has neither written rows nor KL; on the second, κ makes a difference."""
    with_kl, without = (
        learn(model, credulous(weigh=weigh), tmp_path / str(weigh), tasks=tiny_runs.stream(model))
        for weigh in (True, False)
    )
    firsts, seconds = ([learner.backend.load(learner.folder.stages()[k].path)[0]["prompts"].tensors["prompt"]
                        for learner in (with_kl, without)] for k in (0, 1))  # fmt: skip
    assert (firsts[0] == firsts[1]).all()
    assert (seconds[0] != seconds[1]).any()
    first, second = (json.loads((stage.path / "COMMIT").read_text())["written_rows"]
                     for stage in with_kl.folder.stages())  # fmt: skip
    assert first == {}
    assert second["first"]["written"] == 4
    assert second["first"]["valid"] >= 1


def test_rows_of_every_earlier_task_are_written_and_drawn_as_told(tmp_path, monkeypatch):
    """At the third task, of the first and of the second; sampled among the ``top_k`` likeliest tokens."""
    asked, predict = [], Seq2Seq.predict

    def note(self, model, task, rows, scoring, sampling=GREEDY):
        if "top_k" in sampling:
            asked.append((rows[0].input, len(rows), sampling))
        return predict(self, model, task, rows, scoring, sampling)

    monkeypatch.setattr(Seq2Seq, "predict", note)
    method = credulous()
    method = replace(method, rehearsal=replace(method.rehearsal, top_k=5))
    learner = learn("tiny-t5", method, tmp_path / "run", tasks=tiny_runs.stream("tiny-t5", 3))
    written = [list(stage.facts.written_rows) for stage in learner.folder.stages()]
    assert written == [[], ["first"], ["first", "second"]]
    how = {"do_sample": True, "top_k": 5, "max_new_tokens": 8}
    assert asked == [(f"__{name}__", 4, how) for name in ("first", "first", "second")]


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_writes_the_same_rows(model, tmp_path):
    whole = learn(model, credulous(), tmp_path / "whole", tasks=tiny_runs.stream(model))
    with pytest.raises(KeyboardInterrupt):
        learn(model, credulous(), tmp_path / "cut", tasks=tiny_runs.stream(model), progress=tiny_runs.Cut("second", 2))
    again = learn(model, credulous(), tmp_path / "cut", tasks=tiny_runs.stream(model), resume=True)
    assert tiny_runs.largest_difference(tiny_runs.adapter(again), tiny_runs.adapter(whole)) == 0


@pytest.mark.parametrize("model", MODELS)
def test_nothing_written_and_no_weight_is_plain_prompt_tuning(model, tmp_path):
    off = parse("lfpt5(length=6, eta=0, kappa=0, tries=1, text_length=2)")
    plain = Method(name="plain", adapter=off.adapter, consolidator=off.consolidator)
    a, b = (learn(model, m, tmp_path / m.name) for m in (off, plain))
    assert a.folder.stages()[1].facts.written_rows["first"].valid == 0
    assert tiny_runs.largest_difference(tiny_runs.adapter(a), tiny_runs.adapter(b)) == 0


def test_the_split_of_a_batch_changes_nothing_with_written_rows(tmp_path):
    found = []
    for size, steps in ((8, 1), (2, 4)):
        train = TRAIN | {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "optim": "sgd"}
        learner = learn("tiny-t5", credulous(), tmp_path / str(size), train=train)
        assert learner.folder.stages()[1].facts.written_rows["first"].valid >= 1
        found.append(tiny_runs.adapter(learner))
    assert tiny_runs.largest_difference(*found) < 2e-5


def test_a_family_without_text_is_refused(tmp_path):
    with pytest.raises(Exception, match="families: decoder, encoder-decoder"):
        learn("tiny-bert", "lfpt5", tmp_path / "run")
