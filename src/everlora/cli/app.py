"""The command line. Results go to stdout, everything else to stderr; a user's mistake is one line and a status.

Commands import what is heavy when they run, so that help, lists and completion answer at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from everlora.cli import catalogue, look, protocols, subjects, sweep
from everlora.cli import compare as comparing
from everlora.cli import run as running
from everlora.cli.options import Command
from everlora.core.errors import EverloraError

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
app = typer.Typer(
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help shows option names in full
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("everlora"))
        raise typer.Exit


@app.callback()
def top(
    version_: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Fine-tune for life, forget nothing: continual learning with LoRA."""


EXAMPLES = {running.run: RUN_EXAMPLE, sweep.sweep: SWEEP_EXAMPLE}
for command in (
    running.run,
    running.demo,
    catalogue.methods,
    catalogue.metrics,
    subjects.benchmarks,
    protocols.protocols,
    catalogue.env,
    look.status,
    look.inspect,
    look.export,
    look.study_layers,
    comparing.compare,
    sweep.sweep,
):
    app.command(cls=Command, context_settings=SETTINGS, epilog=EXAMPLES.get(command))(command)


def run_command(argv: list[str] | None) -> int | str | None:
    """Run one command and return the status with which the process ends."""
    try:
        app(args=argv, prog_name="everlora", standalone_mode=True)
    except SystemExit as end:
        return end.code
    except EverloraError as error:
        typer.echo(f"everlora: {error}", err=True)
        return error.status
    return 0
