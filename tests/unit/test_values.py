"""What parts are given: strengths that mean something, contexts, and a trace that is the same on either side."""

from __future__ import annotations

import math

import pytest
import torch

from everlora.core.errors import ConfigError
from everlora.core.roles.values import (
    NO_EVIDENCE,
    AutoStrength,
    Budget,
    Curvature,
    Evidence,
    ProbedBudget,
    Strength,
    TaskContext,
    check_strength,
)
from everlora.core.updates import LowRank


@pytest.mark.parametrize(
    "strength",
    [0, 0.0, 1e9, AutoStrength(rho=0.0), AutoStrength(rho=2.0), Budget(nats=1e-9), ProbedBudget(nats=1.0, probes=2)],
)
def test_strengths_that_mean_something(strength: Strength) -> None:
    check_strength("ewc", strength)


@pytest.mark.parametrize(
    ("strength", "said"),
    [
        (-1e-9, "the strength of the penalty 'ewc' must be a finite number of at least 0, not -1e-09"),
        (math.inf, "the strength of the penalty 'ewc' must be a finite number of at least 0, not inf"),
        (AutoStrength(rho=-0.5), "the strength of the penalty 'ewc' must be a finite number of at least 0, not -0.5"),
        (
            AutoStrength(rho=math.nan),
            "the strength of the penalty 'ewc' must be a finite number of at least 0, not nan",
        ),
        (Budget(nats=0.0), "the budget of 'ewc' must be a finite number of nats above 0, not 0.0"),
        (Budget(nats=math.inf), "the budget of 'ewc' must be a finite number of nats above 0, not inf"),
        (1e39, "the strength of the penalty 'ewc' must be at most 1e+30, not 1e+39"),
        (Budget(nats=1e-300), "the budget of 'ewc' must be between 1e-30 and 1e+30 nats, not 1e-300"),
        (Budget(nats=1e300), "the budget of 'ewc' must be between 1e-30 and 1e+30 nats, not 1e+300"),
        (ProbedBudget(nats=0.1, probes=1), "the probes of 'ewc' are at least 2 rows of each task, not 1"),
    ],
)
def test_strengths_that_mean_nothing(strength: Strength, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_strength("ewc", strength)
    assert str(caught.value) == said


def test_budgets_are_written_as_they_are_typed() -> None:
    assert str(Budget(nats=0.010)) == "budget(nats=0.01)"
    assert str(ProbedBudget(nats=2.0, probes=8)) == "budget(nats=2, probes=8)"


def test_one_strength_serves_all_modules_unless_each_is_to_find_its_own() -> None:
    assert (AutoStrength(rho=1.0).per_module, AutoStrength(rho=1.0, per_module=True).per_module) == (False, True)


def test_both_factors_of_a_curvature_have_the_trace_of_the_fisher_information() -> None:
    """It is the mean ‖G‖² over rows: here of three gradients of shape (2, 5), for each of four modules."""
    G = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Curvature(left=(G @ G.mT).mean(1), right=(G.mT @ G).mean(1))
    torch.testing.assert_close(found.trace, G.square().sum((-2, -1)).mean(1))
    torch.testing.assert_close(Curvature(left=found.right, right=found.left).trace, found.trace)
    torch.testing.assert_close(Curvature(left=found.left[1], right=found.right[1]).trace, found.trace[1])


def test_a_context_sums_its_updates_exactly() -> None:
    one = LowRank(torch.ones(3, 1, 4), torch.ones(3, 2, 1), 0.5)
    context = TaskContext(updates=(one, one, one))
    whole = context.factors()
    assert whole is not None
    assert (whole.rank, whole.scale) == (3, 1.0)
    torch.testing.assert_close(whole.dense(), torch.full((3, 2, 4), 1.5))


def test_a_context_of_which_nothing_is_said_is_that_of_a_first_task() -> None:
    first = TaskContext()
    assert first.factors() is None
    assert (first.updates, first.start, first.memory, first.seed) == ((), None, {}, 0)
    assert Evidence() == NO_EVIDENCE
