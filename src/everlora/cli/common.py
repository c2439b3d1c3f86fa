"""Options and habits that commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from everlora.core.errors import ConfigError, Interrupted


def _run(files: list[Path] | None) -> list[Path] | None:
    """Run the files at once, before any method is looked up."""
    if files:
        import everlora.methods  # noqa: F401  (ours first: their names are taken)
        from everlora.core import plugins

        for file in files:
            plugins.load(Path(file))
    return files


Json = Annotated[bool, typer.Option("--json", help="Print one JSON value as the last line of stdout.")]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_run,
        help="Python file with a method of your own. Its code is run, so name only files that you trust.",
    ),
]


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C into an error that says what to do."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished tasks are kept, go on with the same command and --resume") from None


def pairs(values: list[str] | tuple[str, ...] | None) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises:
        ConfigError: a pair without ``=``.
    """
    found = {}
    for value in values or []:
        name, equals, text = value.partition("=")
        if not equals:
            raise ConfigError(f"cannot read --set {value!r}; write --set name=value")
        found[name.strip().replace("-", "_")] = text.strip()
    return found


TRAIN = (
    "max_steps",
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
LORA = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
EVALUATION = {
    "eval_schedule": "schedule",
    "eval_scoring": "scoring",
    "eval_split": "split",
    "general": "general",
    "per_device_eval_batch_size": "batch_size",
}
PLAIN = (
    "protocol", "benchmark", "order", "data_dir", "stream_seed", "model", "trust_remote_code", "method",
    "max_train_samples", "max_eval_samples", "max_train_per_class", "max_eval_per_class", "metric", "prompt",
    "max_source_length", "max_new_tokens", "past", "dtype", "device", "seed",
)  # fmt: skip


def spec(flags: dict[str, Any]) -> Any:
    """The settings that the flags of ``everlora run`` come to, over those of its recipe.

    Raises:
        ConfigError: an unknown or unusable setting.
    """
    from everlora.learner import experiment
    from everlora.settings.spec import RunSpec

    return experiment.resolve(RunSpec, *layers(flags))


def layers(flags: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The same settings before they are merged and checked: defaults, recipe, flags.

    Raises:
        ConfigError: a recipe that cannot be read, or a setting that is no pair.
    """
    from everlora.learner import experiment

    tasks, targets = flags["tasks"], flags["lora_target_modules"]
    if targets is not None and targets != "all-linear":
        targets = targets.replace(",", " ").split()
    given = {
        **{name: flags[name] for name in PLAIN},
        "revision": flags["model_revision"],
        "tasks": experiment.names(None if tasks is None else [tasks]),
        "train": {**{name: flags[name] for name in TRAIN}, **pairs(flags["set_"])},
        "lora": {**{name: flags[flag] for flag, name in LORA.items()}, "target_modules": targets},
        "evaluation": {
            **{name: flags[flag] for flag, name in EVALUATION.items()},
            "general_tasks": experiment.names(flags["general_tasks"] and [flags["general_tasks"]]),
        },
    }
    recipe = experiment.read_recipe(Path(flags["config"])) if flags["config"] else {}
    return {"model": "smollm2-135m"}, recipe, given
