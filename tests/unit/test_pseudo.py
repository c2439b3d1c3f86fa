"""Rows that a model writes: how a row is cut before it is learned, how many texts it writes at a time, what stays."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

import tiny_runs
from everlora import Example, Task
from everlora.core.errors import ConfigError
from everlora.parts.pseudo import PseudoSamples
from everlora.training import pseudo


def task(*texts: str) -> Task:
    rows = [Example(text, "yes") for text in texts]
    return Task(name="mine", train=rows, test=rows, dev=rows, labels=("yes", "no"), instruction="Is it?")


def test_a_row_is_cut_to_so_many_tokens_of_its_own() -> None:
    family: Any = tiny_runs.base("tiny-llama").family
    whole = "one two three four five"
    ids = family.processor(whole, add_special_tokens=False).input_ids
    for length in (len(ids) + 1, len(ids)):
        made = pseudo.to_write(PseudoSamples(length=length), family, task(whole, "x"))
        assert [row.target for row in made.train] == [f"{whole} __ans__ yes", "x __ans__ yes"]
        assert {row.input for row in made.train} == {"__mine__"}
        assert (len(made.test), made.dev, made.labels, made.instruction, made.form) == (1, (), (), "", "prompted")
    (cut,) = pseudo.to_write(PseudoSamples(length=len(ids) - 1), family, task(whole)).train
    assert cut.target == f"{family.processor.decode(ids[:-1])} __ans__ yes"
    special = f"{family.processor.eos_token} " + whole
    (bare,) = pseudo.to_write(PseudoSamples(length=3), family, task(special)).train
    assert family.processor.eos_token not in bare.target, "a model would learn to end in the middle of a row"


class Author:
    """Writes the same few texts over and over, and notes for how many it is asked."""

    def __init__(self, model: nn.Module, *texts: str) -> None:
        self.model, self.texts, self.asked = model, texts, list[int]()

    def predict(self, model: nn.Module, prompt: Task, cues: list[Example], scoring: str, sampling: Any) -> list[str]:
        assert model is self.model
        assert not model.training, "dropout would write"
        assert {cue.input for cue in cues} == {"__mine__"}
        assert (prompt.labels, prompt.instruction, scoring, sampling["do_sample"]) == ((), "", "generate", True)
        self.asked.append(len(cues))
        return [self.texts[k % len(self.texts)] for k in range(len(cues))]


@pytest.mark.parametrize(("tries", "asked", "valid"), [(40, [16, 16, 8], 32), (32, [16, 16], 26), (3, [3], 2)])
@pytest.mark.parametrize("training", [False, True])
def test_texts_are_written_sixteen_at_a_time(tries: int, asked: list[int], valid: int, training: bool) -> None:
    model = nn.Linear(1, 1).train(training)
    author = Author(model, "a __ans__ yes", "noise", "b __ans__ no", "c __ans__ yes", "d __ans__ yes")
    state = torch.get_rng_state()
    found, counts = pseudo.write(PseudoSamples(tries=tries), model, cast(Any, author), [task("x")], 0)
    assert author.asked == asked
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert (counts["mine"].written, counts["mine"].valid) == (tries, valid)
    (rows,) = found
    wanted = [Example("a", "yes"), Example("b", "no"), Example("c", "yes")]
    assert list(rows.train) == (wanted if tries > 3 else wanted[:2])
    assert (list(rows.test), rows.dev, rows.labels) == (wanted[:1], (), ("yes", "no"))


def test_a_task_of_which_only_noise_was_written_is_left_out() -> None:
    model = nn.Linear(1, 1)
    found, counts = pseudo.write(PseudoSamples(tries=4), model, cast(Any, Author(model, "noise")), [task("x")], 0, 3)
    assert found == []
    assert (counts["mine"].written, counts["mine"].valid) == (4, 0)


@pytest.mark.parametrize("name", ["per_class", "tries", "top_k", "length"])
def test_options_at_their_bounds(name: str) -> None:
    assert PseudoSamples(**{name: 1}, eta=0.0, kappa=0.0).choose(["a"], cast(Any, None)) == []
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
        PseudoSamples(**{name: 0})
    for option, value in (("eta", -0.1), ("eta", float("inf")), ("kappa", -0.1), ("kappa", 1.0)):
        with pytest.raises(ConfigError, match=f"{option} must be .*, not {value}"):
            PseudoSamples(**{option: value})  # type: ignore[arg-type]
