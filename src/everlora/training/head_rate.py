"""Lets a classification head learn at a rate of its own beside the adapter's."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from everlora.core.errors import ConfigError
from everlora.models.families import Classifier, Family
from everlora.settings.spec import LearnerSpec
from everlora.settings.training import HEAD_RATE, TrainingArgumentsInput, numeric_argument


def sets_head_rate(spec: LearnerSpec) -> bool:
    """Tell whether settings name a rate for the head, of all tasks or of one."""
    return any(one.get(HEAD_RATE) is not None for one in (spec.train, *(spec.train_of or {}).values()))


def check_head_rate(spec: LearnerSpec, family: type[Family]) -> None:
    """Refuse a rate for a head that is not trained.

    Raises:
        ConfigError: the settings have one, and models of the family have no head of labels, or its rows are fixed.
    """
    if not sets_head_rate(spec):
        return
    if not issubclass(family, Classifier):
        raise ConfigError(f"{HEAD_RATE} is of classification heads, and {spec.model!r} has none; leave it out")
    if spec.head == "names":
        raise ConfigError(f"{HEAD_RATE} is of heads that are trained, and --head names is fixed; leave one out")


def taken_out(train: TrainingArgumentsInput) -> tuple[TrainingArgumentsInput, float | None]:
    """Return the arguments that are transformers', and the head's rate; None where it is the adapter's."""
    stock = {name: value for name, value in train.items() if name != HEAD_RATE}
    return stock, None if train.get(HEAD_RATE) is None else numeric_argument(train, HEAD_RATE)


def is_head(name: str, family: Family) -> bool:
    """Tell whether a parameter of a model that is trained belongs to its head, by name."""
    return "modules_to_save" in name or name.startswith(f"{family.head}.")


def set_head_rate(optimizer: Optimizer, model: nn.Module, family: Family, rate: float) -> None:
    """Move the head's parameters into a group of their own at this rate, before the first step.

    The head is all of its layers (RoBERTa's has two), with an adapter of PEFT's as with prompts and full weights. A
    schedule multiplies every group's own rate, so that the head's falls and rises with the adapter's.
    """
    layers = tuple(f"{module}." for module in family.saved_modules)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    head = {id(p) for name, p in named if is_head(name, family) or name.startswith(layers)}
    for group in list(optimizer.param_groups):
        own = [p for p in group["params"] if id(p) in head]
        if own:
            group["params"] = [p for p in group["params"] if id(p) not in head]
            optimizer.add_param_group({**group, "params": own, "lr": rate})
