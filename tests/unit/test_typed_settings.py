"""The keyword arguments that editors complete: the settings, all of them, with their types."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from everlora import Learner
from everlora.core.errors import ConfigError
from everlora.settings.lora import LoraSpec
from everlora.settings.spec import EvalSpec, LearnerSpec
from everlora.settings.typed import EvaluationSettings, LearnerSettings, LoraSettings, SettingsHere

GROUPS = {"lora", "evaluation", "train", "train_of", "protocol"}
"""Fields that are typed by dictionaries of their own, and not as the spec holds them."""


def plain(kind: Any) -> Any:
    """A type without what annotates it, in any depth."""
    if get_origin(kind) is Annotated:
        return plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return frozenset(plain(one) for one in get_args(kind))
    if (inner := get_args(kind)) and get_origin(kind) in (list, dict):
        return (get_origin(kind), *(plain(one) for one in inner))
    return kind


@pytest.mark.parametrize(
    ("named", "spec", "without"),
    [
        (LearnerSettings, LearnerSpec, {"model", "method"}),
        (LoraSettings, LoraSpec, set()),
        (EvaluationSettings, EvalSpec, set()),
    ],
)
def test_every_setting_is_named_with_its_type(named: Any, spec: Any, without: set[str]) -> None:
    hints = get_type_hints(named)
    fields = {name: field.annotation for name, field in spec.model_fields.items() if name not in without}
    assert list(hints) == list(fields)
    assert {n: plain(kind) for n, kind in hints.items() if n not in GROUPS} == {
        n: plain(kind) for n, kind in fields.items() if n not in GROUPS
    }


def test_a_learner_takes_them_by_name() -> None:
    hints = get_type_hints(Learner.__init__)
    assert get_args(hints["settings"]) == (LearnerSettings,)
    assert get_args(get_type_hints(Learner.open)["here"]) == (SettingsHere,)
    assert inspect.signature(Learner.__init__).parameters["settings"].kind is inspect.Parameter.VAR_KEYWORD


def test_a_name_that_is_none_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'sed'; did you mean 'seed'"):
        Learner("tiny-bert", out=tmp_path / "l", sed=1)  # type: ignore[call-arg]
