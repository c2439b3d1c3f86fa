"""Finds rate and strength of methods on dev rows, with the same number of trials for each."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Resume, Verbose, interruptible, say
from everlora.cli.run import Config, DryRun, More
from everlora.cli.sweep import ALL, Methods, NotHere, Orders, Workers, all_replaced, plan
from everlora.core.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from everlora.learner.tune import Trial
    from everlora.settings.spec import RawSettings

Trials = Annotated[int, typer.Option(metavar="N", min=1, help="Trials of each method.", rich_help_panel="method")]
Seeds = Annotated[
    str, typer.Option(metavar="N,N", help="Seeds, not those of the final table.", rich_help_panel="training")
]


@options.takes_settings(leave_out=("method", "seed", "eval_split"))
def tune(
    *,
    methods: Methods,
    trials: Trials = 6,
    seeds: Seeds = "100",
    orders: Orders = None,
    workers: Workers = 1,
    method: NotHere = None,
    seed: NotHere = None,
    eval_split: NotHere = None,
    config: Config = None,
    plugin: Plugin = None,
    set_: More = None,
    out: Out,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Find the rate and the strength of methods on dev rows, with equal budgets, for `everlora sweep --tuned`.

    Takes every setting of `everlora run`; a --learning-rate that is typed is held. All trials are kept in --out.
    """
    _refuse(method, seed, eval_split)
    layers = options.layers(settings, config, set_)
    systems, numbers, named = plan(layers, methods, seeds, orders)

    from everlora.learner import dry_run as dry
    from everlora.learner import experiment
    from everlora.learner import sweep as sweeping
    from everlora.learner import tune as tuning
    from everlora.learner import workers as processes
    from everlora.learner.tuned import distinct
    from everlora.runtime.console import ConsoleProgress
    from everlora.settings.spec import RunSpec

    spec = experiment.resolve(RunSpec, *layers)
    if ALL in systems:
        systems = all_replaced(systems, experiment.load_for(spec).family.name)
    points = [one for name in distinct(systems) for one in tuning.trials_of(name, trials, _typed_rate(settings, set_))]
    todo = tuning.tuning_jobs(layers, points, numbers, out, named)
    jobs = [job for runs in todo.values() for job in runs]
    if dry_run:
        dry.check(spec)
        for trial, runs in todo.items():
            say(f"{trial.method}\trate {trial.rate:g}\t{len(runs)} runs")
        return
    tuning.check_same_search(out, todo)  # before anything runs
    failed: list[sweeping.Failed] = []
    with ConsoleProgress(quiet=quiet) as shown, interruptible(), sweeping.sharing(jobs, out) as shared:
        processes.work_in_processes(
            shared, workers, resume=resume, plugins=plugin or [], progress=shown, failed=failed.append
        )
    best = tuning.write(out, tuning.measured(todo), shlex.join(["everlora", *sys.argv[1:]]))
    reason = f"{len(failed)} of {len(jobs)} runs could not be made: {failed[0].reason}" if failed else None
    _report(best, out, reason, as_json=as_json)


def _report(best: dict[str, Trial], out: Path, amiss: str | None, *, as_json: bool) -> None:
    """Print the best trial of each system, and where they are written.

    Raises:
        TrainingError: what is amiss, or that no trial was scored.
    """
    from everlora.cli.tables import number, show, table
    from everlora.learner.tune import TABLE, TRIALS

    if best and as_json:
        say(json.dumps({system: asdict(trial) for system, trial in best.items()}))
    elif best:
        rows = [(one.system, one.method, f"{one.rate:g}", number(one.mean)) for one in best.values()]
        show(table("best on dev rows", ("system", "method", "rate", "OA"), rows))
        say(f"written to {out / TABLE}; use it with: everlora sweep --tuned {out / TABLE}")
    if amiss or not best:
        raise TrainingError(amiss or f"no trial has a score, see {out / TRIALS}; with --eval-schedule full it has")


def _refuse(method: str | None, seed: str | None, eval_split: str | None) -> None:
    """Refuse options that a search has no use for.

    Raises:
        ConfigError: which, and what to do.
    """
    if method is not None or seed is not None:
        raise ConfigError("tuning takes --methods and --seeds, not --method and --seed")
    if eval_split not in (None, "dev"):
        raise ConfigError("tuning scores dev rows, so that test rows stay unseen: leave out --eval-split")


def _typed_rate(settings: RawSettings, more: list[str] | None) -> float | None:
    """Return the learning rate that was typed, as an option or by ``--set``; it is not searched."""
    typed = options.pairs(more).get("learning_rate", settings.get("learning_rate"))
    return None if typed is None else float(str(typed))
