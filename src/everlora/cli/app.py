"""Defines the command line: results go to stdout, all else to stderr; a user's mistake is one line and a status.

Commands import what is heavy when they run, so that help, lists and completion answer at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from everlora.cli import ask as asking
from everlora.cli import (
    catalogue,
    export,
    learner,
    learner_past,
    look,
    protocols,
    report,
    service,
    standing,
    subjects,
    sweep,
    tune,
)
from everlora.cli import compare as comparing
from everlora.cli import run as running
from everlora.cli import verify as verifying
from everlora.cli.common import say
from everlora.cli.options import Command
from everlora.core.errors import ConfigError, EverloraError, TrainingError

SETTINGS: dict[str, Any] = {
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
RUN_EXAMPLE = """
\b
example:
  everlora run -m smollm2-135m --method ella --tasks reviews,news -o runs/first
"""
SWEEP_EXAMPLE = """
\b
example:
  everlora sweep --methods "seqlora,o-lora(lam=0.05)" --seeds 0,1,2 -o runs/sweep
"""
TUNE_EXAMPLE = """
\b
example:
  everlora tune --config recipes/stage.yaml --methods "ella,kfac" --trials 8 -o runs/tuning
"""
app = typer.Typer(
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help shows option names in full
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(version("everlora"))
        raise typer.Exit


@app.callback()
def top(
    version_: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Fine-tune for life, forget nothing: continual learning with LoRA."""


LEARN_EXAMPLE = """
\b
example:
  everlora learn ./assistant --name refunds --data refunds.jsonl --because "new policy"
"""
EXAMPLES = {
    learner.learn: LEARN_EXAMPLE,
    running.run: RUN_EXAMPLE,
    sweep.sweep: SWEEP_EXAMPLE,
    tune.tune: TUNE_EXAMPLE,
}
for command in (
    learner.init,
    learner.learn,
    asking.ask,
    learner.evaluate,
    learner.history,
    verifying.verify,
    learner_past.diff,
    learner_past.rollback,
    learner_past.forget,
    learner_past.compact,
    running.run,
    running.demo,
    catalogue.methods,
    catalogue.metrics,
    subjects.benchmarks,
    protocols.protocols,
    catalogue.env,
    standing.status,
    look.inspect,
    export.export,
    service.push,
    service.doctor,
    look.study_layers,
    comparing.compare,
    report.report,
    report.figures,
    report.figure,
    sweep.sweep,
    tune.tune,
):
    name = "eval" if command is learner.evaluate else None
    app.command(name, cls=Command, context_settings=SETTINGS, epilog=EXAMPLES.get(command))(command)


def run_command(argv: list[str] | None) -> int | str | None:
    """Run one command and return the status with which the process ends."""
    try:
        app(args=argv, prog_name="everlora", standalone_mode=True)
    except SystemExit as end:
        if (place := _not_ours(end)) is None:
            return end.code
        return _refused(f"code of a plug-in or a model ends the process in {place}; take that out", ConfigError.status)
    except EverloraError as error:
        return _refused(str(error), error.status)
    except Exception as error:
        if (line := _beyond_us(error)) is None:
            raise  # a fault of ours keeps its traceback
        return _refused(line, TrainingError.status)
    return 0


def _refused(line: str, status: int) -> int:
    """Print the line of an error, give it to the launcher that has started this process, and return the status.

    `torchrun` and `accelerate launch` end in a traceback of their own and a report, whatever we do; the
    report has what stands in the file that they name.
    """
    say(f"everlora: {line}", err=True)
    if place := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with contextlib.suppress(OSError):
            report = {"message": f"everlora: {line}", "timestamp": int(time.time())}
            Path(place).write_text(json.dumps(report), encoding="utf-8")
    return status


def _not_ours(end: SystemExit) -> str | None:
    """Return where the process was ended, if not by the command line: status 0 would mean that all was done.

    What prints for the command line ends it where the reader of a pipe has left (``everlora metrics | head``).
    """
    last = traceback.extract_tb(end.__traceback__)[-1]
    known = [sys.modules[name] for name in ("everlora", "typer", "click", "rich") if name in sys.modules]
    ours = [Path(str(module.__file__)).parent for module in known]
    inside = any(Path(last.filename).is_relative_to(folder) for folder in ours)
    return None if inside else f"{last.filename}, line {last.lineno}"


def _beyond_us(error: Exception) -> str | None:
    """Say what an error means that is no fault in the code: full memory, or another process that has ended."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return (
            f"out of memory ({text[:200] or 'no more to be had'}); finished tasks are kept: go on with --resume and "
            f"smaller batches (--per-device-train-batch-size, --per-device-eval-batch-size), or take a smaller model"
        )
    # Only if it was imported anyway: no command that failed early may wait seconds to say so.
    if "torch" in sys.modules:
        from everlora.runtime import world

        if world.lost_another(error):
            return "another process has ended, and this one cannot go on without it; the other says why"
    return None
