"""Sends what a run logs to trackers of transformers, as one run over all tasks with steps that go on counting."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from everlora.core.errors import ConfigError
from everlora.runtime.time_left import Plan
from everlora.runtime.tracker_media import end_run, name_place, send_matrix, send_scalars, update_norm

OURS = {"rho": "cl/penalty_share", "predicted_rise": "cl/predicted_rise"}
"""Names of what everlora logs beside the Trainer."""
BEGINNINGS = {"lam/": "cl/lambda/", "penalty/": "cl/penalty/"}


class Tracking(TrainerCallback):
    """Passes logs on to trackers, which each begin once and end once for each learner that follows tasks.

    A Trainer is made for every task, and each would begin a run of its own with steps from 0. After every task come
    its scores, and their mean and mean change so far, under ``cl/``; at the end the accuracy matrix, as a table and
    as a picture.

    Args:
        names: of trackers as ``report_to`` of transformers has them: ``tensorboard``, ``wandb``, ``mlflow``,
            ``trackio``, …

    Raises:
        ConfigError: one is not known, or not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.trackers = self._made()
        self.plan = Plan(())
        self.before = self.steps = 0
        self.rows: list[Mapping[str, float]] = []
        self._state: Any = None
        self._passed: tuple[Any, Any, dict[str, Any]] | None = None
        self._used = False

    def _made(self) -> list[Any]:
        try:
            return [kind() for kind in get_reporting_integration_callbacks(self.names)]
        except (ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(f"cannot report to {', '.join(self.names)}: {error}") from None

    def begin(self, plan: Plan) -> None:
        """Begin a run of its own for a learner; what it had done before counts in steps and scores."""
        self.close()
        if self._used:
            self.trackers = self._made()
        self.plan, self.rows = plan, list(plan.done)
        self.before, self.steps, self._used = plan.steps(), 0, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        began = self._passed is not None
        self.before += self.steps
        self.steps, self._state = 0, state
        # Other processes of a run have no run of a tracker, and would begin one of their own.
        self.trackers = self.trackers if state.is_world_process_zero else []
        args = self._named(args)
        self._passed, self._used = (args, control, kwargs), True
        for tracker in () if began else self.trackers:
            name_place(tracker, self.plan.folder)
            tracker.on_train_begin(args, self._shifted(), control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._state, self._passed = state, (self._named(args), control, kwargs)
        logs = {renamed(name): value for name, value in (kwargs.get("logs") or {}).items()}
        if "loss" in logs and (norm := update_norm(kwargs.get("model"))) is not None:
            logs["cl/update_norm"] = norm
        self._log(logs)

    def scored(self, scores: Mapping[str, float]) -> None:
        """Send the scores after a task, in percent, with their mean, and the mean change since each was learned."""
        self.rows.append(dict(scores))
        # A schedule may score the next task, too: before it is learned it counts for neither mean nor change.
        *before, newest = self.plan.learned(self.rows)
        first = {name: score for row in reversed([*before, newest]) for name, score in row.items()}
        known = {name for row in before for name in row}
        changes = [score - first[name] for name, score in newest.items() if name in known]
        found = {f"cl/score/{name}": score for name, score in scores.items()}
        if newest:
            found["cl/oa"] = sum(newest.values()) / len(newest)
        if changes:
            found["cl/bwt"] = sum(changes) / len(changes)
        self._log(found)

    def close(self) -> None:
        """Send the matrix, and end the runs of the trackers."""
        if self._passed is not None:
            args, control, kwargs = self._passed
            picture = self.plan.draw(self.rows) if self.plan.draw is not None else None
            for tracker in self.trackers:
                send_matrix(tracker, self.plan.tasks, self.rows, picture, self.before + self.steps)
                tracker.on_train_end(args, self._shifted(), control, **kwargs)
                end_run(tracker)
        self._passed = None

    def _named(self, args: Any) -> Any:
        """Return arguments of the Trainer under the name of the learner's folder, which trackers show."""
        named = copy.copy(args)
        if self.plan.folder is not None:
            named.run_name = Path(self.plan.folder).name
        return named

    def _log(self, logs: Mapping[str, float]) -> None:
        if self._passed is None:  # nothing was trained yet
            return
        args, control, kwargs = self._passed
        own = {name: value for name, value in logs.items() if name.startswith("cl/")}
        for tracker in self.trackers:
            # Through a callback our names would be put under those of a Trainer.
            sent = own if own and send_scalars(tracker, own, self.before + self.steps) else {}
            if rest := {name: value for name, value in logs.items() if name not in sent}:
                tracker.on_log(args, self._shifted(), control, **{**kwargs, "logs": rest})

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
