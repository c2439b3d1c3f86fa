"""Makes learners that are taught tiny tasks one by one, and compares all that their folders say."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_runs
from everlora.data.task import Task
from everlora.learner.opened import create
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.learn import learn
from everlora.runtime.progress import Progress

RATES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
TIMES = ("date", "seconds", "peak_bytes", "digest", *RATES)


def taught(place: Path, method: str, *names: str, model: str = "tiny-llama") -> Path:
    """A learner that was taught tasks of these names, one after another."""
    spec = tiny_runs.spec(model, method, max_source_length=32, max_new_tokens=4)
    plain = spec.model_dump(mode="json", exclude={"evaluation"})
    create(place, {**plain, "evaluation": {"scoring": "labels", "schedule": "full"}})
    for name in names:
        teach(place, name, model)
    return place


def teach(place: Path, name: str, model: str = "tiny-llama") -> None:
    learn(place, task_of(model, name), Teaching(by="ada", keep_tests=4), progress=Progress())


def contents(place: Path) -> dict[str, object]:
    """All that a folder says: bytes of tensors, and texts without times and what follows from times."""
    found: dict[str, object] = {}
    for file in sorted(place.rglob("*")):
        name = str(file.relative_to(place))
        hidden = name.startswith((".", "undone")) or name in ("history.jsonl", "environment.json")
        if file.is_dir() or hidden or file.name == "MANIFEST":
            continue
        if file.suffix == ".safetensors":
            found[name] = file.read_bytes()
        elif file.name in ("COMMIT", "matrix.json"):
            found[name] = timeless(json.loads(file.read_text()))
        elif file.name == "training.jsonl":
            found[name] = timeless([json.loads(line) for line in file.read_text().splitlines()])
        else:
            found[name] = file.read_text()
    return found


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in (*TIMES, "files")}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def task_of(model: str, name: str) -> Task:
    return next(task for task in tiny_runs.stream(model, 3) if task.name == name)
