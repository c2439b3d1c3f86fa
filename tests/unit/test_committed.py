"""A stage is read as what its COMMIT and its newest evaluation say together; each is replaced in one step."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everlora.archive import atomic
from everlora.archive.atomic import recover, staged
from everlora.archive.commits import BaselineFacts, Commit
from everlora.archive.committed import newest_evaluation, read_stages, verify_files
from everlora.archive.folder import BEFORE, RunFolder, stages
from everlora.archive.manifest import COMMIT, MANIFEST
from everlora.archive.records import AnswerRow, Seconds
from everlora.archive.schema import read_rows
from everlora.core.errors import FolderError
from sealing import edit, read, relist, update
from small_folders import make, record, score, train


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stage_counts_before_it_is_scored(tmp_path: Path) -> None:
    folder = make(tmp_path, ("a",))
    train(folder, "b")
    first, second = stages(tmp_path)
    assert (first.evaluated, second.evaluated) == (True, False)
    assert (second.facts.row, second.evaluation, second.counts) == ([], None, ())
    assert second.facts.seconds == 1.0


def test_what_training_and_scoring_say_comes_back_as_one(tmp_path: Path) -> None:
    folder = make(tmp_path, ())
    train(folder, "a")
    update(tmp_path / "tasks/01-a" / COMMIT, seconds={"train": 3.0}, warning="short")
    relist(tmp_path)
    score(folder, 50.0, warning="all the same")
    (stage,) = stages(tmp_path)
    assert stage.facts.seconds == Seconds(train=3.0, evaluate=2.0)
    assert (stage.facts.warning, stage.facts.row, stage.counts) == ("short; all the same", [50.0], (2,))
    assert [row.prediction for row in read_rows(AnswerRow, stage.predictions)] == ["(50.0,)"] * 2
    # Nothing of how it was scored stands in what it learned, and the other way round.
    learned, scored = (read(place / COMMIT) for place in (stage.path, stage.path / "evaluation-1"))
    assert not {"row", "fingerprint", "general"} & learned.keys()
    assert not {"data", "labels", "history", "cards"} & scored.keys()


def test_of_an_older_everlora_both_stand_in_one_file(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    task = tmp_path / "tasks/01-a"
    row = read(task / "evaluation-1" / COMMIT)["row"]
    (task / "evaluation-1/predictions.jsonl").rename(task / "predictions.jsonl")
    for left in (task / "evaluation-1" / COMMIT, tmp_path / MANIFEST, tmp_path / "matrix.json"):
        left.unlink()
    edit(task / COMMIT, lambda facts: (facts.pop("digest"), facts.update(schema=3, row=row)), sealed=False)
    (stage,) = stages(tmp_path)
    assert (stage.evaluated, stage.evaluation, stage.facts.row) == (True, None, [0.0])
    assert stage.predictions == task / "predictions.jsonl"
    score(RunFolder(tmp_path, record(), resume=True), 5.0)  # from then on that of its own counts
    (stage,) = stages(tmp_path)
    assert (stage.facts.row, stage.predictions) == ([5.0], task / "evaluation-1/predictions.jsonl")


def test_scores_of_another_task_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    for file in ("02-b", "03-c"):
        (tmp_path / "tasks" / file / "evaluation-1").rename(tmp_path / file)
    for file, other in (("02-b", "03-c"), ("03-c", "02-b")):
        (tmp_path / file).rename(tmp_path / "tasks" / other / "evaluation-1")
    with pytest.raises(FolderError, match="evaluation-1/COMMIT is of another task than its folder's"):
        stages(tmp_path)
    with pytest.raises(FolderError, match="of another task"):  # who reads no hashes sees it, too
        read_stages(tmp_path, hashes=False)


def test_files_are_what_their_hashes_say(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    verify_files(tmp_path, {"x": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"})
    with pytest.raises(FolderError, match="y is missing or was changed"):
        verify_files(tmp_path, {"y": ""})


# --- replaced in one step --------------------------------------------------------------------------------------------


def test_new_scores_take_the_place_of_the_old(tmp_path: Path) -> None:
    folder = make(tmp_path)
    learned = contents(tmp_path / "tasks/03-c").keys() - {"evaluation-1/COMMIT", "evaluation-1/predictions.jsonl"}
    before = {name: contents(tmp_path / "tasks/03-c")[name] for name in learned}
    score(folder, 1.0, 2.0, 3.0)
    now = contents(tmp_path / "tasks/03-c")
    assert now.keys() == {*learned, "evaluation-2/COMMIT", "evaluation-2/predictions.jsonl"}
    assert {name: now[name] for name in learned} == before
    assert stages(tmp_path)[-1].facts.row == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync"])
def test_scores_that_cannot_be_written_leave_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = make(tmp_path)
    before = contents(tmp_path)

    def disk_full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(broken, disk_full)
        with pytest.raises(FolderError, match="No space left"):
            score(folder, 1.0, 2.0, 3.0)
    assert contents(tmp_path) == before
    assert stages(tmp_path)[-1].facts.row == [20.0, 30.0, 40.0]


def test_scores_without_their_seal_do_not_count(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    (tmp_path / "tasks/01-a/evaluation-2").mkdir()
    (tmp_path / "tasks/01-a/evaluation-2/predictions.jsonl").write_text("")
    assert newest_evaluation(tmp_path / "tasks/01-a") == tmp_path / "tasks/01-a/evaluation-1"
    assert stages(tmp_path)[0].facts.row == [0.0]


KILLED = """
import os, sys
from pathlib import Path
from everlora.archive import atomic

