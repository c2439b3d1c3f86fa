"""Hands a learner on to other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Verbose, check_run, interruptible, say
from everlora.cli.learner import Model

if TYPE_CHECKING:
    from everlora.analysis.runs import Run
    from everlora.models.loading import Loaded
    from everlora.settings.spec import LearnerSpec, RawSettings

Folder = Annotated[Path, typer.Argument(metavar="LEARNER", help="Folder of a learner, or of a run.")]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="TOOL",
        help="peft, merged, vllm or llama-cpp. [merged; peft with --rank]",
        rich_help_panel="output",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank", metavar="N", help="Of the adapter. [that of all that was learned]", rich_help_panel="output"
    ),
]
Dtype = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="Of a merged model: fp32, bf16, fp16.", rich_help_panel="output")
]


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


@options.takes_settings(only=("data_dir", "device", "trust_remote_code"))
def export(
    run: Folder,
    *,
    out: Out,
    to: To = None,
    rank: Rank = None,
    dtype: Dtype = "fp32",
    model: Model = None,
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
    target, out = chosen(to, rank, dtype), out if out.name not in ("", "..") else out.resolve()
    from everlora.analysis.runs import Run
    from everlora.cli.console import ConsoleProgress
    from everlora.export import handover
    from everlora.export import model as exporting
    from everlora.learner import experiment
    from everlora.learner.same_base import check_base

    found = Run.read(run)
    exporting.check_empty(out)
    exporting.check_exportable(found)
    spec = settings_of(found, run, {**settings, "model": model})
    written: WrittenAdapter | None = None
    with ConsoleProgress(quiet=quiet) as shown, interruptible("nothing was written"):
        shown.phase("loading the base model", 1)
        base = experiment.load_for(spec, run)
        check_base(base, run)
        shown.phase("writing", 1)
        if target in ("merged", "llama-cpp"):
            exporting.write_model(found, base, out, dtype)
        else:
            written = write_adapter(found, base, spec, out, rank or handover.default_rank(target, rank_of(found)))
        shown.done()
    converted = target == "llama-cpp" and handover.convert(out) is not None
    served_as = base.hub or base.name
    lines = handover.serving_lines(target, out, served_as, run.resolve().name, written.rank if written else None)
    _tell(out, target, written, lines, dtype, converted=converted, quiet=quiet, as_json=as_json)


def _tell(
    out: Path,
    target: str,
    written: WrittenAdapter | None,
    lines: Sequence[str],
    dtype: str,
    *,
    converted: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say what was written, what that lost, and how it is served."""
    if as_json:
        form = {"form": "adapter", **asdict(written)} if written else {"form": "model"}
        say(json.dumps({"folder": str(out), "to": target, **form, "serve": lines}, allow_nan=False))
        return
    if not quiet:
        exact = "exact" if dtype == "fp32" else f"rounded to {dtype}"
        say(f"written to {out}: " + (f"rank {written.rank}" if written else f"the whole model in {dtype}, {exact}"))
    if written:
        _show_loss(written)
    for line in [] if quiet else lines[1:] if converted else lines:  # its first line is the converter's
        say(f"  {line}")


def rank_of(found: Run) -> int:
    """Return the rank at which nothing that was learned is lost."""
    past = found.past()
    return max((past.factors(name).rank for name in past.sites), default=1)


def write_adapter(found: Run, base: Loaded, spec: LearnerSpec, out: Path, rank: int) -> WrittenAdapter:
    """Write a learner as one adapter of at most ``rank``; return what that has lost."""
    from everlora.export import model as exporting

    sites, lost = exporting.merged_adapter(found, rank)
    written = WrittenAdapter(max(site.rank for site in sites.values()), lost, _logits(found, base, spec, sites))
    exporting.write_adapter(found, base, sites, lost["error"], out)
    return written


def chosen(to: str | None, rank: int | None, dtype: str) -> Any:
    """Return what is written, as options ask.

    Raises:
        ConfigError: an unknown tool or type, or options that do not go together.
    """
    from typing import get_args

    from everlora.core.errors import ConfigError, nearest
    from everlora.export.targets import DTYPES, Target

    if rank is not None and rank < 1:
        raise ConfigError(f"--rank must be at least 1, not {rank}")
    target = to or ("merged" if rank is None else "peft")
    if target not in get_args(Target):
        raise ConfigError(f"unknown tool {target!r}{nearest(target, get_args(Target))}")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown type {dtype!r}{nearest(dtype, DTYPES)}")
    if target in ("merged", "llama-cpp") and rank is not None:
        raise ConfigError(f"--to {target} writes a whole model, which has no rank; leave --rank out")
    if target in ("peft", "vllm") and dtype != "fp32":
        raise ConfigError(f"--to {target} writes an adapter in fp32; leave --dtype out")
    return target


def settings_of(found: Run, run: Path, settings: RawSettings) -> LearnerSpec:
    """Return a run's settings with those of this process over them."""
    from everlora.learner.resolve import refuse_code, resolve
    from everlora.settings.spec import LearnerSpec, RunSpec

    kind = RunSpec if isinstance(found.settings, RunSpec) else LearnerSpec
    # The very weights that were learned on: what `auto` chose then, it need not choose on this machine.
    here = {**settings, "device": settings["device"] or "auto", "dtype": found.weights()}
    recorded = found.settings.model_dump(mode="json") | {"evaluation": {}}  # nothing is evaluated
    learned_with = refuse_code(recorded, here, run / "run.yaml")
    return resolve(kind, learned_with, {k: v for k, v in here.items() if k in kind.model_fields})


def _show_loss(written: WrittenAdapter) -> None:
    """Say what was lost by writing an adapter of that rank."""
    lost, logits = written.truncation, written.logits
    say(f"truncation: relative error {lost['error']:.3g}, worst module {lost['worst']:.3g}")
    say(
        f"logits: relative error {logits['relative']:.3g}, largest difference {logits['largest']:.3g}, "
        f"same answer at {100 * logits['agree']:.1f} % of positions"
        if logits
        else "logits were not compared: the base is quantised, or no benchmark's data are at hand (--data-dir)"
    )


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
