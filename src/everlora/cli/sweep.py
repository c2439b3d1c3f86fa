"""Runs methods x seeds on one stream and ends with their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import completion, options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Resume, Verbose, interruptible, say
from everlora.cli.report import WithReport, leave_report
from everlora.cli.run import Config, DryRun, More, ReportTo
from everlora.core.errors import ConfigError
from everlora.report.forms import FORMAT_HELP, Format

if TYPE_CHECKING:
    from everlora.learner.sweep import Failed, Job
    from everlora.learner.tuned import Tuned
    from everlora.settings.spec import RawSettings, RunSpec

INSTEAD = {"method": "--methods", "seed": "--seeds", "single": "no reference run"}
"""What a sweep takes for options of a run that it has no use for."""
ALL = "all"

Methods = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        help="a,b(x=1),c+d; or all: every registered system that fits the model.",
        rich_help_panel="method",
        autocompletion=completion.methods,
    ),
]
Seeds = Annotated[
    str, typer.Option(metavar="N,N", help="Seeds of adapters and rows: 0,1,2.", rich_help_panel="training")
]
Orders = Annotated[
    str | None,
    typer.Option(metavar="N,N", help="Task orders: 1,2,3. [--order, or the first]", rich_help_panel="data"),
]
TunedFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="What `everlora tune` found; it holds over other settings.", rich_help_panel="method"
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes, each with its share of cores.", rich_help_panel="training")
]
Form = Annotated[Format, typer.Option("--format", metavar="FORM", help=FORMAT_HELP, rich_help_panel="output")]
NotHere = Annotated[str | None, typer.Option(hidden=True)]


@options.takes_settings(leave_out=("method", "seed"))
def sweep(
    *,
    methods: Methods,
    seeds: Seeds = "0",
    orders: Orders = None,
    tuned: TunedFile = None,
    workers: Workers = 1,
    method: NotHere = None,
    seed: NotHere = None,
    single: NotHere = None,
    config: Config = None,
    plugin: Plugin = None,
    set_: More = None,
    out: Out,
    resume: Resume = False,
    with_report: WithReport = True,
    report_to: ReportTo = None,
    dry_run: DryRun = False,
    format_: Form = "table",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Run methods x seeds on one stream, from one loaded model, and print the table.

    Takes every setting of `everlora run`, with --methods for --method and --seeds for --seed.
    """
    _refuse({"method": method, "seed": seed, "single": single})
    layers = options.layers(settings, config, set_)
    wanted, numbers, named = plan(layers, methods, seeds, orders)

    from everlora.learner import experiment
    from everlora.learner import sweep as sweeping
    from everlora.learner import workers as processes
    from everlora.learner.resolve import resolve
    from everlora.runtime import world
    from everlora.runtime.console import ConsoleProgress, trackers
    from everlora.settings.spec import RunSpec

    spec, tracking = resolve(RunSpec, *layers), trackers(report_to)
    base = experiment.load_for(spec) if ALL in wanted else None
    wanted = wanted if base is None else all_replaced(wanted, base.family.name)
    rates = _found(tuned, wanted) if tuned else None
    todo = sweeping.jobs(layers, wanted, numbers, out, orders=named, tuned=rates)
    if dry_run:
        _preview(spec, todo, orders=bool(orders))
        return
    failed: list[sweeping.Failed] = []
    with ConsoleProgress(quiet=quiet) as shown, interruptible(), sweeping.sharing(todo, out) as shared:
        note = failed.append
        if workers > 1:
            more: Any = {"plugins": plugin or [], "report_to": report_to, "failed": note}
            processes.work_in_processes(shared, workers, resume=resume, progress=shown, **more)
        else:
            shown.callbacks = tracking
            sweeping.work(shared, base or experiment.load_for(spec), resume=resume, progress=shown, failed=note)
    if world.is_main():
        _report(todo, failed, "json" if as_json else format_, out if with_report else None)


def _refuse(given: Mapping[str, str | None]) -> None:
    """Refuse options of a run that a sweep has no use for.

    Raises:
        ConfigError: one is given.
    """
    for flag, value in given.items():
        if value is not None:
            raise ConfigError(f"a sweep takes {INSTEAD[flag]}, not --{flag}")


def plan(
    layers: Sequence[RawSettings], methods: str, seeds: str, orders: str | None
) -> tuple[list[str], list[int], list[str]]:
    """Return the methods, seeds and orders that texts list, before anything heavy is imported.

    Raises:
        EverloraError: one of them, or of the settings, cannot be used.
    """
    from everlora.core.expressions import split_list
    from everlora.learner.resolve import check_at_once

    numbers, expressions, named = numbers_of(seeds), split_list(methods), split_list(orders or "")
    if not expressions or not numbers:
        raise ConfigError("name at least one method in --methods and one seed in --seeds")
    check_at_once(*layers, methods=[one for one in expressions if one != ALL], orders=named)
    return expressions, numbers, named


def _found(path: Path, methods: list[str]) -> dict[str, Tuned]:
    """Read a table of tuned systems, and say which of a sweep's it lacks."""
    from everlora.learner.tuned import read_tuned, without_row

    rows = read_tuned(path)
    if lacking := list(dict.fromkeys(without_row(methods, rows))):
        how = "it runs as without --tuned" if len(lacking) == 1 else "they run as without --tuned"
        say(f"{path} has no row for {', '.join(lacking)}: {how}", err=True)
    return rows


def _preview(spec: RunSpec, todo: list[Job], *, orders: bool) -> None:
    """Check what can be checked of a sweep, and print its jobs, one a line."""
    from everlora.learner.dry_run import check

    check(spec)
    for job in todo:
        order = f"order {job.spec.order}\t" if orders else ""
        say(f"{job.spec.method}\t{order}seed {job.spec.seed}\t{job.folder}")


def all_replaced(methods: list[str], family: str) -> list[str]:
    """Return the methods of a list, with all that fit a model family in place of ``all``."""
    from everlora.learner.sweep import fitting, unfitting

    for row, families in unfitting(family).items():
        say(f"{row} is left out: for models of {', '.join(families)}, not {family}", err=True)
    return [one for word in methods for one in (fitting(family) if word == ALL else [word])]


def _report(todo: list[Job], failed: list[Failed], form: Format, page_of: Path | None) -> None:
    """Print the table of the runs that were made, and leave a page of them in a folder.

    Raises:
        EverloraError: some could not be made, and why.
    """
    from everlora.analysis.answers import read
    from everlora.analysis.tables import compare
    from everlora.core.errors import TrainingError
    from everlora.report.forms import written

    without = {one.job.folder for one in failed}
    if made := [read(job.folder) for job in todo if job.folder not in without]:
        say(written(compare(made), (), form))
        leave_report(page_of or Path(), wanted=page_of is not None)
    reasons = list(dict.fromkeys(one.reason for one in failed))
    if len(failed) == len(todo) and len(reasons) == 1:
        raise failed[0].error  # no matter of one method
    if failed:
        names = {reason: ", ".join(one.job.name for one in failed if one.reason == reason) for reason in reasons}
        raise TrainingError(
            f"{len(failed)} of {len(todo)} runs could not be made: "
            + "; ".join(f"{those}: {reason}" for reason, those in names.items())
        )


def numbers_of(text: str) -> list[int]:
    """Read whole numbers.

    Raises:
        ConfigError: they are none.
    """
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"cannot read --seeds {text!r}; write whole numbers: 0,1,2") from None
