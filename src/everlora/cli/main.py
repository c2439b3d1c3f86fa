"""The command line. Results go to stdout, everything else to stderr; a user's mistake is one line and a status."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from everlora.cli import look, subjects
from everlora.core.errors import ConfigError, EverloraError, Interrupted

SETTINGS = {"token_normalize_func": lambda token: token.replace("_", "-"), "help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the plain help shows option names in full
)
out_console = Console()
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value as the last line of stdout.")]


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
    out: Annotated[Path | None, typer.Option("--out", "--output-dir", help="Folder of the run.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe, or run.yaml of an earlier run.")] = None,
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
    max_source_length: Annotated[int | None, typer.Option(help="Cut texts so that prompts fit (tokens).")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest free-text answer.")] = None,
    eval_schedule: Annotated[str | None, typer.Option(help="full | diagonal | final.")] = None,
    eval_scoring: Annotated[str | None, typer.Option(help="generate | labels.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="test | dev (tuning).")] = None,
    per_device_eval_batch_size: Annotated[int | None, typer.Option(help="Rows answered at once.")] = None,
    past: Annotated[str | None, typer.Option(help="auto | fold | factors.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto | float32 | bfloat16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda | mps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of adapters and data order.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any training argument: name=value.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Follow a benchmark: learn its tasks one after another and fill the accuracy matrix."""
    from everlora import experiment
    from everlora.core.spec import RunSpec

    train = {
        "max_steps": max_steps,
        "num_train_epochs": num_train_epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": per_device_train_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        **_pairs(set_),
    }
    lora = {
        "r": lora_r,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "target_modules": _targets(lora_target_modules),
    }
    evaluation = {
        "schedule": eval_schedule,
        "scoring": eval_scoring,
        "split": eval_split,
        "batch_size": per_device_eval_batch_size,
    }
    flags = {
        "benchmark": benchmark,
        "order": order,
        "tasks": experiment.names(None if tasks is None else [tasks]),
        "data_dir": data_dir,
        "stream_seed": stream_seed,
        "model": model,
        "revision": model_revision,
        "trust_remote_code": trust_remote_code,
        "method": method,
        "max_train_samples": max_train_samples,
        "max_eval_samples": max_eval_samples,
        "max_source_length": max_source_length,
        "max_new_tokens": max_new_tokens,
        "past": past,
        "dtype": dtype,
        "device": device,
        "seed": seed,
        "train": train,
        "lora": lora,
        "evaluation": evaluation,
    }
    recipe = experiment.read_recipe(config) if config else {}
    spec = experiment.resolve(RunSpec, {"model": "smollm2-135m"}, recipe, flags)
    if dry_run:
        out_console.print_json(spec.model_dump_json())
        return
    if out is None:
        raise ConfigError("name the folder of the run with --out")
    from everlora.cli.console import Shown, matrix, show, summary
    from everlora.engine import world

    gc.freeze()  # accelerate collects garbage after every training; what was imported need not be looked at again
    with Shown() as shown, interruptible():
        result = experiment.run(spec, out, resume=resume, progress=shown).as_json()
    if not world.is_main():
        return
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        show(matrix(result), summary([result]))
        typer.echo(f"written to {out}")


@app.command(context_settings=SETTINGS)
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Teach SmolLM2-135M three tasks, once naively and once with ELLA, and show what was forgotten."""
    from everlora import experiment
    from everlora.cli.console import Shown, matrix, show, summary
    from everlora.core.spec import RunSpec

    spec = experiment.resolve(RunSpec, experiment.DEMO)
    with Shown() as shown, interruptible():
        results = experiment.compare(spec, experiment.DEMO_METHODS, out, resume=resume, progress=shown)
    found = [result.as_json() for result in results]
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    show(*map(matrix, found), summary(found))
    typer.echo(f"written to {out}")


@app.command(context_settings=SETTINGS)
def methods(as_json: Json = False) -> None:
    """List the methods: where they come from, what they train, store and need."""
    import everlora.methods  # noqa: F401
    from everlora.core.registry import entries

    rows = []
    for entry in entries():
        built = entry.build()
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "paper": entry.paper,
                "aliases": list(entry.aliases),
                "adapter": built.policy,
                "stores": entry.stores,
                "replay": entry.replay,
                "task_id_at_inference": built.task_id_at_inference,
                "options": entry.options(),
            }
        )
    columns = {
        "method": "{name}",
        "what it does": "{title}\n{adapter}\nstores {stores}\n{paper}",
        "replay": "{replay}",
        "task id": "{task_id_at_inference}",
    }
    _show(rows, as_json, columns)


@app.command(context_settings=SETTINGS)
def env(as_json: Json = False) -> None:
    """Print versions, for bug reports."""
    from everlora.experiment import environment

    facts = environment()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        out_console.print_json(json.dumps(facts))


for command in (subjects.benchmarks, look.status, look.inspect, look.export, look.study_layers):
    app.command(context_settings=SETTINGS)(command)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C into an error that says what to do."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished tasks are kept, go on with the same command and --resume") from None


def _show(rows: list[dict[str, Any]], as_json: bool, columns: dict[str, str]) -> None:
    """Print rows as JSON, or as a table whose columns are templates of a row's keys."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
    for k, title in enumerate(columns):
        table.add_column(title, no_wrap=k == 0)
    for row in rows:
        shown = {key: _text(value) for key, value in row.items()}
        table.add_row(*(Text(template.format_map(shown)) for template in columns.values()))
    out_console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(item)}" for key, item in value.items())
    return str(value)


def _pairs(values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or []:
        name, equals, text = value.partition("=")
        if not equals:
            raise ConfigError(f"cannot read --set {value!r}; write --set name=value")
        pairs[name.strip().replace("-", "_")] = text.strip()
    return pairs


def _targets(value: str | None) -> list[str] | str | None:
    if value is None or value == "all-linear":
        return value
    return value.replace(",", " ").split()


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``everlora`` and ``python -m everlora``."""
    try:
        app(args=argv, prog_name="everlora", standalone_mode=True)
    except EverloraError as error:
        typer.echo(f"everlora: {error}", err=True)
        sys.exit(error.status)
