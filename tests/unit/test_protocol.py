"""Protocols are data: packaged ones resolve, a hash tells what a number depends on, bad files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlora.archive.identity import RunProtocol
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.data.template import DEFAULT
from everlora.learner.resolve import hash_as_written, protocol_of, resolve
from everlora.settings import protocol
from everlora.settings.spec import RunSpec

M: dict[str, Any] = {"model": "tiny-llama"}


def hash_of(*layers: dict[str, Any]) -> str:
    spec = resolve(RunSpec, M, *layers)
    return protocol_of(spec, parse(spec.method)).hash


@pytest.mark.parametrize("name", protocol.known())
def test_packaged_protocols_are_complete_and_resolve(name: str) -> None:
    found = protocol.read(name)[1]
    assert found.title
    assert found.source
    spec = resolve(RunSpec, M, {"protocol": name})
    assert spec.protocol.name == name
    for key, value in found.settings.items():
        kept = getattr(spec, key)
        if isinstance(value, dict):
            kept = kept if isinstance(kept, dict) else kept.model_dump()
            assert value.items() <= kept.items()
        else:
            assert kept == value


def test_the_four_that_were_promised_are_there() -> None:
    assert {"paper-ella", "paper-lbcl", "paper-olora", "small-cpu"} <= set(protocol.known())


def test_flags_win_over_the_protocol_and_it_over_defaults() -> None:
    spec = resolve(RunSpec, M, {"protocol": "small-cpu", "max_eval_samples": 7})
    assert (spec.max_train_samples, spec.max_eval_samples) == (96, 7)
    assert spec.train["per_device_train_batch_size"] == 4


@pytest.mark.parametrize(
    "other",
    [
        {"method": "o-lora"},
        {"model": "tiny-t5"},
        {"seed": 3},
        {"benchmark": "standard", "order": 2},
        {"tasks": ["news"]},
        {"train": {"logging_steps": 1}},
        {"evaluation": {"batch_size": 5}},
        {"method": "lb-cl"},  # whose form has another rate
        {"method": "seqft"},
        {"prompt": DEFAULT},
        {"lora": {"lora_alpha": 8}},
        {"train": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}},
    ],
    ids=str,
)
def test_what_a_protocol_compares_or_does_not_depend_on_leaves_its_hash(other: dict[str, Any]) -> None:
    assert hash_of(other) == hash_of()


@pytest.mark.parametrize(
    "other",
    [
        {"max_train_samples": 3},
        {"max_eval_per_class": 3},
        {"prompt": "{text}"},
        {"metric": "rouge_l"},
        {"lora": {"r": 4}},
        {"train": {"learning_rate": 3e-4}},
        {"train": {"num_train_epochs": 2}},
        {"train": {"per_device_train_batch_size": 2}},
        {"train_of": {"news": {"num_train_epochs": 2}}},
        {"evaluation": {"schedule": "final"}},
        {"evaluation": {"split": "dev"}},
    ],
    ids=str,
)
def test_what_a_number_depends_on_changes_the_hash(other: dict[str, Any]) -> None:
    assert hash_of(other) != hash_of()


def test_epochs_are_by_size_where_nobody_sets_them_and_play_no_part_where_steps_are_set() -> None:
    def canonical(train: dict[str, Any]) -> object:
        return protocol.canonical(resolve(RunSpec, M, {"train": train}).model_dump(mode="json"), 1e-3)["train"]

    def epochs(train: dict[str, Any]) -> object:
        found = canonical(train)
        assert isinstance(found, dict)
        return found["num_train_epochs"]

    assert [epochs(train) for train in ({}, {"max_steps": -1}, {"max_steps": 7}, {"num_train_epochs": 3})] == [
        "by size", "by size", 1, 3,
    ]  # fmt: skip
    assert hash_of({"train": {"num_train_epochs": 1}}) == hash_of({"train": {"num_train_epochs": 1.0}}) != hash_of()


@pytest.mark.parametrize("name", protocol.known())
def test_packaged_protocols_set_their_epochs(name: str) -> None:
    train = protocol.read(name)[1].settings["train"]
    assert isinstance(train, dict)
    assert {"num_train_epochs", "max_steps"} & train.keys()


@pytest.mark.parametrize("method", ["seqlora", "lb-cl", "seqft"])
def test_a_rate_that_is_given_is_one_protocol_for_all_methods(method: str) -> None:
    """Also for the method whose form has that very rate."""
    given = {"train": {"learning_rate": 1e-3}}
    assert hash_of(given, {"method": method}) == hash_of(given, {"method": "ella"}) != hash_of({"method": method})


@pytest.mark.parametrize("name", protocol.known())
@pytest.mark.parametrize("method", ["o-lora", "lb-cl"])
def test_every_method_that_follows_a_protocol_has_the_hash_that_is_shown(name: str, method: str) -> None:
    spec = resolve(RunSpec, M, {"protocol": name, "method": method})
    shown = hash_as_written(protocol.read(name)[1])
    assert protocol_of(spec, parse(method)) == RunProtocol(name=name, hash=shown, changed=False)


def test_processes_make_the_batch_larger() -> None:
    def digest(rows: int, processes: int) -> str:
        spec = resolve(RunSpec, M, {"train": {"per_device_train_batch_size": rows}})
        return protocol.digest(spec.model_dump(mode="json"), 1e-3, processes)

    assert digest(8, 1) == digest(2, 4) != digest(8, 4)


def test_what_is_changed_says_so_also_over_the_run_yaml_of_another_run() -> None:
    def described(*layers: dict[str, Any]) -> str:
        spec = resolve(RunSpec, M, *layers)
        return protocol_of(spec, parse(spec.method)).describe()

    small = resolve(RunSpec, M, {"protocol": "small-cpu"}).model_dump(mode="json")
    shown = hash_of(small)
    assert described(small) == described({"protocol": "small-cpu"}) == f"small-cpu ({shown})"
    assert described(small, {"seed": 7, "method": "lwf"}) == f"small-cpu ({shown})"
    changed = {"max_eval_samples": 7}
    assert described(small, changed) == described({"protocol": "small-cpu"}, changed)
    assert described(small, changed) == f"small-cpu with changes ({hash_of(small, changed)})"
    assert described(small, {"protocol": "paper-olora"}).startswith(
        "paper-olora with changes ("
    )  # run.yaml stands above
    assert described({}) == hash_of()


def test_arguments_of_single_tasks_are_checked() -> None:
    spec = resolve(RunSpec, M, {"train_of": {"news": {"learning_rate": "1e-4"}}})
    assert spec.train_of == {"news": {"learning_rate": 1e-4}}
    with pytest.raises(ConfigError, match="did you mean 'num_train_epochs'"):
        resolve(RunSpec, M, {"train_of": {"news": {"num_train_epoch": 2}}})
    with pytest.raises(ConfigError, match=r"setting 'train_of\.news'"):
        resolve(RunSpec, M, {"train_of": {"news": 3}})


def test_one_protocol_by_name_or_by_its_settings() -> None:
    settings = protocol.read("small-cpu")[1].settings
    assert hash_of({"protocol": "small-cpu"}) == hash_of(settings)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: mine\nsettings: {max_train_per_class: 2, train: {num_train_epochs: 3}}\n")
    spec = resolve(RunSpec, M, {"protocol": str(file)})
    assert (spec.protocol.name, spec.max_train_per_class, spec.train["num_train_epochs"]) == ("mine", 2, 3)
    file.unlink()
    assert resolve(RunSpec, spec.model_dump(mode="json")) == spec  # run.yaml needs the file no more


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x\n", "must be a mapping with title and settings"),
        ("title: x\nsettings: {max_trian_samples: 3}\n", "did you mean 'max_train_samples'"),
        ("title: x\nsettings: {method: ella}\n", "sets 'method', which a protocol leaves to the run"),
        ("title: x\nsettings: {prompt: '{txt}'}\n", "unknown field {txt}"),
        ("titel: x\nsettings: {}\n", "did you mean 'title'"),
        ("title: [\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_told_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        resolve(RunSpec, M, {"protocol": str(tmp_path / "bad.yaml")})
    assert said in str(error.value)


def test_an_unknown_name_and_a_missing_file() -> None:
    with pytest.raises(ConfigError, match="did you mean 'small-cpu'"):
        resolve(RunSpec, M, {"protocol": "small_cpu"})
    with pytest.raises(ConfigError, match=r"cannot read the protocol nowhere\.yaml"):
        resolve(RunSpec, M, {"protocol": "nowhere.yaml"})
