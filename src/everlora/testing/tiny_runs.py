"""Makes what tests of whole runs are made of: tiny models, tiny streams with uneven lengths, a run in one call.

Models are built once per process and copied; streams are drawn from fixed seeds.
"""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everlora.core.expressions import parse
from everlora.core.method import Method
from everlora.data.task import Example, Task
from everlora.learner import experiment
from everlora.learner.sequential import SequentialLearner
from everlora.models.families import Family
from everlora.models.families.pooled import Pooling
from everlora.models.loading import Loaded, load
from everlora.runtime.progress import Progress
from everlora.settings.spec import LearnerSpec

# Every Trainer ends with a full garbage collection; over the imported libraries that is most of a tiny run's time.
gc.freeze()

MODELS = ("tiny-llama", "tiny-t5", "tiny-bert", "tiny-vit")
"""One of each model family, in the order of `everlora.core.registry.FAMILIES`."""
_TEXT = "the of movie film music team game company market stock science study phone order service price"
_WORDS = _TEXT.split()
_LABELS: tuple[tuple[str, ...], ...] = (
    ("yes", "no"),
    ("positive", "very negative indeed", "neutral"),
    ("no", "great music"),
)
NAMES = ("first", "second", "third")


@cache
def base(model: str, dtype: str = "float32", pooling: Pooling | None = None) -> Loaded:
    """Return a loaded model, which is shared: copy it before use."""
    return load(model, dtype=dtype, device="cpu", pooling=pooling)


def fresh(model: str, dtype: str = "float32", pooling: Pooling | None = None) -> Loaded:
    """Return a copy of a model that may be trained on."""
    return copy.deepcopy(base(model, dtype, pooling))


def text_task(name: str, labels: Sequence[str], seed: int, train: int = 24, test: int = 4) -> Task:
    """Make a task of texts of 1 to 14 words, labels of uneven length in turn."""
    draw = random.Random(seed)

    def rows(n: int) -> list[Example]:
        return [
            Example(" ".join(draw.choices(_WORDS, k=draw.randint(1, 14))), labels[draw.randrange(len(labels))])
            for _ in range(n)
        ]

    return Task(name=name, train=rows(train), test=rows(test), labels=tuple(labels), instruction="Answer it.")


def image_task(name: str, labels: Sequence[str], seed: int, train: int = 24, test: int = 4) -> Task:
    """Make a task of noise whose brightness tells the label."""
    draw = np.random.default_rng(seed)

    def rows(n: int) -> list[Example]:
        kinds = draw.integers(len(labels), size=n)
        return [
            Example(draw.integers(0, 80 + 80 * k, size=(32, 32, 3)).astype(np.uint8), labels[k])
            for k in map(int, kinds)
        ]

    return Task(name=name, train=rows(train), test=rows(test), labels=tuple(labels), form="image")


@cache
def stream(model: str, tasks: int = 2) -> tuple[Task, ...]:
    """Make a short stream that ``model`` can read; the third task shares a label with the first."""
    make = image_task if model == "tiny-vit" else text_task
    return tuple(make(NAMES[k] if k < 3 else f"task{k + 1}", _LABELS[k % 3], seed=k + 1) for k in range(tasks))


def spec(model: str, method: str, **settings: Any) -> LearnerSpec:
    """Return settings small enough for a test: three steps of eight rows."""
    train = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 1}
    small = {
        "dtype": "float32",
        "device": "cpu",
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0},
        "train": train,
        "evaluation": {"scoring": "labels", "schedule": "final"},
    }
    return experiment.resolve(LearnerSpec, {"model": model, "method": method}, small, settings)


def begin(
    model: str,
    method: str | Method,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    loaded: Loaded | None = None,
    **settings: Any,
) -> SequentialLearner:
    """Begin a run in an empty (or, with ``resume``, its own) folder."""
    composed = parse(method) if isinstance(method, str) else method
    name = method if isinstance(method, str) else composed.name
    settled = spec(model, name, **settings)
    loaded = loaded or fresh(model, settled.dtype, settled.pooling)
    return experiment.begin(settled, composed, loaded, out, resume=resume, progress=progress or Progress())


def train_sequence(
    model: str, method: str | Method, out: Path, tasks: Sequence[Task] | None = None, **options: Any
) -> SequentialLearner:
    """Make a run follow ``tasks`` (two by default)."""
    learner = begin(model, method, out, **options)
    learner.follow(tasks or stream(model))
    return learner


class Watch(Progress):
    """Calls back when a phase begins, named as on the screen: ``learning second``, ``answering first``."""

    def __init__(self, **when: Callable[[str], None]) -> None:
        self.when = when
        self.warnings: list[str] = []

    def phase(self, label: str, total: int) -> None:
        verb, _, task = label.partition(" ")
        if verb in self.when:
            self.when[verb](task)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


class Cut(Watch):
    """Raises an exception in the midst of learning a task, as Ctrl-C, a power failure or a full disk would."""

    def __init__(self, task: str = "second", step: int = 2) -> None:
        super().__init__(learning=self._name)
        self.at, self.now = (task, step), ("", 0)

    def _name(self, task: str) -> None:
        self.now = (task, 0)

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.now = (self.now[0], self.now[1] + steps)
        if self.now == self.at:
            raise KeyboardInterrupt


@torch.no_grad()
def outputs(model: nn.Module, family: Family, task: Task, rows: Sequence[Example] | None = None) -> Tensor:
    """Return all logits that carry loss on ``rows`` (the test rows), of the task's own labels if there is a head."""
    was_training = model.training
    model.eval()
    batch = family.collate([family.features(row, task) for row in rows or task.test])
    if family.head:
        batch["allowed"] = torch.zeros_like(batch["allowed"])
        batch["allowed"][:, family.label_rows(task)] = True
    logits, _ = family.logits(model, batch)
    model.train(was_training)
    return logits[logits.isfinite()].double()


def adapter(learner: SequentialLearner) -> dict[str, Tensor]:
    """Return the latest task's adapter and the head as flat tensors."""
    assert learner.newest is not None
    flat = {f"{n}.{k}": t for n, site in learner.newest.items() for k, t in site.tensors.items()}
    if learner.base.family.head:
        flat |= dict(learner.base.model.get_submodule(learner.base.family.head).named_parameters())
    return {name: tensor.detach().clone() for name, tensor in flat.items()}


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest absolute difference between two adapters."""
    assert a.keys() == b.keys()
    return max(float((a[n].double() - b[n].double()).abs().max()) for n in a)


def with_signs_of(reference: dict[str, Tensor], flat: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `flat` with every direction turned, where need be, so that its rows of A point as `reference`'s.

    Row k of A and column k of B negated together are the same update BA, and SGD and Adam, which are odd functions of
    the gradient, go the same way from there. Where A begins with singular vectors that sign means nothing: the last
    bit of a gradient decides it.
    """
    turned = dict(flat)
    for name in (key.removesuffix(".A") for key in flat if key.endswith(".A") and f"{key[:-2]}.B" in flat):
        A, B = flat[f"{name}.A"], flat[f"{name}.B"]
        sign = torch.where((A * reference[f"{name}.A"]).sum(-1) < 0, -1, 1)
        turned |= {f"{name}.A": sign.unsqueeze(-1) * A, f"{name}.B": B * sign}
    return turned
