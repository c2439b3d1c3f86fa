"""A task whose training is broken off goes on where it was, and ends bit for bit as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from everlora import Learner, open_stream
from everlora.archive.schema import read_json, write
from everlora.cli.common import interruptible
from everlora.core.errors import Interrupted
from everlora.learner.verbs.repair import repair
from everlora.learner.verbs.verify import verify
from everlora.runtime.progress import Progress
from everlora.training.checkpoint import FOLDER, FROZEN, STATE, TENSORS, TRAINER, Standing

STEPS = 9


class Pulled(RuntimeError):
    """Stands for the end of a process."""


class Cord(Progress):
    """Counts training steps, and pulls the plug behind one of them in the task that is named."""

    def __init__(self, task: str = "", at: int = 0) -> None:
        self.task, self.at, self.label, self.steps = task, at, "", dict[str, int]()
        self.warned: list[str] = []

    def warn(self, line: str) -> None:
        self.warned.append(line)

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
    found = read_json(Standing, state)
    write(state, found.model_copy(update={"key": f"0{found.key}"}))
    again = Cord()
    taught(tmp_path / "cut", "ella", "tiny-llama", again, resume=True)
    assert again.steps["learning reviews"] == STEPS
    assert not any("checkpoint" in line for line in again.warned), "it is not damaged"
    taught(tmp_path / "whole", "ella", "tiny-llama", Cord())
    whole, cut = everything(tmp_path / "whole"), everything(tmp_path / "cut")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip(file: Path) -> None:
    """Change one bit in the last tensor: the file can still be read."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
    "garbage": lambda file: file.write_bytes(b"\xff{]" * 40),
    "flipped": _flip,
}
FILES = (STATE, TENSORS, TRAINER, FROZEN)
DAILY_DAMAGE = ((STATE, "garbage"), (TENSORS, "cut"), (TRAINER, "empty"), (FROZEN, "flipped"), (FROZEN, "missing"))
"""Of these, as for `DAILY`."""


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a whole run, and one that was broken off in its second task, with frozen layers."""
    place = tmp_path_factory.mktemp("broken")
    taught(place / "whole", "seqlora", "tiny-llama", Cord(), layers="top:1")
    with pytest.raises(Pulled):
        taught(place / "cut", "seqlora", "tiny-llama", Cord("reviews", 7), layers="top:1")
    assert {file.name for file in (place / "cut" / FOLDER).iterdir()} == set(FILES)
    return place


@pytest.mark.parametrize(
    ("file", "damage"),
    [pytest.param(f, d, marks=[] if (f, d) in DAILY_DAMAGE else [pytest.mark.full]) for f in FILES for d in DAMAGE],
)
def test_a_damaged_checkpoint_is_left_out_and_the_task_begins_anew(
    file: str, damage: str, broken_off: Path, tmp_path: Path
) -> None:
    place, again = tmp_path / "cut", Cord()
    shutil.copytree(broken_off / "cut", place)
    DAMAGE[damage](place / FOLDER / file)
    assert any("its checkpoint is damaged" in line for line in verify(place).unfinished)
    taught(place, "seqlora", "tiny-llama", again, resume=True, layers="top:1")
    assert again.steps["learning reviews"] == STEPS
    amiss = "is damaged or of an older everlora, and is left out"
    found = [line for line in again.warned if "checkpoint" in line]
    assert found == [f"the checkpoint that the folder holds {amiss}; task 'reviews' begins anew"]
    whole, cut = everything(broken_off / "whole"), everything(place)
    assert whole.keys() == cut.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []
    assert not (place / FOLDER).exists()


def test_verify_says_that_a_whole_checkpoint_is_gone_on_from(broken_off: Path) -> None:
    said = "the training of a task was broken off: teaching it again goes on from there"
    assert said in verify(broken_off / "cut").unfinished


@pytest.mark.parametrize("mend", ["resume", "repair"])
def test_what_is_left_of_a_checkpoint_behind_its_commit_is_swept(mend: str, broken_off: Path, tmp_path: Path) -> None:
    """A process may end between the commit of a task and the removal of its checkpoint."""
    place, again = tmp_path / "run", Cord()
    shutil.copytree(broken_off / "cut", place)
    left = tmp_path / "left"
    shutil.copytree(place / FOLDER, left)
    taught(place, "seqlora", "tiny-llama", Cord(), resume=True, layers="top:1")
    shutil.copytree(left, place / FOLDER)
    assert ["going on sweeps it" in line for line in verify(place).unfinished] == [True]
    if mend == "resume":
        taught(place, "seqlora", "tiny-llama", again, resume=True, layers="top:1")
    else:
        assert repair(place).repaired == ["1 leftovers swept"]
    assert not (place / FOLDER).exists()
    assert verify(place).state == "sound"
    assert not again.warned


def test_repair_removes_a_checkpoint_that_cannot_count_any_more(broken_off: Path, tmp_path: Path) -> None:
    """Though no task begins that it could be left out of."""
    place = tmp_path / "run"
    shutil.copytree(broken_off / "cut", place)
    (place / FOLDER / STATE).write_text("{")
    assert verify(place).state == "unfinished"
    assert "a damaged checkpoint removed: the task that it was of begins anew" in repair(place).repaired
    assert not (place / FOLDER).exists()
    assert verify(place).state == "sound"


def test_opening_a_folder_leaves_a_checkpoint_that_still_counts(broken_off: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(broken_off / "cut", place)
    repair(place)
    Learner.open(place, progress=Cord())
    again = Cord()
    taught(place, "seqlora", "tiny-llama", again, resume=True, layers="top:1")
    assert again.steps["learning reviews"] == STEPS - 6
