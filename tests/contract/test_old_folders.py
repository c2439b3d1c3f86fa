"""A folder of an earlier everlora is read, shown and gone on with; a newer one is refused.

``tests/data/schema-2`` (commit 2962122), ``schema-3`` (86fc22b) and ``schema-4`` (3fb85e9) were made by::

    everlora.Learner("tiny-llama", method="ella(store=svd,store_rank=1)+replay(ratio=0.5)", out=..., **SETTINGS)

with the tasks below; the tokenizer, which nobody here reads, was taken out.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from everlora import Example, Learner, Task
from everlora.analysis import answers
from everlora.analysis.runs import Run
from everlora.analysis.status import status
from everlora.archive.folder import RunFolder, read_matrix, read_run, stages
from everlora.archive.records import Environment, Seconds
from everlora.archive.schema import SCHEMA, read_json
from everlora.core.errors import FolderError
from sealing import read

DATA = Path(__file__).parents[1] / "data"
OLD, NEXT, LAST = DATA / "schema-2", DATA / "schema-3", DATA / "schema-4"
METHOD = "ella(store=svd,store_rank=1)+replay(ratio=0.5)"
SETTINGS = {
    "lora": {"r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]},
    "train": {"max_steps": 2, "learning_rate": 0.02, "per_device_train_batch_size": 4},
    "evaluation": {"schedule": "forward", "scoring": "labels", "general": "builtin"},
    "dtype": "float32", "device": "cpu", "max_new_tokens": 4, "seed": 3,
}  # fmt: skip


def task(name: str, *labels: str) -> Task:
    rows = [Example(f"row {k} is about {labels[k % len(labels)]}", labels[k % len(labels)]) for k in range(6)]
    return Task(name=name, train=rows[:4], test=rows[4:], labels=labels, instruction="Name it.")


TASKS = [task("pets", "cat", "dog"), task("plants", "oak", "fern", "moss")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


@pytest.fixture(params=[OLD, NEXT, LAST], ids=["schema 2", "schema 3", "schema 4"])
def each(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def as_schema_1(folder: Path) -> None:
    """Take out what schema 2 brought: commits that say whose they are."""
    shutil.rmtree(folder / "before")
    for commit in folder.glob("tasks/*/COMMIT"):
        content = json.loads(commit.read_text()) | {"schema": 1}
        del content["run"]
        commit.write_text(json.dumps(content))
    spec = folder / "run.yaml"
    spec.write_text(spec.read_text().replace("schema: 2", "schema: 1"))


def as_schema_3(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(NEXT, folder)


OLDER = {"schema 1": as_schema_1, "schema 2": lambda folder: None, "schema 3": as_schema_3}


@pytest.mark.parametrize("older", OLDER.values(), ids=OLDER)
def test_every_record_is_read(folder: Path, older: Callable[[Path], None]) -> None:
    older(folder)
    assert {read(path).get("schema", 1) for path in (folder / "run.yaml", *folder.glob("tasks/*/COMMIT"))} == {
        list(OLDER.values()).index(older) + 1
    }
    record, done, results = read_run(folder), stages(folder), read_matrix(folder)
    assert {(stage.facts.run, stage.facts.labels == []) for stage in done} == {("c1d4c06eb256d648", True)}
    assert (record.id, record.composition.name, record.settings.seed) == ("c1d4c06eb256d648", "ella+replay", 3)
    assert [(stage.evaluated, stage.predictions.parent == stage.path) for stage in done] == [(True, True)] * 2
    assert [(stage.facts.name, stage.facts.row) for stage in done] == [("pets", [50.0, 0.0]), ("plants", [50.0, 0.0])]
    assert isinstance(done[0].facts.seconds, Seconds)
    assert done[1].facts.strengths == {"energy_overlap": 0.0014518046518787742}
    assert [stage.facts.stored_rows for stage in done] == [2, 2]
    assert results.matrix == [[50.0, 0.0], [50.0, 0.0]]
    assert results.general is not None and len(results.general.delta) == 2  # noqa: PT018
    assert len(results.fingerprints.of) == 1
    environment = read_json(Environment, folder / "environment.json")
    assert environment.precision is not None
    assert environment.precision.weights == "float32"
    scored = answers.read(folder)
    assert (scored.group, scored.answers.cells.keys()) == ("replay", {(0, 0), (0, 1), (1, 0), (1, 1)})


def test_status_measures_what_was_not_noted(each: Path) -> None:
    """The figures are those that commit 2962122 showed of the older folder; the other has noted the same."""
    found = status(each)
    assert (stages(each)[-1].facts.holdings is None) == (read(each / "run.yaml")["schema"] == 2)
    assert (found.holdings.memory_bytes, found.stored_rows) == (3168, 4)
    results = read_matrix(each)
    assert (results.memory_bytes, results.stored_elements) == (3168, 512)
    assert (results.stored_rows, results.stored_row_bytes) == (4, 88)
    assert [(stage.facts.stored_rows, stage.facts.stored_row_bytes > 0) for stage in stages(each)] == [(2, True)] * 2
    assert found.holdings.memory_error["energy_overlap"].error == pytest.approx(0.4418884, rel=1e-4)
    assert found.holdings.room is not None
    assert [module.tasks_left for module in found.holdings.room.modules] == [62, 62]


def test_it_is_gone_on_with_as_the_same_run(each: Path) -> None:
    folder, schema = each, read(each / "run.yaml")["schema"]
    before = {path: path.read_bytes() for path in folder.glob("tasks/*/*") if path.is_file()}
    learner = Learner("tiny-llama", method=METHOD, out=folder, resume=True, **SETTINGS)
    third = task("tools", "saw", "file")
    matrix = learner.follow([*TASKS, third])
    assert matrix.cells[1][:2] == (50.0, 0.0)
    assert {path: path.read_bytes() for path in before} == before  # nothing was learned again
    assert [stage.facts.name for stage in stages(folder)] == ["pets", "plants", "tools"]
    assert {json.loads(path.read_text())["schema"] for path in folder.glob("tasks/*/COMMIT")} == {schema, SCHEMA}
    assert yaml.safe_load((folder / "run.yaml").read_text())["schema"] == SCHEMA
    assert status(folder).holdings == Run.read(folder).holdings()


@pytest.mark.parametrize("file", ["run.yaml", "matrix.json", "environment.json", "tasks/02-plants/COMMIT"])
def test_a_newer_record_is_refused_in_one_sentence(folder: Path, file: str) -> None:
    place = folder / file
    content = yaml.safe_load(place.read_text()) | {"schema": SCHEMA + 1}
    place.write_text(json.dumps(content))  # JSON is YAML
    readers: dict[str, Callable[[], object]] = {
        "run.yaml": lambda: read_run(folder),
        "matrix.json": lambda: read_matrix(folder),
        "environment.json": lambda: read_json(Environment, place),
        "tasks/02-plants/COMMIT": lambda: stages(folder),
    }
    said = f"{place} was written by a newer everlora (schema {SCHEMA + 1}, this one reads up to {SCHEMA}); update"
    with pytest.raises(FolderError, match=re.escape(said)):
        readers[file]()
    if file == "run.yaml":
        with pytest.raises(FolderError, match=re.escape(said)):
            RunFolder(folder, read_run(OLD), resume=True)


@pytest.mark.parametrize("entry", ["row", "data", "files", "number"])
def test_a_record_that_lacks_an_entry_is_damaged(folder: Path, entry: str) -> None:
    place = folder / "tasks" / "01-pets" / "COMMIT"
    content = json.loads(place.read_text())
    del content[entry]
    place.write_text(json.dumps(content))
    with pytest.raises(FolderError, match=r"COMMIT is damaged, or of an older everlora; restore it from a copy"):
        stages(folder)


@pytest.mark.parametrize("since", [NEXT, LAST], ids=["schema 3", "schema 4"])
def test_a_task_of_it_can_be_asked_and_one_more_be_taught(since: Path, tmp_path: Path) -> None:
    """It noted what a task shows a model; an older one did not, and says what to do instead."""
    folder = Path(shutil.copytree(since, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.glob("tasks/*/*") if path.is_file()}
    learner = Learner.open(folder, device="cpu")
    row = TASKS[0].test[0].input
    assert learner.ask([row], task="pets")[0] in TASKS[0].labels
    third = task("tools", "saw", "file")
    learner.learn(third, by="ada")
    assert {path: path.read_bytes() for path in before} == before
    whole = Learner(
        "tiny-llama", method=METHOD, out=Path(shutil.copytree(since, tmp_path / "b")), resume=True, **SETTINGS
    )
    whole.follow([*TASKS, third])
    # Without the rows of earlier tasks, as with them.
    name = "tasks/03-tools/adapter_model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert [(act.tasks, act.by) for act in learner.history() if act.by] == [(["tools"], "ada")]
    with pytest.raises(FolderError, match="kept no card of a task; go on with its data, and run --resume"):
        Learner.open(Path(shutil.copytree(OLD, tmp_path / "old"))).ask([row])
