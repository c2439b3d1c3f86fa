"""One global batch, split in many ways: the adapters learned are the same, penalties active and labels uneven.

AdamW hides the scale of a gradient but not the ratio between task and penalty, and plain SGD hides nothing; so both.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_runs
from everlora import parse
from everlora.testing import CHECKS, Case
from plan import DAILY, crossed, daily, pairs, planned
from tiny_runs import MODELS, TRAINED

STRONG = "ella(lam=0.3)+o-lora(lam=0.01)"
SGD = {"optim": "sgd", "learning_rate": 0.5}
CLOSE = 1e-5
"""For SGD and for mixtures; see the last test for how far a wrong scale takes the weights."""
TRAPS = ("tiny-t5", "tiny-bert")
"""Families whose own loss grows with accumulation; where nothing pulls, these suffice."""
PULLED = pairs([method for method in TRAINED if parse(method).penalties])
UNPULLED = pairs([method for method in TRAINED if not parse(method).penalties], TRAPS)


def split(rows: int, steps: int) -> dict[str, int]:
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps}


@pytest.mark.parametrize(("method", "model"), planned(PULLED + UNPULLED, DAILY | daily(UNPULLED)))
def test_every_method_learns_the_same_in_one_piece_and_in_eight(method, model, recorded, tmp_path):
    CHECKS["a_batch_in_one_piece_is_a_batch_in_eight"].look(Case(method, model, recorded, tmp_path))


@crossed(model=MODELS, method=[STRONG, "lb-cl", "ella(lam=auto,rho=0.3)"])
def test_lambda_means_the_same_under_plain_sgd(model, method, tmp_path):
    """Also where it is found, and where a look at the new rows and a projection come before it."""
    one, four = (
        tiny_runs.train_sequence(model, method, tmp_path / f"{rows}", train={**SGD, **split(rows, 8 // rows)})
        for rows in (8, 2)
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(one), tiny_runs.adapter(four)) < CLOSE
    rho = [row["rho"] for row in _training(one) if "rho" in row]
    again = [row["rho"] for row in _training(four) if "rho" in row]
    assert rho == pytest.approx(again, rel=1e-3)
    assert any(r > 0.01 for r in rho), "the penalty is too weak to show anything"


@given(rows=st.integers(1, 12))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_accumulation_that_does_not_divide_the_epoch(rows, tmp_path_factory, whole):
    """24 rows in batches of 12: any micro-batch that fills a batch exactly gives the same steps."""
    rows = max(d for d in (1, 2, 3, 4, 6, 12) if d <= rows)
    run = tiny_runs.train_sequence(
        "tiny-t5", STRONG, tmp_path_factory.mktemp("split") / "run", train=split(rows, 12 // rows)
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(run), whole) < CLOSE


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_runs.adapter(
        tiny_runs.train_sequence("tiny-t5", STRONG, tmp_path_factory.mktemp("whole") / "run", train=split(12, 1))
    )


@pytest.mark.parametrize("model", TRAPS)
def test_a_last_batch_that_is_not_full(model, tmp_path):
    """20 rows in batches of 8: the third step has 4 rows, in one piece or in two."""
    tasks = tuple(task.take(20) for task in tiny_runs.stream(model))
    one, two = (
        tiny_runs.train_sequence(model, STRONG, tmp_path / f"{r}", tasks, train=split(r, 8 // r)) for r in (8, 2)
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(one), tiny_runs.adapter(two)) < CLOSE


@pytest.mark.parametrize("model", MODELS)
def test_pools_of_data_differ_by_the_rounding_that_adamw_makes_steps_of(model, tmp_path):
    """An epsilon above the rounding of gradients, and pools are the same in any pieces: the penalty counts once.

    With the default of 1e-8 they differ by 1e-3: the first gradients of new pools are rounding alone.
    """

    def pools(name, method, **train):
        return tiny_runs.adapter(
            tiny_runs.train_sequence(model, method, tmp_path / name, train={**train, "adam_epsilon": 1e-6})
        )

    one, eight = pools("one", "data", **split(8, 1)), pools("eight", "data", **split(1, 8))
    assert tiny_runs.largest_difference(one, eight) < CLOSE
    often = pools("often", "data(mu=8)", **split(8, 1))
    assert tiny_runs.largest_difference(one, often) > 100 * CLOSE, "a penalty that is added for every piece would show"


@pytest.mark.parametrize("train", [{}, SGD], ids=["adamw", "sgd"])
def test_a_penalty_counted_twice_would_show(train, tmp_path):
    """The measure is fine enough: twice the strength is a hundred tolerances away."""
    twice = "ella(lam=0.6)+o-lora(lam=0.02)"
    one, two = (
        tiny_runs.train_sequence("tiny-t5", m, tmp_path / str(k), train=train) for k, m in enumerate((STRONG, twice))
    )
    assert tiny_runs.largest_difference(tiny_runs.adapter(one), tiny_runs.adapter(two)) > 100 * CLOSE


def _training(learner):
    text = (learner.folder.stages()[-1].path / "training.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
