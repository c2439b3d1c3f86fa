from __future__ import annotations

import pytest

from everlora.core.errors import ConfigError
from everlora.training import arguments as rules


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        *((name, 1, 1) for name in rules.ABOVE_ZERO),
        *((name, 0, 0) for name in rules.NOT_NEGATIVE),
        ("max_steps", -1, -1),
        ("max_steps", 1, 1),
        ("learning_rate", "1e-4", 1e-4),
        ("logging_steps", "5", 5.0),
        ("num_train_epochs", 0.5, 0.5),
        ("optim", "adamw_torch", "adamw_torch"),
        ("bf16", "true", True),
    ],
)
def test_an_argument_that_can_be_used_is_read(name: str, value: object, found: object) -> None:
    read = rules.checked(name, value)
    assert (read, type(read)) == (found, type(found))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        *((name, 0, "must be above zero") for name in rules.ABOVE_ZERO),
        *((name, -1, "must not be negative") for name in rules.NOT_NEGATIVE),
        ("max_steps", 0, "must be above zero"),
        ("max_steps", -2, "must be above zero"),
        ("learning_rate", float("nan"), "must be a finite number"),
        ("learning_rate", "inf", "must be a finite number"),
        ("logging_steps", 1.5, "must be a whole number"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(name: str, value: object, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.checked(name, value)
    assert str(caught.value) == f"training argument {name!r} {why} (got {value!r})"


def test_a_value_of_the_wrong_kind_is_refused_in_one_line() -> None:
    for name, value in (("max_steps", "many"), ("learning_rate", True), ("learning_rate", [1])):
        with pytest.raises(ConfigError) as caught:
            rules.checked(name, value)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"training argument {name!r}: ")
        assert line.endswith(f" (got {value!r})")


@pytest.mark.parametrize(("value", "fine"), [("lomo", False), ("adalomo", False), ("x_layerwise", False), ("x", True)])
def test_an_optimizer_that_steps_too_early_is_refused(value: str, fine: bool) -> None:
    if fine:
        assert rules.checked("optim", value) == value
        assert rules.checked("lr_scheduler_type", "linear") == "linear"
        return
    with pytest.raises(ConfigError, match=r"steps during the backward pass, before any penalty; choose another$"):
        rules.checked("optim", value)


@pytest.mark.parametrize("name", ["dataloader_persistent_workers", "dataloader_prefetch_factor"])
def test_workers_that_are_not_there_have_no_settings(name: str) -> None:
    """Nor in the arguments of a single task, which stand over those of the run."""
    rules.check_together({}, None)
    rules.check_together({name: 0}, {"one": {}})
    rules.check_together({name: 2, "dataloader_num_workers": 1}, {"one": {name: 3}})
    for train, of in (
        ({name: 2}, None),
        ({}, {"one": {}, "two": {name: 2}}),
        ({name: 2, "dataloader_num_workers": 1}, {"one": {"dataloader_num_workers": 0}}),
    ):
        with pytest.raises(ConfigError, match=f"'{name}' needs dataloader_num_workers above zero; set that, too"):
            rules.check_together(train, of)


def test_the_nearest_name_is_one_that_may_be_set() -> None:
    assert not {*rules.OWNED, *rules.UNSUPPORTED, "eval_steps", "hub_model_id"} & {*rules._settable()}
    assert {"learning_rate", "optim", "max_steps"} <= {*rules._settable()}
    with pytest.raises(ConfigError, match="unknown training argument 'optm'; did you mean 'optim'"):
        rules.checked("optm", 1)
