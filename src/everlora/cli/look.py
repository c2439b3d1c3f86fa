"""Defines the commands that look at runs, hand them on, or study them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class WrittenAdapter:
    """Holds an adapter that was written, and what that lost; see `everlora.export.model`.

    Attributes:
        rank: the largest of its modules.
        truncation: relative errors of the updates.
        logits: how far the logits are from the exact ones; None if they could not be compared.
    """

    rank: int
    truncation: Mapping[str, float]
    logits: Mapping[str, float] | None


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


@options.takes_settings(only=("data_dir", "device", "trust_remote_code"))
def export(
    run: Folder,
    *,
    out: Out,
    rank: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Write a PEFT adapter of this rank; else a whole model.", rich_help_panel="output"
        ),
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_level: LogLevel = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Hand a learner on: as a whole model (exact), or as one adapter of chosen rank with what that loses.

    The loss is measured on the run's data, where they are at hand.
    """
    check_run(run)
    from everlora.analysis.runs import Run
    from everlora.core.errors import ConfigError
    from everlora.export import model as exporting
    from everlora.learner import experiment
    from everlora.learner.resolve import refuse_code, resolve
    from everlora.learner.same_base import check_base
    from everlora.settings.spec import LearnerSpec, RunSpec

    found = Run.read(run)
    if rank is not None and rank < 1:
        raise ConfigError(f"--rank must be at least 1, not {rank}")
    exporting.check_empty(out)
    exporting.check_exportable(found)
    kind = RunSpec if isinstance(found.settings, RunSpec) else LearnerSpec
    # The very weights that were learned on: what `auto` chose then, it need not choose on this machine.
    here = {**settings, "device": settings["device"] or "auto", "dtype": found.weights()}
    recorded = found.settings.model_dump(mode="json") | {"evaluation": {}}  # nothing is evaluated
    learned_with = refuse_code(recorded, here, run / "run.yaml")
    spec = resolve(kind, learned_with, {k: v for k, v in here.items() if k in kind.model_fields})
    written: WrittenAdapter | None = None
    with interruptible("nothing was written"):
        base = experiment.load_for(spec, run)
        check_base(base, run)
        if rank is None:
            exporting.write_model(found, base, out)
        else:
            sites, lost = exporting.merged_adapter(found, rank)
            logits = _logits(found, base, spec, sites)
            written = WrittenAdapter(max(site.rank for site in sites.values()), lost, logits)
            exporting.write_adapter(found, base, sites, lost["error"], out)
    if as_json:
        form = {"form": "adapter", **asdict(written)} if written else {"form": "model"}
        say(json.dumps({"folder": str(out), **form}, allow_nan=False))
        return
    if not quiet:
        say(f"written to {out}: " + (f"rank {written.rank}" if written else "the whole model in fp32, exact"))
    if written:
        _show_loss(written)


def _show_loss(written: WrittenAdapter) -> None:
    """Say what was lost by writing an adapter of that rank."""
    lost, logits = written.truncation, written.logits
    say(f"truncation: relative error {lost['error']:.3g}, worst module {lost['worst']:.3g}")
    say(
        f"logits: relative error {logits['relative']:.3g}, largest difference {logits['largest']:.3g}, "
        f"same answer at {100 * logits['agree']:.1f} % of positions"
        if logits
        else "logits were not compared: the base is quantised, or the run's data are not at hand (own tasks, or "
        "pass --data-dir)"
    )


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


def _logits(run: Any, base: Any, spec: Any, sites: Any) -> dict[str, float] | None:
    from everlora.core.errors import EverloraError
    from everlora.export import model as exporting
    from everlora.learner import experiment
    from everlora.settings.spec import RunSpec

    if not isinstance(spec, RunSpec) or exporting.quantised(base):
        return None
    try:
        stream = experiment.stream_for(spec, base)
    except EverloraError:
        return None
    known = {stage.facts.name for stage in run.stages}
    tasks = [task for task in stream.tasks if task.name in known] or list(stream.tasks)
    return exporting.compare_logits(run, base, sites, tasks)


def _module_figures(one: ModuleMeeting) -> tuple[str, Figures]:
    met = one.meeting
    bounds, opposed = (met.bound, met.surrogate_bound), (met.opposed, met.conflict)
    return one.module, (met.update_norm, met.past_norm, met.interference, *bounds, *opposed, one.free.share)


def _figures(title: str, heads: Sequence[str], rows: Iterable[tuple[str, Figures]]) -> Table:
    from everlora.cli.tables import table

    return table(title, heads, ([name, *map(_figure, figures)] for name, figures in rows))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
