"""Defines the commands that look at runs, hand them on, or study them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Resume, Verbose, check_run, interruptible, say
from everlora.cli.run import Config

if TYPE_CHECKING:
    from rich.table import Table

    from everlora.analysis.interference import ModuleMeeting

MODULE_HEADS = ("module", "update norm", "past norm", "interference", "bound", "surrogate bound", "opposed",
                "conflict", "free")  # fmt: skip
Figures: TypeAlias = tuple[float | None, ...]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def inspect(
    run: Folder,
    modules: Annotated[bool, typer.Option("--modules", help="One line per adapted module, too.")] = False,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Measure how each task's update met the past: interference and its bound, opposed directions, free share."""
    check_run(run)
    from everlora.analysis.interference import inspect as meetings
    from everlora.analysis.runs import Run
    from everlora.cli.tables import show

    found = meetings(Run.read(run))
    if as_json:
        say(json.dumps([task.as_json() for task in found], allow_nan=False))
        return
    heads = ("task", "interference", "cosine", "opposed", "conflict", "free")
    shown = [
        _figures(
            "all modules",
            heads,
            ((one.task, (one.interference, one.cosine, one.opposed, one.conflict, one.free)) for one in found),
        )
    ]
    shown += [_figures(task.task, MODULE_HEADS, map(_module_figures, task.modules)) for task in found if modules]
    show(*shown)


@options.takes_settings(only=("data_dir", "tasks", "device", "trust_remote_code", "seed"))
def study_layers(
    *,
    out: Out,
    config: Config,
    top: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="How many upper blocks are copied: none, numbers, all.",
            rich_help_panel="method",
        ),
    ] = "none,4,9,all",
    plugin: Plugin = None,
    resume: Resume = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Repeat the study behind LB-CL: start the upper layers of the second of two tasks as copies of the first's."""
    from everlora.core.errors import ConfigError
    from everlora.learner.resolve import check_at_once, resolve
    from everlora.settings.spec import RunSpec

    layers = options.layers(settings, config)
    tasks = check_at_once(*layers).tasks
    if tasks is None or len(tasks) != 2:
        given = "all of the benchmark's" if tasks is None else len(tasks)
        raise ConfigError(f"the study is about two tasks, and {given} are given; name them: --tasks first,second")

    from everlora.cli.tables import show, summary
    from everlora.learner import sweep as sweeping
    from everlora.runtime.console import ConsoleProgress

    spec = resolve(RunSpec, *layers)
    with ConsoleProgress(quiet=quiet) as shown, interruptible():
        results = sweeping.compare(spec, _copies(top), out, resume=resume, progress=shown)
    if as_json:
        say(json.dumps([result.as_json() for result in results], allow_nan=False))
    else:
        show(summary([result.record.model_copy(update={"method": result.folder.name}) for result in results]))


def _copies(top: str) -> dict[str, str]:
    """Return methods by the name of their folder."""
    from everlora.core.errors import ConfigError

    found = {}
    for word in top.replace(",", " ").split():
        if word not in ("none", "all") and not (word.isdecimal() and word.isascii() and int(word)):
            raise ConfigError(f"--top takes none, all, or a number of blocks, not {word!r}")
        expression = {"none": "inclora", "all": "copy-layers"}.get(word, f"copy-layers(top_layers={word})")
        found[f"top-{word}"] = expression
    if not found:
        raise ConfigError("--top takes none, all, or a number of blocks")
    return found


def _module_figures(one: ModuleMeeting) -> tuple[str, Figures]:
    met = one.meeting
    bounds, opposed = (met.bound, met.surrogate_bound), (met.opposed, met.conflict)
    return one.module, (met.update_norm, met.past_norm, met.interference, *bounds, *opposed, one.free.share)


def _figures(title: str, heads: Sequence[str], rows: Iterable[tuple[str, Figures]]) -> Table:
    from everlora.cli.tables import table

    return table(title, heads, ([name, *map(_figure, figures)] for name, figures in rows))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
