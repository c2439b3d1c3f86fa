"""A task whose training is broken off goes on where it was, and ends bit for bit as if nothing had been."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from everlora import Learner, open_stream
from everlora.cli.common import interruptible
from everlora.core.errors import Interrupted
from everlora.runtime.progress import Progress
from everlora.training.checkpoint import FOLDER, STATE

STEPS = 9


class Pulled(RuntimeError):
    """Stands for the end of a process."""


class Cord(Progress):
    """Counts training steps, and pulls the plug behind one of them in the task that is named."""

    def __init__(self, task: str = "", at: int = 0) -> None:
        self.task, self.at, self.label, self.steps = task, at, "", dict[str, int]()

    def phase(self, label: str, total: int) -> None:
        self.label = label

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps[self.label] = self.steps.get(self.label, 0) + steps
        if self.label == f"learning {self.task}" and self.steps[self.label] == self.at:
            raise Pulled


def taught(place: Path, method: str, model: str, cord: Cord, resume: bool = False, every: int = 2,
           **more: Any) -> None:  # fmt: skip
    modality = "vision" if model == "tiny-vit" else "text"
    names = ["digits-0", "digits-1"] if modality == "vision" else ["news", "reviews"]
    benchmark = "digits" if modality == "vision" else "builtin"
    stream = open_stream(benchmark, tasks=None if modality == "vision" else names, max_train_samples=24,
                         max_eval_samples=4)  # fmt: skip
    lora = {"layers": more.pop("layers")} if "layers" in more else {"lora_dropout": 0.1} if method != "osf" else {}
    train = {"max_steps": STEPS, "logging_steps": 4, "per_device_train_batch_size": 4, **more}
    learner = Learner(
        model, method=method, out=place, resume=resume, progress=cord, save_steps=every, train=train, lora=lora,
    )  # fmt: skip
    learner.follow(list(stream)[:2])


def everything(place: Path) -> dict[str, torch.Tensor]:
    files = sorted(place.glob("tasks/*/*.safetensors"))
    return {f"{file.parent.name}/{file.name}/{k}": v for file in files for k, v in load_file(file).items()}


CASES = [
    ("ella", "tiny-llama", {}),
    ("ps-lora", "tiny-bert", {}),
    ("lb-cl", "tiny-t5", {}),
    ("kfac(lam=budget(nats=0.1))", "tiny-bert", {"lr_scheduler_type": "cosine"}),
    ("recurrent-kif", "tiny-bert", {}),
    ("o-lora+migu", "tiny-llama", {"gradient_accumulation_steps": 2}),
    ("ewc+replay", "tiny-llama", {"optim": "adafactor"}),
    ("osf", "tiny-llama", {}),
    ("seqlora+lwf", "tiny-t5", {}),
    ("seqlora", "tiny-llama", {"layers": "top:1"}),
]


DAILY = ("ella", "kfac(lam=budget(nats=0.1))", "recurrent-kif", "seqlora")
"""Of these; the others are tried by make test-all."""
PLANNED = [
    pytest.param(*case, id=f"{case[0]} on {case[1]}", marks=[] if case[0] in DAILY else [pytest.mark.full])
    for case in CASES
]


@pytest.mark.parametrize(("method", "model", "more"), PLANNED)
def test_it_ends_as_if_nothing_had_been(method: str, model: str, more: dict[str, Any], tmp_path: Path) -> None:
    taught(tmp_path / "whole", method, model, Cord(), **more)
    task = "reviews"
    with pytest.raises(Pulled):
        taught(tmp_path / "cut", method, model, Cord(task, 7), **more)
    assert (tmp_path / "cut" / FOLDER / STATE).is_file()
    again = Cord()
    taught(tmp_path / "cut", method, model, again, resume=True, **more)
    assert again.steps[f"learning {task}"] == STEPS - 6, "it went on after step 6, and learned nothing twice"
    whole, cut = everything(tmp_path / "whole"), everything(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []
    for name in ("training.jsonl", "modules.jsonl"):
        old, new = ((tmp_path / one / "tasks" / f"02-{task}" / name).read_text() for one in ("whole", "cut"))
        assert _figures(old) == _figures(new)
    assert not (tmp_path / "cut" / FOLDER).exists(), "nothing is left of it"


def _figures(text: str) -> list[Any]:
    import json

    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("train_runtime", "train_s"))} for row in rows]


class Ended(Cord):
    """Lets the system end this process behind a step, as it does on the command line."""

    def __init__(self, task: str, at: int, number: signal.Signals) -> None:
        super().__init__(task, at)
        self.number = number

    def advance(self, steps: int = 1, note: str = "") -> None:
        try:
            super().advance(steps, note)
        except Pulled:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.full)])
def test_a_system_that_ends_a_process_gets_a_checkpoint_first(number: signal.Signals, tmp_path: Path) -> None:
    """No checkpoint was due before: what is gone on with is the one of the step in which the signal came."""
    before = signal.signal(number, signal.SIG_DFL)  # one that is ignored stays so
    said = "interrupted; a checkpoint of step 5 was written; all stands"
    try:
        with pytest.raises(Interrupted, match=said) as caught, interruptible("all stands"):
            taught(tmp_path / "cut", "ella", "tiny-llama", Ended("news", 5, number), every=100)
    finally:
        signal.signal(number, before)
    assert caught.value.status == 128 + number
    again = Cord()
    taught(tmp_path / "cut", "ella", "tiny-llama", again, resume=True, every=100)
    assert again.steps["learning news"] == STEPS - 5
    taught(tmp_path / "whole", "ella", "tiny-llama", Cord(), every=100)
    whole, cut = everything(tmp_path / "whole"), everything(tmp_path / "cut")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []


def test_in_the_last_step_of_a_task_a_process_ends_without_one(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="interrupted; all stands"), interruptible("all stands"):
        taught(tmp_path / "cut", "ella", "tiny-llama", Ended("news", STEPS, signal.SIGTERM), every=100)
    assert not (tmp_path / "cut" / FOLDER).exists()


def test_a_checkpoint_of_another_task_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(Pulled):
        taught(tmp_path / "cut", "ella", "tiny-llama", Cord("reviews", 7))
    state = tmp_path / "cut" / FOLDER / STATE
    state.write_text(state.read_text().replace('"key": "', '"key": "0'))
    again = Cord()
    taught(tmp_path / "cut", "ella", "tiny-llama", again, resume=True)
    assert again.steps["learning reviews"] == STEPS
    taught(tmp_path / "whole", "ella", "tiny-llama", Cord())
    whole, cut = everything(tmp_path / "whole"), everything(tmp_path / "cut")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []
