"""Hands a learner on to other tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlora.cli import options
from everlora.cli.common import Json, LogLevel, Out, Plugin, Quiet, Verbose, check_run, interruptible, say
from everlora.cli.learner import Model

if TYPE_CHECKING:
    from everlora.learner.verbs.export import Exported, WrittenAdapter

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
    out = out if out.name not in ("", "..") else out.resolve()
    from everlora.learner.verbs.export import chosen
    from everlora.learner.verbs.export import export as write
    from everlora.runtime.console import ConsoleProgress

    target, here = chosen(to, rank, dtype), {**settings, "model": model}
    with ConsoleProgress(quiet=quiet) as shown, interruptible("nothing was written"):
        done = write(run, out, to=target, rank=rank, dtype=dtype, here=here, progress=shown)
    _tell(done, dtype, quiet=quiet, as_json=as_json)


def _tell(done: Exported, dtype: str, *, quiet: bool, as_json: bool) -> None:
    """Say what was written, what that lost, and how it is served."""
    written, lines = done.adapter, done.serve
    if as_json:
        form = {"form": "adapter", **asdict(written)} if written else {"form": "model"}
        say(json.dumps({"folder": str(done.folder), "to": done.to, **form, "serve": lines}, allow_nan=False))
        return
    if not quiet:
        exact = "exact" if dtype == "fp32" else f"rounded to {dtype}"
        what = f"rank {written.rank}" if written else f"the whole model in {dtype}, {exact}"
        say(f"written to {done.folder}: {what}")
    if written:
        _show_loss(written)
    for line in [] if quiet else lines[1:] if done.converted else lines:  # its first line is the converter's
        say(f"  {line}")


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
