"""Numbers that diverge are refused where they are infinite, and where they are finite all advice goes one way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from everlora.core.errors import ConfigError, EverloraError
from everlora.core.expressions import build
from everlora.core.registry import entries
from everlora.core.updates import LowRank
from everlora.data.task import Example, Task
from everlora.settings.setting import settings_of
from everlora.settings.spec import RunSpec, check
from everlora.testing import tiny_runs
from everlora.training import alarms
from everlora.training.alarms import after_scoring, after_training

BAD = (math.inf, -math.inf, math.nan)
NUMBERS = [one.path for one in settings_of(RunSpec) if float in one.kinds and one.path[0] != "train"]


@pytest.mark.parametrize("bad", BAD)
def test_no_setting_is_infinite_or_nan(bad: float) -> None:
    """Training arguments are checked elsewhere, with those of transformers that have no setting here."""
    assert ("lora", "lora_alpha") in NUMBERS
    values: list[Any] = [bad, str(bad)]
    for *group, name in NUMBERS:
        for value in values:
            given = {name: value} if not group else {group[0]: {name: value}}
            with pytest.raises(ConfigError, match=f"{name}.*: Input should be (a finite number|greater than)"):
                check(RunSpec, {"model": "tiny-bert", **given})
    with pytest.raises(ConfigError, match=r"lora.alpha_pattern.q_proj': Input should be (a finite number|greater)"):
        check(RunSpec, {"model": "tiny-bert", "lora": {"alpha_pattern": {"q_proj": bad}}})


def test_no_option_of_a_method_is_infinite_or_nan() -> None:
    taken = []
    for known in entries():
        for option in known.options():
            for bad in ("inf", "nan") if option != "lam" else ("inf", "nan", "budget(nats=inf)", "budget(nats=nan)"):
                try:
                    build(known.name, **{option: bad})
                except EverloraError:
                    continue
                taken.append((known.name, option, bad))
    assert taken == []


def layer() -> dict[str, nn.Module]:
    found = nn.Linear(4, 4, bias=False)
    found.weight.data = torch.eye(4)
    return {"a": found}


def test_an_update_that_is_too_large_is_not_to_be_trained_longer() -> None:
    """Its loss stayed, too: both lines have one advice, which is not the one for an update of usual size."""
    flat = [{"loss": 1.0}] * 4
    large, small = (LowRank(torch.eye(4)[:1], size * torch.eye(4)[:, :1], 1.0) for size in (9.0, 0.01))
    found = after_training({"a": large}, None, layer(), flat, [])
    assert [line.split(":")[0] for line in found] == ["the update is large", "the task was not learned"]
    assert all(line.endswith(alarms.LEARN_LESS) for line in found)
    (alone,) = after_training({"a": small}, None, layer(), flat, [])
    assert "train longer" in alone

    rows = [Example(f"row {k}", "yes" if k % 2 else "no") for k in range(60)]
    task = Task(name="news", train=rows[:8], test=rows, labels=("yes", "no"), instruction="Say.")
    (line,) = after_scoring([task], {"news": [False] * 60}, "test", "; ".join(found))
    assert line.endswith(alarms.LEARN_LESS)
    for before in (None, alone):
        (line,) = after_scoring([task], {"news": [False] * 60}, "test", before)
        assert "train longer" in line


@pytest.mark.parametrize(("alpha", "advice"), [(512, alarms.LEARN_LESS), (8, alarms.LEARN_MORE)])
def test_answers_are_judged_with_what_was_said_of_training(
    alpha: float, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "guessing", lambda task, targets, correct, advice: [f"guessed; {advice}"])
    watch = tiny_runs.Watch()
    tiny_runs.train_sequence(
        "tiny-bert",
        "inclora",
        tmp_path / "run",
        tiny_runs.stream("tiny-bert")[:1],
        progress=watch,
        lora={"lora_alpha": alpha},
        train={"max_steps": 6},
    )
    assert [line for line in watch.warnings if "guessed" in line] == [f"task 'first': guessed; {advice}"]
