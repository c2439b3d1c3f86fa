"""A folder that is not what was written is noticed by whoever reads it; one that was left half way counts as it is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everlora.archive.commits import Commit, Evaluation
from everlora.archive.folder import RunFolder, read_matrix, read_run, stages
from everlora.archive.identity import RunRecord
from everlora.archive.manifest import COMMIT, MANIFEST, Manifest, check_listed, files_at_root, number_of, read_manifest
from everlora.archive.records import Environment
from everlora.archive.results import MatrixRecord
from everlora.archive.root import sha256
from everlora.archive.schema import Record, read_json
from everlora.core.errors import FolderError
from sealing import edit, read, update
from small_folders import make, record, score, train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "run").path


def refused(path: Path) -> str:
    """What a reader of the stages says, which is one line."""
    with pytest.raises(FolderError) as caught:
        stages(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- every record has a digest of itself -----------------------------------------------------------------------------

FILES: dict[str, type[Record]] = {
    "run.yaml": RunRecord,
    "environment.json": Environment,
    "matrix.json": MatrixRecord,
    MANIFEST: Manifest,
    "tasks/02-b/COMMIT": Commit,
    "tasks/02-b/evaluation-1/COMMIT": Evaluation,
}


@pytest.mark.parametrize("file", FILES)
def test_whichever_digit_of_a_record_is_changed_it_is_refused(folder: Path, file: str) -> None:
    place = folder / file
    text = place.read_text()
    assert read_json(FILES[file], place)
    digits = [match.start() for match in re.finditer(r"\d", text)]
    assert len(digits) > 20
    for at in digits:
        for other in {"0", str((int(text[at]) + 9) % 10)} - {text[at]}:  # the one below, too: an older schema
            place.write_text(text[:at] + other + text[at + 1 :])
            with pytest.raises(FolderError, match=r"was changed after it was written|newer everlora|is damaged"):
                read_json(FILES[file], place)


READERS: dict[str, Callable[[Path], object]] = {
    "run.yaml": read_run,
    "matrix.json": read_matrix,
    "environment.json": lambda path: read_json(Environment, path / "environment.json"),
}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run.yaml", lambda content: content["settings"].update(seed=1)),
        ("matrix.json", lambda content: content["matrix"][-1].__setitem__(0, 99.0)),
        ("environment.json", lambda content: content.update(threads=2)),
        ("tasks/02-b/COMMIT", lambda content: content["data"].update(b="other")),
        ("tasks/02-b/evaluation-1/COMMIT", lambda content: content["row"].__setitem__(0, 99.0)),
        (MANIFEST, lambda content: content["tasks"].pop()),
    ],
)
def test_a_value_that_is_changed_is_refused_by_whoever_reads_it(
    folder: Path, file: str, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(folder / file, change, sealed=False)
    with pytest.raises(FolderError) as caught:
        READERS.get(file, stages)(folder)
    mended = f"everlora verify {folder} --repair" if file == "run.yaml" else "; restore it from a copy"
    assert str(caught.value).startswith(f"{folder / file} was changed after it was written, or is damaged")
    assert mended in str(caught.value)


def test_a_digest_does_not_hang_on_the_order_or_the_spelling_of_a_file(folder: Path) -> None:
    before = {file: read_json(kind, folder / file) for file, kind in FILES.items()}
    for file in FILES:
        content = read(folder / file)
        edit(folder / file, lambda found, content=content: found.update({k: found.pop(k) for k in reversed(content)}))
    assert {file: read_json(kind, folder / file) for file, kind in FILES.items()} == before


# --- tasks that are lost or exchanged --------------------------------------------------------------------------------


def test_a_finished_folder_lists_all_that_it_has(folder: Path) -> None:
    found = read_manifest(folder)
    assert found is not None
    assert (found.run, [task.folder for task in found.tasks]) == (record().id, ["01-a", "02-b", "03-c"])
    assert [task.commit for task in found.tasks] == [sha256(s.path / COMMIT) for s in stages(folder)]
    assert {task.evaluation for task in found.tasks} == {"evaluation-1"}
    assert found.files == {name: sha256(folder / name) for name in ("README.md", "matrix.json")}
    assert [file.name for file in files_at_root(folder)] == ["README.md", "matrix.json"]


@pytest.mark.parametrize("lost", ["01-a", "02-b", "03-c"])
def test_a_task_that_is_missing_is_named(folder: Path, lost: str) -> None:
    shutil.rmtree(folder / "tasks" / lost)
    number = int(lost[:2])
    expected = f"has no task {number};" if number < 3 else "03-c is missing; restore the folder from a copy"
    assert expected in refused(folder)


def test_a_list_that_is_gone_is_missed_and_so_is_a_task_in_the_middle(folder: Path) -> None:
    shutil.copy(folder / MANIFEST, folder / "kept")
    (folder / MANIFEST).unlink()
    assert f"{folder / MANIFEST} is missing" in refused(folder)
    shutil.move(folder / "kept", folder / MANIFEST)
    shutil.rmtree(folder / "tasks/02-b")
    assert "has no task 2; restore its folder from a copy" in refused(folder)


def test_two_tasks_that_were_exchanged_are_noticed(folder: Path) -> None:
    tasks = folder / "tasks"
    (tasks / "01-a").rename(tasks / "x")
    (tasks / "02-b").rename(tasks / "01-b")
    (tasks / "x").rename(tasks / "02-a")
    assert "01-b/COMMIT is of task 2, 'b', and not of its folder's" in refused(folder)
    for name, number in (("01-b", 1), ("02-a", 2)):  # by somebody who knows of numbers and digests
        update(tasks / name / COMMIT, number=number)
        update(tasks / name / "evaluation-1" / COMMIT, number=number)
    assert "01-a is missing" in refused(folder)


def test_a_commit_that_was_made_anew_is_noticed(folder: Path) -> None:
    update(folder / "tasks/02-b/COMMIT", cut=1)
    assert "02-b/COMMIT is another one than was written" in refused(folder)


def test_scores_that_were_made_anew_are_noticed(folder: Path) -> None:
    update(folder / "tasks/02-b/evaluation-1/COMMIT", row=[99.0, 99.0])
    assert "02-b/evaluation-1 is missing or another one than was written" in refused(folder)


def test_scores_that_were_lost_are_noticed(folder: Path) -> None:
    shutil.rmtree(folder / "tasks/02-b/evaluation-1")
    assert "02-b/evaluation-1 is missing or another one than was written" in refused(folder)


@pytest.mark.parametrize("name", ["02-b", "04-d"])
def test_a_task_of_another_run_is_noticed(folder: Path, tmp_path: Path, name: str) -> None:
    other = make(tmp_path / "other", ("a", "b", "c", "d"), seed=1).path
    shutil.rmtree(folder / "tasks" / name, ignore_errors=True)
    shutil.copytree(other / "tasks" / name, folder / "tasks" / name)
    expected = f"{name} was learned by another run than {folder / 'tasks' / '01-a'}; take it away"
    assert expected in refused(folder)
    (folder / MANIFEST).unlink()
    assert expected in refused(folder)


def test_tasks_of_another_run_altogether_are_noticed(folder: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", seed=1).path
    for name in ("tasks", MANIFEST):
        (folder / name).rename(folder / f"old-{name}")
        (shutil.copytree if name == "tasks" else shutil.copy)(other / name, folder / name)
    assert "run.yaml is of another run than" in refused(folder)


def test_two_tasks_more_than_the_list_are_no_accident(folder: Path) -> None:
    edit(folder / MANIFEST, lambda manifest: manifest.update(tasks=manifest["tasks"][:1]))
    assert "03-c is in no list of" in refused(folder)


# --- a process that ended half way -----------------------------------------------------------------------------------


def without_list(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if the process ended before the list was written."""
    monkeypatch.setattr(RunFolder, "write_manifest", lambda self, complete=False: None)
    return monkeypatch


