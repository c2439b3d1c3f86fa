"""The acts that are tortured: each makes a folder of what stands in one, and can be begun again wherever it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everlora.archive.committed import read_stages
from everlora.archive.manifest import read_manifest
from everlora.archive.verify import inspect
from everlora.core.errors import EverloraError
from everlora.data.task import Example, Task
from everlora.learner.opened import create, load_learner
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.compact import compact
from everlora.learner.verbs.evaluate import evaluate
from everlora.learner.verbs.export import export
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.repair import repair
from everlora.learner.verbs.rollback import rollback
from everlora.learner.verbs.verify import keep_parity
from everlora.runtime.progress import Progress
from torture.faults import Faults, Tree, killed, put, run, tree

SETTINGS: Any = {
    "model": "tiny-llama",
    "method": "ella",
    "lora": {"r": 2},
    "train": {"max_steps": 1, "per_device_train_batch_size": 2},
    "evaluation": {"scoring": "labels"},
    "device": "cpu",
}


def task(name: str, *labels: str) -> Task:
    """Make a task of a few rows."""
    rows = [Example(f"a {labels[k % len(labels)]} row, number {k}", labels[k % len(labels)]) for k in range(6)]
    return Task(name=name, train=rows[:4], test=rows[4:], labels=labels)


FIRST, SECOND = task("colors", "red", "blue"), task("moods", "happy", "sad")


LEARNER = "learner"
"""Folder of the learner below that of an act that writes elsewhere."""


def init(path: Path) -> None:
    create(path, SETTINGS)


def init_forward(path: Path) -> None:
    create(path, {**SETTINGS, "evaluation": {"scoring": "labels", "schedule": "forward"}})


def below(act: Callable[[Path], None]) -> Callable[[Path], None]:
    """Do an act to the learner below a folder."""
    return lambda path: act(path / LEARNER)


def learn_unkept(path: Path) -> None:
    learn(path, FIRST, progress=Progress())


def learn_first(path: Path) -> None:
    learn(path, FIRST, Teaching(keep_tests=2), progress=Progress())


def learn_second(path: Path) -> None:
    learn(path, SECOND, Teaching(keep_tests=2), progress=Progress())


def evaluate_all(path: Path) -> None:
    evaluate(path)


def evaluate_and_keep(path: Path) -> None:
    evaluate(path, {FIRST.name: FIRST.test}, keep=2)


def take_back(path: Path) -> None:
    rollback(path, FIRST.name)


def forget_first(path: Path) -> None:
    forget(path, FIRST.name)


def compact_all(path: Path) -> None:
    compact(path, 2)


def hand_over(path: Path) -> None:
    export(path / LEARNER, path / "out")


def hand_over_adapter(path: Path) -> None:
    export(path / LEARNER, path / "out", to="peft", rank=2)


def parity(path: Path) -> None:
    keep_parity(path)


def damage(path: Path) -> None:
    """Take away what a repair makes again."""
    (path / "matrix.json").unlink()
    (path / "adapter_model.safetensors").write_bytes(b"")
    (path / "MANIFEST").write_text("{")
    (path / "run.yaml").unlink()


def mend(path: Path) -> None:
    repair(path)


def again(act: Callable[[Path], None], path: Path) -> None:
    """Do an act again, as a user would: what is done already is not done twice."""
    # What is mended may have no list that can be read.
    manifest = read_manifest(path) if act is init else None
    if manifest is not None and manifest.files is not None:
        return
    if act in (take_back, forget_first, compact_all):
        complete(path)
        if len(committed(path)) == 1 or any(stage.facts.within for stage in read_stages(path)):
            return
    if act in (hand_over, hand_over_adapter) and (path / "out").exists():
        return
    act(path)


def complete(path: Path) -> None:
    """Open a learner for writing, as every verb does that goes on with it."""
    load_learner(path)


ACTS: dict[str, tuple[Callable[[Path], None], list[Callable[[Path], None]]]] = {
    "init": (init, []),
    "learn": (learn_first, [init]),
    "learn, the second task": (learn_second, [init, learn_first]),
    "eval": (evaluate_all, [init, learn_first]),
    "eval --keep-probe": (evaluate_and_keep, [init, learn_unkept]),
    "rollback": (take_back, [init, learn_first, learn_second]),
    "forget": (forget_first, [init, learn_first, learn_second]),
    "forget, schedule forward": (forget_first, [init_forward, learn_first, learn_second]),
    "compact": (compact_all, [init, learn_first, learn_second]),
    "export --to merged": (hand_over, [below(init), below(learn_first)]),
    "export --to peft": (hand_over_adapter, [below(init), below(learn_first)]),
    "verify --parity": (parity, [init, learn_first, learn_second]),
    "verify --repair": (mend, [init, learn_first, learn_second, damage]),
}
"""By name: the act, and those before it."""


def learner_of(path: Path) -> Path:
    """Return the learner's folder below that of an act, or that itself."""
    return path / LEARNER if (path / LEARNER).is_dir() else path


