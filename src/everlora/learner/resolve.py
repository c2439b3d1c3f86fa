"""Brings settings together: defaults < protocol < recipe < command line, checked once.

Methods are looked up only where they are needed, since importing them takes torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from everlora.archive.identity import RunProtocol
from everlora.core.errors import ConfigError
from everlora.models.names import canonical, check_there
from everlora.runtime.safe_yaml import NotYaml, read_yaml
from everlora.settings.lora import checked_lora
from everlora.settings.protocol import Protocol, digest
from everlora.settings.protocol import read as read_protocol
from everlora.settings.spec import LearnerSpec, RawSettings, RunSpec, check, merge
from everlora.settings.training import TRAIN_DEFAULTS
from everlora.training.arguments import check_together, checked

if TYPE_CHECKING:
    from everlora.core.method import Method

S = TypeVar("S", bound=LearnerSpec)


def read_recipe(path: Path) -> RawSettings:
    """Read settings from YAML: a recipe, or the run.yaml of an earlier run.

    Raises:
        ConfigError: the file is missing, no YAML, or no mapping.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from None
    except NotYaml as error:
        raise ConfigError(f"the recipe {path}{error.where} is not valid YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the recipe {path} is not valid YAML: {error}") from None
    settings = content.get("settings", content) if isinstance(content, dict) else None
    if isinstance(settings, dict) and settings is not content and "benchmark" not in settings:
        raise ConfigError(
            f"{path} belongs to tasks that were given in Python; a run needs a benchmark, or a file of tasks"
        )
    if not isinstance(settings, dict):
        raise ConfigError(f"the recipe {path} must be a mapping of settings")
    if settings is not content and (origin := content.get("origin")):
        from everlora.core.plugins import missing

        if (amiss := missing(origin)) and not _known(settings):
            raise ConfigError(f"{path}: {amiss}")
    return settings


def refuse_code(settings: RawSettings, typed: RawSettings, where: Path) -> RawSettings:
    """Leave out what lets code run that comes with a file: only the person who starts a run may allow that.

    Args:
        settings: of a recipe, or of the run.yaml of somebody's run.
        typed: settings that the person has given for this very command.
        where: the file or folder that the settings are from.

    Raises:
        ConfigError: the file wants code to run, and the person has not said whether it may.
    """
    if settings.get("trust_remote_code") and typed.get("trust_remote_code") is None:
        raise ConfigError(
            f"{where} wants to run code that comes with the model, which a file cannot allow; pass "
            f"--trust-remote-code if you trust {str(settings.get('model'))!r}, or --no-trust-remote-code"
        )
    given, chosen = settings.get("evaluation"), typed.get("evaluation")
    tasks = given.get("general_tasks") if isinstance(given, dict) else None
    files = [one for one in tasks if str(one).endswith((".yaml", ".yml"))] if isinstance(tasks, list) else []
    if files and not (isinstance(chosen, Mapping) and chosen.get("general_tasks")):
        raise ConfigError(
            f"{where} names the task file {str(files[0])!r} of lm-evaluation-harness, which may run code of its own; "
            f"pass --general-tasks yourself if you trust it"
        )
    # Even a file that forbids it must not decide: the command line alone does.
    return {key: value for key, value in settings.items() if key != "trust_remote_code"}


def _known(settings: RawSettings) -> bool:
    """Return whether the method, benchmark and metric of a run are to be found here."""
    from everlora.benchmarks import find_benchmark, is_own
    from everlora.metrics import answer_metric

    try:
        _parse(str(settings.get("method")))
        if not is_own(str(settings["benchmark"])):
            find_benchmark(str(settings["benchmark"]))
        if settings.get("metric"):
            answer_metric(str(settings["metric"]))
    except ConfigError:
        return False
    return True


def method_of(method: object) -> tuple[Method, str]:
    """Return a method that is given in Python, as an expression or composed, and its name for the settings.

    Raises:
        ConfigError: it is neither, or a mistyped expression.
    """
    from everlora.core.method import Method

    if isinstance(method, str):
        return _parse(method), method
    if not isinstance(method, Method):
        raise ConfigError(f"method is an expression such as 'ella', or a composed Method, not {method!r}")
    return method, method.expression or method.name


def _parse(expression: str) -> Method:
    from everlora.core.expressions import parse

    return parse(expression)


def _checked(train: Any) -> Any:
    return {name: checked(name, value) for name, value in train.items()} if isinstance(train, dict) else train


def _rate(method: object) -> float:
    """Return the learning rate of a method's form; LoRA's for a composition that no expression spells."""
    try:
        return _parse(str(method)).adapter.learning_rate
    except ConfigError:
        from everlora.core.adapter import Adapter

        return Adapter().learning_rate


ANY_RATE = 1e-3
"""A learning rate for settings whose rate plays no part."""


def resolve(kind: type[S], *layers: RawSettings, rate: float | None = None) -> S:
    """Merge and check settings as `settle` does, and a run's method, too.

    Raises:
        ConfigError: an unknown or unusable setting, or a mistyped method.
    """
    spec = settle(kind, *layers, rate=rate)
    if isinstance(spec, RunSpec):
        _parse(spec.method)  # a dry run sees a mistyped method, too
    return spec


