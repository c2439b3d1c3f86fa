"""Follows a benchmark: the commands for one run, and for the demo."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Resume, Verbose, interruptible, say
from everlora.cli.report import WithReport, leave_report
from everlora.core.errors import ConfigError, printable

if TYPE_CHECKING:
    from everlora.runtime.profiling import Trace

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings of a YAML recipe, or of a run.yaml.", rich_help_panel="method"),
]
More = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any argument of TrainingArguments.", rich_help_panel="training"),
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        "--report-to",
        metavar="A,B",
        help="Trackers: tensorboard, wandb, mlflow, trackio.",
        rich_help_panel="output",
    ),
]
Profile = Annotated[
    bool,
    typer.Option("--profile", help="Write trace.json of a few training steps.", rich_help_panel="output"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done.", rich_help_panel="output")]


@options.takes_settings()
def run(
    *,
    config: Config = None,
    plugin: Plugin = None,
    set_: More = None,
    single: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A per-task run, for intransigence.", rich_help_panel="evaluation"),
    ] = None,
    out: Out = None,  # type: ignore[assignment]  # a dry run needs none
    resume: Resume = False,
    with_report: WithReport = True,
    report_to: ReportTo = None,
    profile: Profile = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    **settings: Any,
) -> None:
    """Follow a benchmark: learn its tasks in turn and fill the accuracy matrix."""
    from everlora.learner.resolve import check_at_once, resolve
    from everlora.settings.spec import RunSpec

    layers = options.layers(settings, config, set_)
    if out is None and not dry_run:
        raise ConfigError("name the folder of the run with --out")
    check_at_once(*layers)
    spec = resolve(RunSpec, *layers)
    if dry_run:
        from everlora.cli.tables import out_console
        from everlora.learner import dry_run as dry

        dry.check(spec)
        plain = json.dumps(spec.model_dump(mode="json"), ensure_ascii=False)
        out_console.print_json(plain, ensure_ascii=plain != printable(plain))
        return
    from everlora.cli.tables import made, matrix, show, summary
    from everlora.learner import experiment
    from everlora.runtime import world
    from everlora.runtime.console import ConsoleProgress, trackers
    from everlora.runtime.progress import COSTS

    with ConsoleProgress(quiet=quiet) as shown, interruptible(), traces(out, wanted=profile) as traced:
        shown.callbacks = (*trackers(report_to), *traced)
        result = experiment.run(spec, out, resume=resume, progress=shown, single=single)
    if not world.is_main():
        return
    if as_json:
        say(json.dumps(result.as_json(), allow_nan=False))
    else:
        show(matrix(result.record), summary([result.record]))
        say(made(result.record))
        say(COSTS.describe(result.record.memory_bytes))
        say(f"written to {out}")
    leave_report(out, wanted=with_report)


def demo(
    out: Out = Path("runs/demo"),
    resume: Resume = False,
    with_report: WithReport = True,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
) -> None:
    """Teach a small encoder six tasks, naively, with ELLA and with K-FAC, and show what was forgotten."""
    from everlora.cli.tables import made, matrix, number, show, summary, table
    from everlora.learner import demo as demonstration
    from everlora.learner import experiment
    from everlora.learner import sweep as sweeping
    from everlora.runtime.console import ConsoleProgress
    from everlora.settings.spec import RunSpec

    before = demonstration.stored()
    if not quiet:
        minutes = before.seconds / 60
        say(
            f"{len(demonstration.METHODS)} methods, 6 tasks, one seed; nothing is downloaded, and it takes about "
            f"{minutes:.0f} minutes of one core",
            err=True,
        )
    spec = experiment.resolve(RunSpec, demonstration.SETTINGS)
    with ConsoleProgress(quiet=quiet) as shown, interruptible():
        results = sweeping.compare(spec, demonstration.METHODS, out, resume=resume, progress=shown)
    if as_json:
        say(json.dumps([result.as_json() for result in results], allow_nan=False))
        leave_report(out, wanted=with_report, each=True)
        return
    found = [result.record for result in results]
    rows = [
        (one.method, number(one.OA), f"{one.low:.1f} to {one.high:.1f}", number(one.BWT)) for one in before.methods
    ]
    title = f"the same over {before.seeds} seeds, made beforehand: {before.command}"
    show(*map(matrix, found), summary(found), table(title, ("method", "OA", "95 % interval", "BWT"), rows))
    say(made(found[0]))
    say(f"written to {out}")
    leave_report(out, wanted=with_report, each=True)
    say("what to do next:")
    # As it was called here: a virtual environment need not be on the path.
    called = f"{sys.executable} -m everlora" if sys.argv[0].endswith(".py") else sys.argv[0]
    program = "everlora" if shutil.which("everlora") else called
    for what, arguments in demonstration.NEXT:
        say(f"  {what}:\n    {program} {arguments}")


@contextmanager
def traces(out: Path, *, wanted: bool) -> Iterator[tuple[Trace, ...]]:
    """Yield what writes a trace of a few training steps into a run's folder, if it is wanted."""
    if not wanted:
        yield ()
        return
    from everlora.runtime.profiling import Trace

    with closing(Trace(out)) as trace:
        yield (trace,)
    if not trace.done:
        say(f"nothing was trained, so {trace.file} was not written", err=True)
