from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainingArguments

from everlora.core.errors import ConfigError
from everlora.training import arguments as rules
from everlora.training import trainer


def test_the_lists_name_arguments_that_exist() -> None:
    assert rules.OWNED | rules.UNSUPPORTED.keys() | {*rules.ABOVE_ZERO, *rules.NOT_NEGATIVE} <= rules._kinds().keys()
    for beginning in rules.UNSUPPORTED_BEGINNINGS:
        assert any(name.startswith(beginning) for name in rules._kinds())


def test_several_gpus_in_one_process_never_make_a_data_parallel_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FourGpus(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr(trainer, "TrainingArguments", FourGpus)
    args = trainer.arguments({"per_device_train_batch_size": 2}, folder=str(tmp_path), seed=0, cpu=True)
    assert (args.n_gpu, args.train_batch_size) == (1, 2)


@pytest.mark.parametrize("kind", [ValueError, ImportError])
def test_a_refusal_of_transformers_is_one_line(kind: type[Exception]) -> None:
    for text, said in (("first\nsecond", "first"), ("", kind.__name__)):
        with pytest.raises(ConfigError, match=f"cannot be used: {said}$"), trainer._refusals():
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