def check_at_once(*layers: RawSettings, methods: Sequence[str] = (), orders: Sequence[int | str] = ()) -> RunSpec:
    """Refuse what can be seen to be wrong without torch and transformers, whose import takes seconds.

    Checked are types and ranges of all settings, and whether there are such methods, tasks, orders and a model. What
    only these two libraries know is left to `resolve`: their own arguments, options of methods, what a model is like.

    Args:
        layers: settings as for `resolve`.
        methods: expressions, in place of the method that the settings name.
        orders: of the benchmark, in place of the one that the settings name.

    Returns:
        The settings, but for the learning rate of the method's form.

    Raises:
        EverloraError: what is wrong.
    """
    from everlora.benchmarks.streams import check_names
    from everlora.core.expressions import check_declared, split_expression

    spec = settle(RunSpec, *layers, rate=ANY_RATE)
    for expression in methods or (spec.method,):
        check_declared([name for name, _ in split_expression(expression)])
    if spec.tasks and len(orders) > 1:
        raise ConfigError(
            "tasks are learned in the order in which --tasks names them, and several orders of them would be one run "
            "made anew; leave out --orders, or --tasks"
        )
    for order in orders or (spec.order,):
        check_names(spec.benchmark, order, spec.tasks)
    check_there(spec.model)
    return spec


def settle(kind: type[S], *layers: RawSettings, rate: float | None = None) -> S:
    """Merge and check settings, over those of a protocol if one is named; training arguments are completed.

    Args:
        kind: what to build.
        layers: settings, the later ones winning.
        rate: the learning rate where nobody names one; None for that of the method's form.

    Raises:
        ConfigError: an unknown or unusable setting.
    """
    for layer in layers:
        for group in ("train", "lora", "evaluation"):
            if not isinstance(layer.get(group), dict | None):
                raise ConfigError(f"setting {group!r} must be a mapping of names to values (got {layer[group]!r})")
    merged: dict[str, Any] = dict(merge({"train": dict(TRAIN_DEFAULTS)}, *layers))
    followed = merged.get("protocol") or {}
    if isinstance(followed, str):  # run.yaml has its settings, and the name in a mapping
        name, protocol = read_protocol(followed)
        # Once more, with the protocol below the layers: whatever somebody names himself wins over it.
        merged = dict(merge({"train": dict(TRAIN_DEFAULTS)}, protocol.settings, *layers))
        followed = {"name": name, "hash": hash_as_written(protocol)}
    if isinstance(followed, dict):
        # Noted before a rate is filled in: a protocol that leaves it to the form must have one hash for all methods.
        merged["protocol"] = {"rate": "given" if "learning_rate" in merged["train"] else "form", **followed}
    if rate is None and "learning_rate" not in merged["train"]:
        rate = _rate(merged.get("method") or LearnerSpec.model_fields["method"].default)
    merged["train"].setdefault("learning_rate", rate)
    merged["train"] = _checked(merged["train"])
    if int(merged["train"].get("max_steps", -1)) > 0:
        merged["train"].setdefault("num_train_epochs", 1)  # it plays no part then, and earlier versions wrote 1
    if isinstance(merged.get("lora"), dict):
        merged["lora"] = checked_lora(merged["lora"])
    if isinstance(merged.get("train_of"), dict):
        merged["train_of"] = {task: _checked(own) for task, own in merged["train_of"].items()}
    if isinstance(merged.get("model"), str):
        merged["model"] = canonical(merged["model"])  # a run is the same run under every name of its model
    if isinstance(merged.get("order"), str):
        from everlora.benchmarks import order_number

        named = str(merged.get("benchmark", RunSpec.model_fields["benchmark"].default))
        merged["order"] = order_number(named, merged["order"])  # and under every name of its order
    if isinstance(merged.get("metric"), str):
        from everlora.metrics import answer_metric

        merged["metric"] = answer_metric(merged["metric"]).id  # and of its metric
    settled = check(kind, merged)
    check_together(merged["train"], merged.get("train_of"))
    return settled


def hash_as_written(protocol: Protocol) -> str:
    """Return the hash that every run has that follows a protocol and changes nothing."""
    # Where the rate is left to the method's form, the hash says so instead of the rate: any will do.
    spec = settle(RunSpec, {"model": ""}, protocol.settings, rate=ANY_RATE)
    return digest(spec.model_dump(mode="json"), ANY_RATE)


def protocol_of(spec: LearnerSpec, method: Method) -> RunProtocol:
    """Return the protocol that settings come to, for the record of a run: its name only if they are from one."""
    from everlora.runtime import world

    found = digest(spec.model_dump(mode="json"), method.adapter.learning_rate, world.size())
    if spec.protocol is None or spec.protocol.name is None:
        return RunProtocol(hash=found)
    return RunProtocol(hash=found, name=spec.protocol.name, changed=found != spec.protocol.hash)


def names(values: Sequence[str] | None) -> list[str] | None:
    """Split ``a,b c`` into names."""
    return None if values is None else [part for value in values for part in value.replace(",", " ").split()]
