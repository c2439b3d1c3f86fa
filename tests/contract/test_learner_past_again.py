"""What is taken out of a learner is out of every file of it, and two learners are compared on the same rows alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tiny_runs
from everlora.archive import exchange as exchanging
from everlora.archive.committed import read_stages
from everlora.archive.exchange import complete_exchange
from everlora.archive.folder import read_matrix
from everlora.archive.manifest import read_manifest
from everlora.archive.parity import PARITY
from everlora.core.errors import ConfigError
from everlora.learner.opened import create, load_learner, tasks_of
from everlora.learner.scoring import committed_matrix
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.compact import compact
from everlora.learner.verbs.diff import diff
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.repair import repair
from everlora.learner.verbs.rollback import rollback
from everlora.learner.verbs.verify import keep_parity, verify
from everlora.runtime.progress import Progress
from taught import contents, task_of, taught, teach


def taught_forward(place: Path, *names: str) -> Path:
    """A learner whose base model was asked before each task (schedule: forward)."""
    spec = tiny_runs.spec("tiny-llama", "ella", max_source_length=32, max_new_tokens=4)
    plain = spec.model_dump(mode="json", exclude={"evaluation"})
    create(place, {**plain, "evaluation": {"scoring": "labels", "schedule": "forward"}})
    for name in names:
        teach(place, name)
    return place


def answered_before(place: Path) -> list[str]:
    lines = (place / "before/predictions.jsonl").read_text().splitlines()
    return list(dict.fromkeys(json.loads(line)["task"] for line in lines))


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught_forward(tmp_path_factory.mktemp("forward") / "run", "first", "second")


@pytest.mark.parametrize("act", ["rolled back", "rebuilt", "removed", pytest.param("all", marks=pytest.mark.full)])
def test_what_the_base_model_answered_to_a_task_goes_with_it(act: str, forward: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(forward, tmp_path / "run"))
    assert answered_before(place) == ["first", "second"]
    left = "second" if act in ("rebuilt", "removed") else "first"
    if act == "rolled back":
        rollback(place, "first")
    elif act == "all":
        rollback(place, "start", discard=True)
    else:
        forget(place, "first", {"second": task_of("tiny-llama", "second")}, rebuild=act == "rebuilt")
    if act == "all":
        assert not (place / "before").exists()
    else:
        assert answered_before(place) == [left]
        facts = json.loads((place / "before/COMMIT").read_text())
        assert (list(facts["base"]), list(facts["data"])) == ([left], [left])
    assert verify(place, "data").state == "sound"
    if act not in ("removed", "all"):
        assert contents(place) == contents(taught_forward(tmp_path / "never", left))
    if act == "rolled back":
        assert (place / "undone/1/before/COMMIT").is_file()


def test_a_baseline_is_exchanged_whatever_interrupts_it(
    forward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = Path(shutil.copytree(forward, tmp_path / "after"))
    rollback(after, "first")
    real = exchanging.move
    for point in range(1, 100, 4):
        place, calls = Path(shutil.copytree(forward, tmp_path / f"run{point}")), iter(range(1, 1000))

        def move(source: Path, target: Path, point: int = point, calls=calls) -> None:  # type: ignore[no-untyped-def]
            if next(calls) >= point:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(exchanging, "move", move)
            try:
                rollback(place, "first")
            except KeyboardInterrupt:
                done = False
            else:
                done = True
        complete_exchange(place)
        assert contents(place) == contents(after)
        assert (place / "undone/1/before/COMMIT").is_file()
        assert read_manifest(place).exchange is None  # type: ignore[union-attr]
        if done:
            break
    assert point > 4


@pytest.mark.parametrize("act", ["rollback", "compact"])
def test_a_parity_of_deleted_files_is_deleted_with_them(act: str, two_tasks: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    keep_parity(place)
    rollback(place, "first") if act == "rollback" else compact(place, 2)
    assert (place / PARITY).is_file()  # stale, and said so: what it covers lies in undone
    assert any("stale" in note for note in verify(place).notes)
    again = Path(shutil.copytree(two_tasks, tmp_path / "again"))
    keep_parity(again)
    rollback(again, "first", discard=True) if act == "rollback" else compact(again, 2, discard=True)
    assert not (again / PARITY).exists()
    assert (verify(again).state, verify(again).notes) == ("sound", [])


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("again") / "run", "ella", "first", "second")


def test_what_was_compacted_is_learned_again_only_as_a_whole(two_tasks: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    compact(place, 2)
    before = contents(place)
    with pytest.raises(ConfigError, match="tasks before 'second' were compacted into one update with it"):
        forget(place, "second", rebuild=True)
    assert contents(place) == before
    forget(place, "first", {"second": task_of("tiny-llama", "second")}, rebuild=True)
    assert contents(place) == contents(taught(tmp_path / "never", "ella", "second"))


def test_scores_on_other_rows_are_not_compared(two_tasks: Path, tmp_path: Path) -> None:
    """One learner keeps two of the four test rows of its first task, and so is scored on those when it learns on."""
    place, task = taught(tmp_path / "few", "ella"), task_of("tiny-llama", "first")
    learn(place, task, Teaching(keep_tests=2), progress=Progress())
    teach(place, "second")
    found = diff(two_tasks, place)
    assert (found.other_rows, found.compared) == (["first"], {"second": 4})
    assert not any(change.task == "first" for change in [*found.scores, *found.answers])
    within = diff(f"{place}@first", place)  # four rows when it was learned, two of them now
    assert (within.other_rows, within.compared) == (["first"], {})
    assert diff(two_tasks, f"{two_tasks}@first").other_rows == []


@pytest.mark.parametrize("rows", [pytest.param(0, marks=pytest.mark.full), 2])
def test_a_repaired_matrix_counts_the_rows_that_were_answered(rows: int, tmp_path: Path) -> None:
    """Rows at hand may be fewer by now than those that the scores in the matrix were made of."""
    place = taught(tmp_path / "run", "ella")
    learn(place, task_of("tiny-llama", "first"), Teaching(keep_tests=rows), progress=Progress())
    before = (place / "matrix.json").read_bytes()
    assert read_matrix(place).counts == [4]
    learner = load_learner(place)
    assert list(committed_matrix(learner, tasks_of(learner)).counts) == [4]
    (place / "matrix.json").unlink()
    assert repair(place).state == "sound"
    assert (place / "matrix.json").read_bytes() == before
    assert read_stages(place)[0].counts == (4,)
