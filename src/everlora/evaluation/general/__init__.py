"""General ability: what a model could do before it was taught anything, measured again after every task.

Measures are columns beside the accuracy matrix and no part of it. ``builtin`` needs no download: perplexity of
held-out text and a zero-shot probe (`builtin`). ``lm-eval`` runs tasks of lm-evaluation-harness (`harness`). Whoever
answers after a task is measured: where a task id chooses an adapter, the newest one, for general questions have no
task.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from everlora.evaluation.general import builtin, harness
from everlora.models.loading import Loaded
from everlora.settings.spec import EvalSpec

Ability = Callable[[nn.Module], dict[str, float]]
"""Measures of a model by id: percent, higher is better; but for `perplexity`, where lower is better."""

__all__ = ["Ability", "general_ability", "writes_text"]


def writes_text(base: Loaded) -> bool:
    """Whether a model writes text, which is what is measured."""
    return base.family.continuation("a", "b") is not None


def general_ability(base: Loaded, how: EvalSpec) -> Ability | None:
    """What measures the model as settings ask; None where nothing is asked, or the model writes no text.

    Raises:
        ConfigError: lm-evaluation-harness is asked for and not there, or it has no such task.
    """
    if how.general is None or not writes_text(base):
        return None
    if how.general == "builtin":
        return lambda model: builtin.measure(model, base.family)
    tasks = tuple(how.general_tasks or ())
    harness.check(tasks)
    return lambda model: harness.measure(model, base, tasks, how.batch_size)
