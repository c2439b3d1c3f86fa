"""Runs the demonstration: a small encoder learns six tasks, once naively and twice with the past protected.

Its head is made of the labels' names and never trained, so that whatever is learned, and whatever is forgotten, is so
in the body; every method trains at the same scale and rate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from scipy import stats

from everlora.settings.spec import RawSettings

SETTINGS: RawSettings = {
    "model": "minilm",
    "dtype": "float32",
    "benchmark": "builtin",
    "tasks": ["news", "questions", "reply", "outlook", "forum", "intent"],
    "max_train_samples": 192,
    "max_eval_samples": 96,
    "head": "names",
    "lora": {"r": 8, "lora_alpha": 2, "layers": "top:2"},
    "train": {"learning_rate": 1e-2, "num_train_epochs": 4, "per_device_train_batch_size": 16},
    "evaluation": {"schedule": "full", "scoring": "labels"},
}
METHODS = ("seqlora", "ella", "kfac")
CONFIDENCE = 0.95
NEXT = (
    ("teach your own tasks (README)", "run --benchmark tasks.yaml --method kfac -o runs/mine"),
    ("see what a method does", "methods ella"),
    (
        "compare methods, in minutes",
        "sweep -m minilm --head names --tasks news,questions --methods seqlora,ella,kfac -o runs/compared",
    ),
)
"""What a newcomer can do when the demonstration has ended: in words, and as arguments of ``everlora``."""


@dataclass(frozen=True)
class OverSeeds:
    """Holds what a method ends at over several seeds, percent: mean and the 95 % t interval of the mean.

    Attributes:
        method: by name.
        OA: mean accuracy over the tasks after the last.
        low, high: ends of the interval of OA.
        BWT: mean backward transfer.
    """

    method: str
    OA: float
    low: float
    high: float
    BWT: float


@dataclass(frozen=True)
class Stored:
    """Holds the runs of the demonstration that were made beforehand, over several seeds.

    Attributes:
        command: that made them.
        seconds: processor time of one core for the three methods of one seed.
        seeds: how many.
        methods: what they came to.
    """

    command: str
    seconds: float
    seeds: int
    methods: tuple[OverSeeds, ...]


def stored() -> Stored:
    """Read the runs over several seeds that come with everlora, in this folder."""
    facts = json.loads(files("everlora.learner").joinpath("demo_seeds.json").read_text(encoding="utf-8"))
    methods = []
    for method, runs in facts["methods"].items():
        scores = [run["OA"] for run in runs]
        low, high = interval(scores)
        mean, transfer = sum(scores) / len(scores), sum(run["BWT"] for run in runs) / len(runs)
        methods.append(OverSeeds(method, mean, low, high, transfer))
    seeds = len(next(iter(facts["methods"].values())))
    return Stored(facts["command"], facts["seconds"], seeds, tuple(methods))


def interval(scores: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t.

    >>> [round(end, 2) for end in interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    mean, error = sum(scores) / len(scores), stats.sem(scores)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(scores) - 1) * error)
    return mean - reach, mean + reach
