"""The command line. Results go to stdout, everything else to stderr; a user's mistake is one line and a status."""

from __future__ import annotations

import gc
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from everlora.cli import catalogue, common, look, protocols, subjects, sweep
from everlora.cli import compare as comparing
from everlora.cli.common import Json, Plugin, interruptible
from everlora.core.errors import ConfigError, EverloraError

SETTINGS = {"token_normalize_func": lambda token: token.replace("_", "-"), "help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help shows option names in full
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("everlora"))
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Fine-tune for life, forget nothing: continual learning with LoRA."""


@app.command(context_settings=SETTINGS)
def run(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", "--output-dir", help="Folder of the run.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe, or run.yaml of an earlier run.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol name, or a YAML file; see `protocols`.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark name, or a YAML file listing tasks.")] = None,
    order: Annotated[str | None, typer.Option(help="Task order of the benchmark: 4, or sapt-5.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, in this order: a,b,c.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the benchmark's data.")] = None,
    stream_seed: Annotated[int | None, typer.Option(help="Seed of the rows of built-in tasks.")] = None,
    model: Annotated[str | None, typer.Option("--model", "--model-name-or-path", help="Base model.")] = None,
    model_revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    trust_remote_code: Annotated[bool | None, typer.Option(help="Run code that comes with a model.")] = None,
    method: Annotated[str | None, typer.Option(help="Method: name, name(option=value), or a+b.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps per task.")] = None,
    num_train_epochs: Annotated[float | None, typer.Option(help="Epochs per task.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    per_device_train_batch_size: Annotated[int | None, typer.Option(help="Batch size per process.")] = None,
    gradient_accumulation_steps: Annotated[int | None, typer.Option(help="Micro-batches per step.")] = None,
    lora_r: Annotated[int | None, typer.Option("--lora-r", "--lora-rank", help="Rank per task.")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Scaling alpha; the update is alpha/r · BA.")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Dropout on the adapter's input.")] = None,
    lora_target_modules: Annotated[str | None, typer.Option(help="Modules to adapt: a,b or all-linear.")] = None,
    max_train_samples: Annotated[int | None, typer.Option(help="Training rows per task.")] = None,
    max_eval_samples: Annotated[int | None, typer.Option(help="Test rows per task.")] = None,
    max_train_per_class: Annotated[int | None, typer.Option(help="Training rows per class.")] = None,
    max_eval_per_class: Annotated[int | None, typer.Option(help="Test rows per class.")] = None,
    metric: Annotated[str | None, typer.Option(help="Score every task by this; else by its own metric.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Template: {instruction} {labels} {text} {task}.")] = None,
    max_source_length: Annotated[int | None, typer.Option(help="Cut texts so that prompts fit (tokens).")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest free-text answer.")] = None,
    eval_schedule: Annotated[str | None, typer.Option(help="full | forward | diagonal | final.")] = None,
    eval_scoring: Annotated[str | None, typer.Option(help="generate | labels.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="test | dev (tuning).")] = None,
    general: Annotated[str | None, typer.Option(help="General ability: off | builtin | lm-eval.")] = None,
    general_tasks: Annotated[
        str | None, typer.Option(help="Tasks of lm-evaluation-harness, or files of own ones: a,b.yaml.")
    ] = None,
    per_device_eval_batch_size: Annotated[int | None, typer.Option(help="Rows answered at once.")] = None,
    past: Annotated[str | None, typer.Option(help="auto | fold | factors.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto | float32 | bfloat16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda | mps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of adapters and data order.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any training argument: name=value.")] = None,
    plugin: Plugin = None,
    single: Annotated[Path | None, typer.Option(help="A per-task run of these tasks, for intransigence.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Follow a benchmark: learn its tasks one after another and fill the accuracy matrix."""
    spec = common.spec(ctx.params)
    if dry_run:
        catalogue.out_console.print_json(spec.model_dump_json())
        return
    if out is None:
        raise ConfigError("name the folder of the run with --out")
    from everlora.cli.console import ConsoleProgress, made, matrix, show, summary
    from everlora.learner import experiment
    from everlora.runtime import world

    gc.freeze()  # accelerate collects garbage after every training; what was imported need not be looked at again
    with ConsoleProgress() as shown, interruptible():
        result = experiment.run(spec, out, resume=resume, progress=shown, single=single).as_json()
    if not world.is_main():
        return
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        show(matrix(result), summary([result]))
        typer.echo(made(result))
        typer.echo(f"written to {out}")


@app.command(context_settings=SETTINGS)
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Teach SmolLM2-135M three tasks, once naively and once with ELLA, and show what was forgotten."""
    from everlora.cli.console import ConsoleProgress, made, matrix, show, summary
    from everlora.learner import experiment
    from everlora.learner import sweep as sweeping
    from everlora.settings.spec import RunSpec

    spec = experiment.resolve(RunSpec, experiment.DEMO)
    with ConsoleProgress() as shown, interruptible():
        results = sweeping.compare(spec, experiment.DEMO_METHODS, out, resume=resume, progress=shown)
    found = [result.as_json() for result in results]
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    show(*map(matrix, found), summary(found))
    typer.echo(made(found[0]))
    typer.echo(f"written to {out}")


for command in (
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
):
    app.command(context_settings=SETTINGS)(command)
# What a sweep does not know itself it reads as a run would.
app.command(context_settings={**SETTINGS, "ignore_unknown_options": True, "allow_extra_args": True})(sweep.sweep)


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``everlora`` and ``python -m everlora``."""
    try:
        app(args=argv, prog_name="everlora", standalone_mode=True)
    except EverloraError as error:
        typer.echo(f"everlora: {error}", err=True)
        sys.exit(error.status)