def essence(path: Path) -> dict[str, str]:
    """Hash what a learner has learned, and how it answers: what two ways to one state must agree in, bit for bit."""
    found: dict[str, str] = {}
    for file in (path / "out").rglob("*"):
        if file.is_file():
            found[f"out/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    path = learner_of(path)
    if (path / "before/predictions.jsonl").is_file():
        found["before"] = hashlib.sha256((path / "before/predictions.jsonl").read_bytes()).hexdigest()
    for stage in read_stages(path):
        kept = (stage.evaluation or stage.path) / "tests.jsonl"
        for file in (*stage.path.glob("*.safetensors"), *stage.path.glob("*.jsonl"), stage.predictions, kept):
            if file.name not in ("training.jsonl", "modules.jsonl") and file.is_file():
                name = file.relative_to(stage.path).name
                found[f"{stage.path.name}/{name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
        found[f"{stage.path.name}, row"] = str(stage.facts.row)
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "run.yaml"):
        if (path / name).is_file():
            found[name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    if (path / "matrix.json").is_file():
        found["matrix"] = str(json.loads((path / "matrix.json").read_text())["matrix"])
    return found


class Outcome:
    """What came of all faults in an act."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.points = self.kills = self.failures = self.states = 0
        self.ends: dict[str, int] = {}
        self.wrong: list[str] = []

    def row(self) -> str:
        traces = self.ends.get("traceback", 0)
        counts = (self.points, self.kills, self.failures, self.states, traces, len(self.wrong))
        return f"| {self.name} | {' | '.join(map(str, counts))} |"


def tortured(name: str, path: Path, every: int = 1, states: int | None = None) -> Outcome:
    """Do an act with a fault at every change, and go on from every state that comes of it.

    Args:
        name: of the act.
        path: an empty folder.
        every: fault at every n-th change only.
        states: go on from so many states only, evenly chosen.
    """
    act, earlier = ACTS[name]
    for one in earlier:
        one(path)
    path.mkdir(parents=True, exist_ok=True)
    before, faults, outcome = tree(path), Faults(path, every), Outcome(name)
    begun = committed(path)
    run(lambda: act(path), faults)
    reference, done = essence(path), committed(path)
    outcome.points, outcome.kills, outcome.failures = len(faults.points), faults.kills, faults.failures
    outcome.ends, outcome.states = faults.ends, len(faults.states)
    chosen = list(faults.states.values())
    if states is not None:
        chosen = chosen[:: max(1, len(chosen) // states)]
    for how, content in chosen:
        put(path, content)
        outcome.wrong += [f"{name}: {how}: {line}" for line in judged(act, path, begun, done, reference, before)]
    return outcome


def committed(path: Path) -> list[str]:
    """List the tasks that are committed, by name."""
    path = learner_of(path)
    try:
        return [stage.facts.name for stage in read_stages(path, hashes=False)]
    except EverloraError:  # a list that is damaged, and about to be mended
        return sorted(place.parent.name.partition("-")[2] for place in path.glob("tasks/[0-9]*/COMMIT"))


def judged(
    act: Callable[[Path], None],
    path: Path,
    begun: list[str],
    done: list[str],
    reference: dict[str, str],
    before: Tree,
) -> list[str]:
    """Say what is wrong with a state: it is damaged, between two states, or does not go on to the same end."""
    wrong: list[str] = []
    seen = inspect(learner_of(path))
    was_damaged = act is mend  # what it mends is damaged until it is done
    if seen.problems and not was_damaged:
        wrong.append(f"verify: {seen.problems[0].file} {seen.problems[0].what}")
    if committed(path) not in (begun, done):
        wrong.append(f"tasks {committed(path)}")
    lost = [name for name, data in before.items() if "tasks/" in name and not _there(path, name, data, act)]
    if lost:
        wrong.append(f"lost {lost[0]}")
    try:
        again(act, path)
        if essence(path) != reference:
            found = essence(path)
            names = [name for name in {*found, *reference} if found.get(name) != reference.get(name)]
            wrong.append(f"ended otherwise: {names}")
        if problems := inspect(learner_of(path)).problems:
            wrong.append(f"verify after going on: {problems[0].file} {problems[0].what}")
    except Exception as error:
        wrong.append(f"cannot go on: {type(error).__name__} {error}")
    return wrong


def _there(path: Path, name: str, data: bytes | None, act: Callable[[Path], None]) -> bool:
    """Return whether a committed file is as it was; an evaluation may have been replaced by a newer one."""
    if act in (take_back, forget_first, compact_all):
        return True
    if act in (evaluate_all, evaluate_and_keep) and "/evaluation-" in name:
        return True
    return (path / name).is_dir() if data is None else (path / name).is_file() and (path / name).read_bytes() == data


def killed_everywhere(name: str, path: Path, every: int = 1) -> tuple[int, list[str]]:
    """Do an act in a process that is killed at every n-th of its changes; return how many were, and what was wrong."""
    act, earlier = ACTS[name]
    for one in earlier:
        one(path)
    path.mkdir(parents=True, exist_ok=True)
    before, begun = tree(path), committed(path)
    act(path)
    reference, done, wrong = essence(path), committed(path), list[str]()
    for number in range(1, 10_000, every):
        put(path, before)
        if not killed(lambda: act(path), path, number):
            return number // every, wrong
        found = judged(act, path, begun, done, reference, before)
        wrong += [f"{name}: killed at change {number}: {line}" for line in found]
    raise AssertionError(f"{name} makes more changes than are tried")


def table(outcomes: list[Outcome]) -> str:
    """Write what came of all acts."""
    head = "| act | changes | kills | errors | states | tracebacks | wrong |\n|---|--:|--:|--:|--:|--:|--:|"
    return "\n".join([head, *(outcome.row() for outcome in outcomes)])


def prepared(path: Path) -> None:
    """Make a learner of two tasks that is finished."""
    for one in (init, learn_first, learn_second):
        one(path)


__all__ = ["ACTS", "Outcome", "essence", "killed_everywhere", "prepared", "table", "tortured"]
