"""The command that runs methods x seeds on one stream and ends with their table."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any

import typer

from everlora.cli import common
from everlora.cli.common import Json, Plugin
from everlora.cli.compare import Format

OWN = {"method": "--methods", "seed": "--seeds", "single": "no reference run"}
"""Flags of ``everlora run`` that a sweep gives itself."""
ALL = "all"


def sweep(
    ctx: typer.Context,
    methods: Annotated[str, typer.Option(help="a,b(x=1),c+d; or all: every registered system that fits the model.")],
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder of the runs, one folder each.")],
    seeds: Annotated[str, typer.Option(help="Seeds of adapters and data order: 0,1,2.")] = "0",
    plugin: Plugin = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the jobs and stop.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="How the table is printed.")] = "table",
    as_json: Json = False,
) -> None:
    """Run methods x seeds on one stream, from one loaded model, and print the table.

    Takes every option of `everlora run` (--config, --benchmark, --model, --max-steps, --set, …) beside its own.
    """
    from everlora.analysis.answers import read
    from everlora.analysis.tables import compare
    from everlora.cli.compare import show
    from everlora.cli.console import ConsoleProgress
    from everlora.core.errors import TrainingError
    from everlora.learner import experiment
    from everlora.learner import sweep as sweeping
    from everlora.runtime import world
    from everlora.settings.spec import RunSpec

    layers, wanted, numbers = common.layers(_flags_of_run(ctx)), sweeping.split(methods), _numbers(seeds)
    spec = experiment.resolve(RunSpec, *layers)
    base = experiment.load_for(spec) if ALL in wanted else None
    if base is not None:
        family = base.family.name
        wanted = [one for word in wanted for one in (sweeping.fitting(family) if word == ALL else [word])]
        for row, families in sweeping.unfitting(family).items():
            typer.echo(f"{row} is left out: for models of {', '.join(families)}, not {family}", err=True)
    todo = sweeping.jobs(layers, wanted, numbers, out)
    if dry_run:
        for job in todo:
            typer.echo(f"{job.spec.method}\tseed {job.spec.seed}\t{job.folder}")
        return
    gc.freeze()  # as for a single run
    lost: list[sweeping.Failed] = []
    with ConsoleProgress() as shown, common.interruptible():
        base = base or experiment.load_for(spec)
        sweeping.work(todo, base, resume=resume, progress=shown, failed=lost.append)
    if not world.is_main():
        return
    gone = {one.job.folder for one in lost}
    if done := [read(job.folder) for job in todo if job.folder not in gone]:
        show(compare(done).as_json(), "json" if as_json else format_)
    if len(lost) == len(todo) and len({one.reason for one in lost}) == 1:
        raise lost[0].error  # no matter of one method
    if lost:
        names = {one.reason: ", ".join(each.job.name for each in lost if each.reason == one.reason) for one in lost}
        raise TrainingError(
            f"{len(lost)} of {len(todo)} runs could not be made: "
            + "; ".join(f"{those}: {reason}" for reason, those in names.items())
        )


def _flags_of_run(ctx: typer.Context) -> dict[str, Any]:
    """Read what is no option of a sweep as ``everlora run`` would read it.

    Raises:
        ConfigError: a setting that the sweep gives itself.
    """
    from everlora.core.errors import ConfigError

    assert ctx.parent is not None
    run: Any = ctx.parent.command.get_command(ctx, "run")  # type: ignore[attr-defined]
    flags: dict[str, Any] = run.make_context("run", list(ctx.args), parent=ctx.parent).params
    for flag, instead in OWN.items():
        if flags[flag] is not None:
            raise ConfigError(f"a sweep takes {instead}, not --{flag}")
    return flags


def _numbers(text: str) -> list[int]:
    from everlora.core.errors import ConfigError

    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"cannot read --seeds {text!r}; write whole numbers: 0,1,2") from None
