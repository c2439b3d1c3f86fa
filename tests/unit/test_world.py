"""What accelerate's environment asks for, against what runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType

import tiny_runs
from everlora.core.errors import ConfigError, FolderError, TrainingError
from everlora.runtime import world
from everlora.training.chain import Chain
from everlora.training.stock_arguments import arguments
from everlora.training.trainer import ClTrainer, Rows


@pytest.mark.parametrize("variable", world.ENGINES)
@pytest.mark.parametrize("value", ["true", "True", "1"])
def test_an_engine_that_hides_gradients_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"asks for .* \\({variable}\\), under which no method sees a gradient"):
        world.size()
    monkeypatch.setenv(variable, "false")
    assert world.size() == 1


def test_a_launcher_that_started_one_process_of_several_is_refused() -> None:
    """What ``accelerate launch --cpu --num_processes 2`` leaves in the environment of its only process."""
    launched = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"}
    several = {**launched, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(ConfigError, match=r"has started one, .* torchrun --nproc-per-node 2"):
        world.check_engine(several)
    for fine in (launched, {**several, "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, {"MASTER_ADDR": "127.0.0.1"}, {}):
        world.check_engine(fine)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "x"}, "WORLD_SIZE=2"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3"),
        ({"RANK": "5", "LOCAL_RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "RANK counts from 0"),
        ({"RANK": "0", "LOCAL_RANK": "zero", "WORLD_SIZE": "1"}, "LOCAL_RANK=zero"),
        ({"ACCELERATE_TORCH_DEVICE": "zorg"}, "ACCELERATE_TORCH_DEVICE=zorg"),
        pytest.param({"ACCELERATE_TORCH_DEVICE": "cuda"}, "ACCELERATE_TORCH_DEVICE=cuda",
                     marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
    ],
)  # fmt: skip
def test_an_environment_that_names_no_process_is_one_line(
    environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.PartialState._shared_state", {})
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    for _ in range(2):  # nor does a second look find half a state
        with pytest.raises(ConfigError, match="does not say which process and device this is") as caught:
            world.device()
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    for variable in environ:
        monkeypatch.delenv(variable)
    assert world.size() == 1


def test_precision_comes_from_settings_and_not_from_the_environment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match="ACCELERATE_MIXED_PRECISION=bf16, which would stand in no record"):
        arguments({}, folder=str(tmp_path), seed=0, cpu=True)
    assert arguments({"bf16": True}, folder=str(tmp_path), seed=0, cpu=True).bf16
    with pytest.raises(ConfigError, match="ACCELERATE_DYNAMO_BACKEND=inductor"):
        world.check_precision({"ACCELERATE_DYNAMO_BACKEND": "inductor"}, {})


def test_a_trainer_under_another_engine_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, task = tiny_runs.fresh("tiny-llama"), tiny_runs.stream("tiny-llama")[0]
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", DistributedType.FSDP)
    monkeypatch.setattr("transformers.Trainer.__init__", _with_accelerator)
    with pytest.raises(ConfigError, match="would run under FSDP, where no method sees a gradient"):
        ClTrainer(
            loaded.family, Chain(params=[], task="x"), model=loaded.model, train_dataset=Rows(loaded.family, [task])
        )


def _with_accelerator(self: Any, *args: Any, **kwargs: Any) -> None:
    self.accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP)


def test_a_step_in_which_no_parameter_has_a_gradient_ends_the_run() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    chain, state = Chain(params=[weight], task="news"), SimpleNamespace(global_step=4)
    with pytest.raises(TrainingError, match="no parameter has a gradient at step 5 of task 'news'"):
        chain.on_pre_optimizer_step(None, state, None)
    weight.grad = torch.zeros(2)  # a gradient of zero is one
    chain.on_pre_optimizer_step(None, state, None)


def test_one_process_is_refused_in_its_own_words() -> None:
    def refused() -> None:
        raise FolderError("no")

    assert world.on_main(lambda: 3) == 3
    with pytest.raises(FolderError, match=r"^no$"):
        world.on_main(refused)
