"""Sends what a run logs to trackers of transformers, as one run over all tasks with steps that go on counting."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from everlora.core.errors import ConfigError

OURS = {"rho": "cl/penalty_share", "predicted_rise": "cl/predicted_rise"}
"""Names of what everlora logs beside the Trainer."""
BEGINNINGS = {"lam/": "cl/lambda/", "penalty/": "cl/penalty/"}


class Tracking(TrainerCallback):
    """Passes logs on to trackers, which each begin once and end once.

    A Trainer is made for every task, and each would begin a run of its own with steps from 0. After every task come
    its scores, and their mean and mean change so far, under ``cl/``.

    Args:
        names: of trackers as ``report_to`` of transformers has them: ``tensorboard``, ``wandb``, ``mlflow``,
            ``trackio``, …

    Raises:
        ConfigError: one is not known, or not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        try:
            self.trackers = [kind() for kind in get_reporting_integration_callbacks(list(names))]
        except (ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(f"cannot report to {', '.join(names)}: {error}") from None
        self.before = self.steps = 0
        self.first: dict[str, float] = {}
        self._state: Any = None
        self._passed: tuple[Any, Any, dict[str, Any]] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        began = self._passed is not None
        self.before += self.steps
        self.steps, self._state = 0, state
        self._passed = (args, control, kwargs)
        for tracker in () if began else self.trackers:
            tracker.on_train_begin(args, self._shifted(), control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._state, self._passed = state, (args, control, kwargs)
        self._log({renamed(name): value for name, value in (kwargs.get("logs") or {}).items()})

    def scored(self, scores: Mapping[str, float]) -> None:
        """Send the scores after a task, in percent, with their mean, and the mean change since each was learned."""
        changes = [score - self.first[name] for name, score in scores.items() if name in self.first]
        self.first = {**scores, **self.first}
        found = {f"cl/score/{name}": score for name, score in scores.items()}
        if scores:
            found["cl/oa"] = sum(scores.values()) / len(scores)
        if changes:
            found["cl/bwt"] = sum(changes) / len(changes)
        self._log(found)

    def close(self) -> None:
        """End the runs of the trackers."""
        if self._passed is not None:
            args, control, kwargs = self._passed
            for tracker in self.trackers:
                tracker.on_train_end(args, self._shifted(), control, **kwargs)
        self._passed = None

    def _log(self, logs: Mapping[str, float]) -> None:
        if self._passed is None:  # nothing was trained yet
            return
        args, control, kwargs = self._passed
        for tracker in self.trackers:
            tracker.on_log(args, self._shifted(), control, **{**kwargs, "logs": dict(logs)})

    def _shifted(self) -> Any:
        """Return the Trainer's state with the steps of earlier tasks added."""
        state = copy.copy(self._state)
        state.global_step += self.before
        return state


def renamed(name: str) -> str:
    """Return the name under which a logged number is sent.

    >>> renamed("loss"), renamed("rho"), renamed("lam/energy_overlap")
    ('loss', 'cl/penalty_share', 'cl/lambda/energy_overlap')
    """
    for start, ours in BEGINNINGS.items():
        if name.startswith(start):
            return ours + name.removeprefix(start)
    return OURS.get(name, name)