def test_killed_between_a_commit_and_the_list_the_task_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, ("a", "b"))
    with monkeypatch.context() as patch:
        without_list(patch)
        train(folder, "c")
    assert [stage.facts.name for stage in stages(tmp_path)] == ["a", "b", "c"]
    again = RunFolder(tmp_path, record(), resume=True)
    again.write_manifest()
    found = read_manifest(tmp_path)
    assert found is not None
    assert [(task.folder, task.evaluation) for task in found.tasks][1:] == [("02-b", "evaluation-1"), ("03-c", None)]
    assert found.files is None, "the files at the root are of two tasks"


def test_killed_between_scores_and_the_list_the_scores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, ("a",))
    train(folder, "b")
    assert [stage.evaluated for stage in stages(tmp_path)] == [True, False]
    with monkeypatch.context() as patch:
        without_list(patch)
        score(folder, 1.0, 2.0)
    assert stages(tmp_path)[1].facts.row == [1.0, 2.0]


def test_killed_before_the_older_scores_are_taken_away_the_newer_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, ("a",))
    with monkeypatch.context() as patch:
        without_list(patch)
        patch.setattr("everlora.archive.folder.shutil.rmtree", lambda *args, **more: None)
        score(folder, 77.0)
    assert {path.name for path in (tmp_path / "tasks/01-a").glob("evaluation-*")} == {"evaluation-1", "evaluation-2"}
    (stage,) = stages(tmp_path)
    assert (stage.facts.row, stage.evaluation) == ([77.0], tmp_path / "tasks/01-a/evaluation-2")


def test_of_scores_the_newest_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    folder = make(tmp_path, ("a",))
    for k in range(2, 12):
        score(folder, float(k))
    (stage,) = stages(tmp_path)
    assert (stage.facts.row, [path.name for path in stage.path.glob("evaluation-*")]) == ([11.0], ["evaluation-11"])
    assert number_of("evaluation-11") > number_of("evaluation-9") > number_of("evaluation-x") == 0


def test_a_list_of_nothing_accepts_one_task_and_no_scores_less(folder: Path) -> None:
    check_listed(folder, Manifest(run="r"), [])
    found = read_manifest(folder)
    assert found is not None
    check_listed(folder, Manifest(run="r", tasks=found.tasks[:2]), found.tasks)
    older = [found.tasks[0].model_copy(update={"evaluation": "evaluation-2"}), *found.tasks[1:]]
    with pytest.raises(FolderError, match="evaluation-2 is missing"):
        check_listed(folder, Manifest(run="r", tasks=older), found.tasks)
