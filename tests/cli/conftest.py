from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from everlora.core.registry import Registry

SMALL = ("--model", "tiny-llama", "--benchmark", "builtin", "--tasks", "reviews,news", "--max-steps", "2")
SMALL = (*SMALL, "--max-train-samples", "8", "--max-eval-samples", "4", "--max-new-tokens", "4")


@dataclasses.dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The last line on stderr, after checking that it is the one line of an error."""
        assert self.status != 0
        assert "Traceback" not in self.err
        *before, last = self.err.splitlines()
        assert last.startswith("everlora: "), self.err
        assert not any(line.startswith("everlora: ") for line in before), self.err
        return last

    @property
    def plain(self) -> list[str]:
        """The lines on stderr, all of which tell the time at first."""
        found = [re.fullmatch(r"\d\d:\d\d:\d\d (.*)", line) for line in self.err.splitlines()]
        assert all(found), self.err
        return [one[1] for one in found if one]

    @property
    def json(self) -> Any:
        """The last line on stdout."""
        assert self.status == 0, self.err
        return json.loads(self.out.splitlines()[-1])


Everlora = Callable[..., Said]


@pytest.fixture
def everlora(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Everlora:
    """The command line in this process, in an empty folder."""
    from everlora.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "")  # which ``-v`` sets: taken back when the test ends
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY")

    def call(*argv: str) -> Said:
        capfd.readouterr()
        try:
            main(list(argv))
            status: Any = 0
        except SystemExit as end:
            status = end.code
        found = capfd.readouterr()
        return Said(status or 0, found.out, found.err)

    return call


@pytest.fixture
def small(everlora: Everlora) -> Everlora:
    """A run of two tasks that takes a second."""
    return lambda *argv: everlora("run", *SMALL, *argv)


@dataclasses.dataclass
class ScoredLearner:
    folder: Path
    learner: Any
    tasks: Sequence[Any]

    def __str__(self) -> str:
        return str(self.folder)

    def updates(self, stage: int) -> dict[str, Any]:
        """What one task ended with, dense, by module."""
        from everlora.adapters import files as adapters

        sites, _ = adapters.read(self.learner.folder.stages()[stage].path)
        return {name: site.dense() for name, site in sites.items()}


ScoredRun = Callable[..., ScoredLearner]


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """A run of two built-in tasks, run once per method and model."""
    from everlora import parse
    from everlora.learner import experiment
    from everlora.runtime.progress import Progress
    from everlora.settings.spec import RunSpec

    seen: dict[tuple[str, ...], ScoredLearner] = {}

    def get(method: str, model: str = "tiny-llama", dtype: str = "float32") -> ScoredLearner:
        if (method, model, dtype) not in seen:
            out = tmp_path_factory.mktemp("run") / "r"
            settings = {
                "benchmark": "builtin",
                "tasks": ["shapes", "counts"] if model == "tiny-vit" else ["reviews", "news"],
                "max_train_samples": 16,
                "max_eval_samples": 4,
            }
            train = {"max_steps": 2, "learning_rate": 2e-2}
            scored = {"evaluation": {"scoring": "labels"}, "train": train, "dtype": dtype, "device": "cpu"}
            spec = experiment.resolve(RunSpec, {"model": model, "method": method}, settings, scored)
            base = experiment.load_for(spec)
            tasks = experiment.stream_for(spec, base).tasks
            learner = experiment.begin(spec, parse(method), base, out, progress=Progress())
            experiment.finish(learner, learner.follow(tasks))
            seen[method, model, dtype] = ScoredLearner(out, learner, tasks)
        return seen[method, model, dtype]

    return get


def committed(folder: Path) -> dict[str, bytes]:
    """Every file of every finished task, and of its evaluation."""
    tasks = [commit.parent for commit in sorted(folder.glob("tasks/*/COMMIT"))]
    files = (file for task in tasks for file in sorted(task.rglob("*")) if file.is_file())
    return {file.relative_to(folder / "tasks").as_posix(): file.read_bytes() for file in files}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_stream(path: Path, *tasks: dict[str, Any]) -> str:
    path.write_text(json.dumps({"tasks": tasks}))  # JSON is YAML
    return str(path)


def unplug(known: Registry[Any], name: str) -> str:
    """Take a name out of a registry, as in a new process; return the module that had registered it."""
    known._words = {word: meant for word, meant in known._words.items() if meant != name}
    known._spelled = {word: spelled for word, spelled in known._spelled.items() if word in known._words}
    del known._things[name]
    return known._modules.pop(name)