rename, done = os.replace, []

def replace(a, b):
    done.append(b)
    if len(done) == int(sys.argv[2]):
        os._exit(9)
    rename(a, b)

atomic.os.replace = replace
with atomic.staged(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("new")
"""


@pytest.mark.parametrize(("renames", "seen"), [(1, {"before", ".before.part"}), (2, {".before.old", ".before.part"})])
def test_killed_between_two_renames_the_old_folder_comes_back(tmp_path: Path, renames: int, seen: set[str]) -> None:
    """The second of them is the moment in which neither stands in its place."""
    old = tmp_path / "before"
    old.mkdir()
    (old / "file").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(old), str(renames)], check=False)
    assert done.returncode == 9
    assert {path.name for path in tmp_path.iterdir()} == seen
    recover(tmp_path)
    assert contents(tmp_path) == {"before/file": b"old"}


def test_a_rename_that_fails_puts_the_old_folder_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, rename = tmp_path / "before", os.replace
    old.mkdir()
    (old / "file").write_text("old")

    def once(source: Path, target: Path) -> None:
        if source.name == ".before.part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(atomic.os, "replace", once)
    with pytest.raises(FolderError, match="Input/output error"), staged(old) as folder:
        (folder / "file").write_text("new")
    assert contents(tmp_path) == {"before/file": b"old"}


def test_a_learner_that_is_opened_brings_back_what_was_put_aside(tmp_path: Path) -> None:
    folder = make(tmp_path, ("a",))
    with folder.commit_before(BaselineFacts(base={"a": 10.0}, data={"a": "d"})) as path:
        (path / "predictions.jsonl").write_text("{}\n")
    (tmp_path / BEFORE).rename(tmp_path / f".{BEFORE}.old")
    (tmp_path / "tasks/.02-b.part").mkdir()
    (tmp_path / "tasks/01-a/.evaluation-2.part").mkdir()
    (tmp_path / ".matrix.json.part").write_text("{")
    again = RunFolder(tmp_path, record(), resume=True)
    assert (before := again.before()) is not None
    assert before.facts.base == {"a": 10.0}
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith((".part", ".old"))]


# --- the first moment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [(), ("tasks/",), (".run.yaml.part",), ("tasks/", ".run.yaml.part", ".lock")])
def test_a_folder_that_was_left_before_it_was_made_is_a_new_one(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("half")
    assert RunFolder(tmp_path, record()).stages() == []
    assert not (tmp_path / ".run.yaml.part").exists()


@pytest.mark.parametrize("mine", ["tasks/thesis.tex", "run.yaml.part", ".hidden"])
def test_a_folder_with_anything_else_in_it_is_somebodys(tmp_path: Path, mine: str) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / mine).write_text("mine")
    with pytest.raises(FolderError, match="is not empty and holds no run of everlora"):
        RunFolder(tmp_path, record())
    assert contents(tmp_path) == {mine: b"mine"}


def test_a_commit_of_this_schema_has_no_row_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, ("a",))
    facts = Commit.model_validate(read(tmp_path / "tasks/01-a" / COMMIT))
    assert (facts.row, facts.fingerprint, facts.general) == ([], None, None)
