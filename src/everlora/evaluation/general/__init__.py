"""Measures general ability: what a base model can do is measured again after every task.

The measures are no part of the accuracy matrix. ``builtin`` needs no download: perplexity of held-out text and a
zero-shot probe (`builtin`). ``lm-eval`` runs tasks of lm-evaluation-harness (`harness`). The model is measured as it
answers after a task; where a task id chooses an adapter, with the newest one, since general questions have no task.
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
    """Return whether a model writes text, without which nothing can be measured.

    >>> from everlora.models.loading import load
    >>> writes_text(load("tiny-t5")), writes_text(load("tiny-vit"))
    (True, False)
    """
    return base.family.continuation("a", "b") is not None


def general_ability(base: Loaded, how: EvalSpec) -> Ability | None:
    """Return the function that measures a model as the settings say; None if there is nothing to measure.

    Raises:
        ConfigError: lm-evaluation-harness is not installed, or has no such task.
    """
    if how.general is None or not writes_text(base):
        return None
    if how.general == "builtin":
        return lambda model: builtin.measure(model, base.family)
    tasks = tuple(how.general_tasks or ())
    harness.check(tasks)
    return lambda model: harness.measure(model, base, tasks, how.batch_size)
