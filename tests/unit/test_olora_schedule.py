"""O-LoRA's strengths in turn: order 6 of the authors' scripts, task by task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny_runs
from calculus import draw
from everlora import parse
from everlora.core.errors import ConfigError
from everlora.core.roles import TaskContext
from everlora.core.updates import LowRank
from everlora.methods.olora import olora
from everlora.parts.schedules import factors

LAM = [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 5, 5, 5, 5, 5, 5]
NORM = [0, 0, 0, 0, 0.1, 0.1, 0.3, 0, 0.1, 0, 0, 0.1, 0, 0.1, 0.3]
ORDER6 = (
    "o-lora(lam=0.5, schedule=0/1/1/1/1/1/1/1/1/10/10/10/10/10/10, "
    "norm_lam=0.1, norm_schedule=0/0/0/0/1/1/3/0/1/0/0/1/0/1/3)"
)


@pytest.mark.parametrize("number", range(1, 18))
def test_order_six_task_by_task(number: int) -> None:
    A, B = draw(number, (1, 2, 5), (1, 4, 2), dtype=torch.float32)
    live, before = LowRank(A, B, 4.0), TaskContext(updates=(LowRank(A, B, 4.0),) * (number - 1))
    plain = olora(lam=1.0, norm_lam=1.0).penalties
    for part, base, lams in zip(parse(ORDER6).penalties, plain, (LAM, NORM), strict=True):
        state, lam = part.prepare(before), lams[min(number, 15) - 1]
        if lam == 0:
            assert state is None
            continue
        constants = base.prepare(before)
        assert state is not None
        assert constants is not None
        pull, one = part.value_and_grad(live, state), base.value_and_grad(live, constants)
        torch.testing.assert_close(part.strength * pull.value, lam * one.value)
        torch.testing.assert_close(part.strength * pull.A, lam * one.A)
        torch.testing.assert_close(part.strength * pull.B, lam * one.B)


@pytest.mark.parametrize("written", ["", "1/", "a/b", "-1/2", "nan", "inf/1", "1,2"])
def test_a_schedule_is_read_or_refused(written: str) -> None:
    assert factors("0/1/2.5") == (0, 1, 2.5)
    with pytest.raises(ConfigError, match="a factor of at least 0 per task"):
        factors(written)


def test_a_schedule_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="norm_lam is 0"):
        parse("o-lora(norm_schedule=0/1)")


def test_a_schedule_of_ones_is_none_and_of_zeros_is_inclora(tmp_path, recorded) -> None:
    plain = recorded("o-lora", "tiny-t5").adapter
    ones = tiny_runs.train_sequence(
        "tiny-t5", "o-lora(schedule=1)", tmp_path / "1", evaluation={"schedule": "diagonal"}
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(ones), plain) == 0
    zeros = tiny_runs.train_sequence(
        "tiny-t5", "o-lora(schedule=0)", tmp_path / "0", evaluation={"schedule": "diagonal"}
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(zeros), recorded("inclora", "tiny-t5").adapter) == 0
    assert replace(parse("o-lora"), expression="") == olora()
