from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainingArguments

from everlora.core.errors import ConfigError
from everlora.settings.training import HEAD_RATE
from everlora.training import arguments as rules
from everlora.training import stock_arguments


def test_the_lists_name_arguments_that_exist() -> None:
    named = rules.OWNED | rules.UNSUPPORTED.keys() | {*rules.ABOVE_ZERO, *rules.NOT_NEGATIVE}
    assert named - {HEAD_RATE} <= rules._kinds().keys()
    assert HEAD_RATE not in rules._kinds(), "transformers has one of this name now: ours may mean another"
    for beginning in rules.UNSUPPORTED_BEGINNINGS:
        assert any(name.startswith(beginning) for name in rules._kinds())


def test_several_gpus_in_one_process_never_make_a_data_parallel_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FourGpus(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr(stock_arguments, "TrainingArguments", FourGpus)
    args = stock_arguments.arguments({"per_device_train_batch_size": 2}, folder=str(tmp_path), seed=0, cpu=True)
    assert (args.n_gpu, args.train_batch_size) == (1, 2)


@pytest.mark.parametrize("kind", [ValueError, ImportError])
def test_a_refusal_of_transformers_is_one_line(kind: type[Exception]) -> None:
    for text, said in (("first\nsecond", "first"), ("", kind.__name__)):
        with pytest.raises(ConfigError, match=f"cannot be used: {said}$"), stock_arguments.refusals():
            raise kind(text)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lora.rank", ", which would be the setting 'lora.r' (--lora-r)"),
        ("evaluation.schedule", ", which would be the setting 'evaluation.schedule' (--eval-schedule)"),
        ("lora.no_such_thing", ""),
    ],
)
def test_a_name_with_dots_means_another_setting(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.checked(name, 4)
    assert str(caught.value) == f"unknown training argument {name!r}{hint}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, 0, f"{name!r} must be above zero (got 0)") for name in rules.ABOVE_ZERO),
        ("max_steps", 0, "'max_steps' must be above zero (got 0)"),
        ("max_steps", -2, "'max_steps' must be above zero (got -2)"),
        ("logging_steps", 1.5, "'logging_steps' must be a whole number (got 1.5)"),
        *((name, -1, f"{name!r} must not be negative (got -1)") for name in rules.NOT_NEGATIVE),
        ("learning_rate", float("inf"), "'learning_rate' must be a finite number (got inf)"),
        ("learning_rate", "much", "'learning_rate': Input should be a valid number"),
        ("learning_rate", True, "'learning_rate': "),
        ("optim", "lomo", "the optimizer 'lomo' steps during the backward pass"),
        ("optim", "galore_adamw_layerwise", "the optimizer 'galore_adamw_layerwise' steps during the backward pass"),
        ("output_dir", "x", "the training argument 'output_dir' is set by everlora; it is --out, in Python out="),
        (
            "report_to",
            "wandb",
            "'report_to' is set by everlora; name trackers with --report-to, in Python with report_to=",
        ),
        ("do_eval", True, "'do_eval' is not supported by everlora: tasks are scored as the 'evaluation' settings say"),
        ("eval_steps", 3, "'eval_steps' is not supported by everlora: tasks are scored"),
        ("save_steps", 3, "'save_steps' is not supported by everlora: finished tasks are kept in the run folder"),
        ("hub_token", "x", "'hub_token' is not supported by everlora: finished tasks are kept"),
        ("weight_decai", 1, "unknown training argument 'weight_decai'; did you mean 'weight_decay'"),
        ("do_evall", 1, "unknown training argument 'do_evall'"),
    ],
)
def test_values_that_cannot_be_used_are_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.checked(name, value)
    assert said in str(caught.value)
    assert "did you mean 'do_eval'" not in str(caught.value), "what is not supported is not offered"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("num_train_epochs", 0.25, 0.25),
        ("gradient_accumulation_steps", 1, 1),
        ("max_steps", -1, -1),
        ("max_steps", 1, 1),
        ("logging_steps", 2.0, 2.0),
        ("learning_rate", 0, 0),
        ("learning_rate", "1e-4", 1e-4),
        ("max_grad_norm", 0.0, 0.0),
        ("optim", "sgd", "sgd"),
    ],
)
def test_values_at_their_edges_are_taken(name: str, value: object, found: object) -> None:
    assert rules.checked(name, value) == found


def test_a_warm_up_that_the_schedule_passes_over_is_refused() -> None:
    for train in ({"warmup_steps": 5}, {"warmup_steps": 5, "lr_scheduler_type": "constant"}):
        with pytest.raises(ConfigError, match="'warmup_steps' does nothing where lr_scheduler_type is 'constant'"):
            rules.check_together(train, None)
    with pytest.raises(ConfigError, match="where lr_scheduler_type is 'reduce_lr_on_plateau'"):
        rules.check_together({"warmup_steps": 5, "lr_scheduler_type": "reduce_lr_on_plateau"}, None)
    for schedule in ("constant_with_warmup", "linear", "cosine"):
        rules.check_together({"warmup_steps": 5, "lr_scheduler_type": schedule}, None)
    rules.check_together({"warmup_steps": 0}, None)


def test_arguments_of_one_task_stand_with_those_of_the_run() -> None:
    workers = {"dataloader_num_workers": 1}
    for name, value in (("dataloader_persistent_workers", True), ("dataloader_prefetch_factor", 2)):
        rules.check_together(workers, {"a": {name: value}})
        rules.check_together({name: value, **workers}, None)
        for train, of in (({name: value}, None), ({}, {"a": {name: value}}), ({name: value}, {"a": workers})):
            with pytest.raises(ConfigError, match=f"'{name}' needs dataloader_num_workers above zero"):
                rules.check_together(train, of)


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
