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
    from everlora.archive.records import Room

MODULE_HEADS = ("module", "update norm", "past norm", "interference", "bound", "surrogate bound", "opposed",
                "conflict", "free")  # fmt: skip
Figures: TypeAlias = tuple[float | None, ...]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def status(run: Folder, plugin: Plugin = None, as_json: Json = False) -> None:
    """Tell what a learner knows, what it keeps, and how much room its adapted modules have left."""
    from everlora.analysis.status import status as facts_of
    from everlora.cli.tables import number, show, table

    facts = facts_of(run)
    if as_json:
        say(json.dumps(facts.as_json(), allow_nan=False))
        return
    rows = [
        (
            task.name,
            number(task.score),
            ", ".join(f"{name} {_strength(value)}" for name, value in task.strengths.items()) or "–",
            task.warning or "–",
        )
        for task in facts.tasks
    ]
    heads = ("task", "score when learned", "strength found", "warning")
    show(table(f"{facts.method} on {facts.model}", heads, rows))
    if facts.labels:
        say(f"labels by row of the head: {', '.join(facts.labels)}")
    for line in filter(None, (facts.shared_rows, facts.forecast)):
        say(line)
    data = f", {facts.kept_rows} rows of data among it" if facts.kept_rows else ""
    say(f"kept for the next task: {facts.holdings.kept_bytes / 1e6:.2f} MB{data}")
    for part, lost in facts.holdings.memory_error.items():
        say(
            f"{part} remembers the past with a relative error of {lost.error:.3g} "
            f"(worst module {lost.worst:.3g}, {lost.module})"
        )
    if facts.holdings.room:
        for line in _room(facts.holdings.room):
            say(line)


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

    from everlora.cli.console import ConsoleProgress
    from everlora.cli.tables import show, summary
    from everlora.learner import sweep as sweeping

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


def _room(room: Room) -> list[str]:
    from everlora.archive.records import FEW_TASKS

    worst = min(room.modules, key=lambda module: module.free)
    lines = [
        f"room: {100 * worst.free:.1f} % of directions are free in the tightest module ({worst.module}), enough "
        f"for {worst.tasks_left} more tasks of rank {room.rank}"
    ]
    tight = [module for module in room.modules if module.tasks_left < FEW_TASKS]
    if room.hard and tight:
        lines.append(
            f"{len(tight)} of {len(room.modules)} modules run out of directions, and this method learns in free "
            f"ones only; take a smaller --lora-r, wider modules (--lora-target-modules), or a soft method (ella, …)"
        )
    return lines


def _module_figures(one: ModuleMeeting) -> tuple[str, Figures]:
    met = one.meeting
    bounds, opposed = (met.bound, met.surrogate_bound), (met.opposed, met.conflict)
    return one.module, (met.update_norm, met.past_norm, met.interference, *bounds, *opposed, one.free.share)


def _figures(title: str, heads: Sequence[str], rows: Iterable[tuple[str, Figures]]) -> Table:
    from everlora.cli.tables import table

    return table(title, heads, ([name, *map(_figure, figures)] for name, figures in rows))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _strength(value: float | dict[str, float]) -> str:
    """Return a strength, or the least and the largest where every module has its own."""
    if value == {}:
        return "none"
    if isinstance(value, dict):
        return f"{min(value.values()):.3g} to {max(value.values()):.3g}"
    return f"{value:.3g}"
