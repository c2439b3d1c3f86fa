"""What a run folder says of itself: the time before the first task, matrix.json, and what it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlora.archive.commits import Baseline, BaselineFacts, Commit, StageFacts
from everlora.archive.fingerprints import differing, digest, fingerprints_of
from everlora.archive.folder import BEFORE, RunFolder, stages
from everlora.archive.history import Act, note
from everlora.archive.identity import Composition, RunProtocol, RunRecord
from everlora.archive.manifest import COMMIT, MANIFEST, Exchange, Manifest, is_begun
from everlora.archive.records import AnswerRow, Fingerprint
from everlora.archive.references import reference_scores, references, write_single_task_scores
from everlora.archive.results import LearnerFacts
from everlora.archive.schema import read_json, write
from everlora.core.errors import FolderError
from everlora.core.expressions import parse
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import LearnerSpec
from sealing import relist, update

HOW = Fingerprint(
    backend="plain", weights="float32", device="cpu", attention=None, scoring="generate", batch_invariant=None,
    versions={"torch": "2", "peft": None},
)  # fmt: skip
LEARNER = LearnerFacts(stored_elements=0, adapter_elements=0, memory_bytes=0, method="ella")


def run(seed: int = 0) -> RunRecord:
    return RunRecord.of(LearnerSpec(model="m", seed=seed), Composition.of(parse("ella").describe()))


def facts(*row: float | None, **more: Any) -> StageFacts:
    return StageFacts(
        **{"data": {}, "labels": [], "seconds": 0.5, "warning": None, "strengths": {}, "cut": 0, **more}, row=list(row)
    )


def measure_before(folder: RunFolder, **more: Any) -> None:
    with folder.commit_before(BaselineFacts(base={"a": 10.0}, data={"a": "d"}, **more)) as path:
        (path / "predictions.jsonl").write_text("{}\n")


def test_what_was_measured_before_the_first_task_is_sealed_and_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, run())
    assert folder.before() is None
    measure_before(folder, fingerprint=HOW, general={"x": 1.0})
    found = folder.before()
    assert found is not None
    assert found.path == tmp_path / BEFORE
    assert (found.facts.run, found.facts.number, found.facts.name) == (folder.id, 0, BEFORE)
    assert (found.facts.base, found.facts.data, found.facts.general) == ({"a": 10.0}, {"a": "d"}, {"x": 1.0})
    assert (found.facts.fingerprint, list(found.facts.files)) == (HOW, ["predictions.jsonl"])
    assert stages(tmp_path) == [], "it is no stage"
    measure_before(folder)  # again, in the place of the first
    assert (again := folder.before()) is not None
    assert again.facts.general is None
    assert RunFolder(tmp_path, run(1)).before() is None, "that of another run"
    (tmp_path / BEFORE / "predictions.jsonl").write_text("other")
    with pytest.raises(FolderError, match="missing or was changed"):
        folder.before()
    (tmp_path / BEFORE / COMMIT).unlink()
    assert folder.before() is None


def test_the_matrix_is_written_with_all_that_the_stages_say(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, run())
    measure_before(folder)
    told: dict[str, Any] = {"metric": {"a": "bleu"}, "left_out": {"a": {"long": 2}}, "label_rows": {"a": [0]}}
    with folder.commit(1, "a", facts(50.0, None, data={"a": "x"}, chance={"a": 25.0}, fingerprint=HOW, **told)):
        pass
    matrix = ScoreMatrix.empty("ab", [1, 2]).with_row(0, [50.0, None])
    found = folder.write_matrix(matrix, LEARNER)
    assert (found.tasks, found.counts, found.matrix) == (["a", "b"], [1, 2], [[50.0, None], [None, None]])
    assert (found.base, found.chance, found.single, found.general) == ([10.0, None], [25.0, None], None, None)
    assert (found.metric, found.left_out, found.label_rows) == tuple(told.values())
    assert (found.fingerprints.rows, found.method, found.order_digest) == ([digest(HOW)], "ella", None)
    with folder.commit(2, "b", facts(40.0, 80.0, data={"b": "y"}, cut=3)):
        pass
    found = folder.matrix_record(matrix.with_row(1, [40.0, 80.0]), LEARNER)
    assert (found.metrics["oa"], found.metrics["bwt"], found.cut) == (60.0, -10.0, {"b": 3})
    assert (found.fingerprints.rows, bool(found.order_digest)) == ([digest(HOW), None], True)


def test_a_stage_in_the_folder_of_another_number_is_found(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, run())
    with folder.commit(1, "a", facts(1.0)):
        pass
    (tmp_path / "tasks/01-a").rename(tmp_path / "tasks/02-a")
    with pytest.raises(FolderError, match="COMMIT is of task 1, 'a', and not of its folder's"):
        folder.stages()


# --- fingerprints and references -------------------------------------------------------------------------------------


def commit(fingerprint: Fingerprint | None = None, **more: Any) -> Commit:
    plain = facts(1.0, **more).model_dump() | {"fingerprint": fingerprint}
    return Commit.model_validate({"run": "r", "number": 1, "name": "a", "files": {}, **plain})


@pytest.mark.parametrize(
    ("flags", "found"),
    [((None, None), None), ((True, None), True), ((None, True), True), ((True, False), False), ((False, None), False)],
)
def test_a_batch_that_was_ever_found_to_matter_matters(flags: tuple[Any, Any], found: bool | None) -> None:
    both = [HOW.model_copy(update={"batch_invariant": flag}) for flag in flags]
    assert digest(both[0]) == digest(both[1]) != digest(HOW.model_copy(update={"backend": "other"}))
    made = fingerprints_of([commit(both[0]), commit(), commit(both[1])])
    assert made.rows == [digest(HOW), None, digest(HOW)]
    assert [one.batch_invariant for one in made.of.values()] == [found]


def test_fingerprints_are_told_apart_in_words() -> None:
    other = HOW.model_copy(update={"weights": "bfloat16", "versions": {"torch": "3"}, "batch_invariant": True})
    assert differing(HOW, other) == ["torch 2 and 3", "weights float32 and bfloat16"]
    assert differing(HOW, HOW.model_copy(update={"batch_invariant": False})) == []
    for pair in ((None, HOW), (HOW, None), (None, None)):
        assert differing(*pair) == ["one of them, of an older everlora, does not say how"]


def test_scores_that_a_matrix_is_compared_with(tmp_path: Path) -> None:
    none = reference_scores("ab", None, [], tmp_path)
    assert none.model_dump() == {"base": None, "chance": None, "single": None, "general": None, "cut": {}}
    write_single_task_scores(tmp_path, tmp_path / "x", {"b": 5.0, "other": 1.0})
    write_single_task_scores(tmp_path, tmp_path / "x", {"b": 5.0, "other": 1.0})
    with pytest.raises(FolderError, match="other scores of tasks learned alone than"):
        write_single_task_scores(tmp_path, tmp_path / "x", {"b": 6.0})
    found = reference_scores("ab", None, [commit(chance={"c": 1.0})], tmp_path)
    assert (found.single, found.chance, references(found).single) == ([None, 5.0], None, [None, 5.0])


@pytest.mark.parametrize("start", [None, {"x": 10.0, "y": 20.0}])
@pytest.mark.parametrize("rows", [[], [None], [{"x": 11.0, "z": 0.0}], [{"x": 9.0}, None]])
def test_general_ability_is_compared_where_it_was_measured_at_both_ends(start: Any, rows: list[Any]) -> None:
    folder = Path("nowhere")
    before = None
    if start is not None:
        before = Baseline(run="r", number=0, name=BEFORE, files={}, base={}, data={}, general=start)
    found = reference_scores("a", before, [commit(general=row) for row in rows], folder)
    if start is None and not any(rows):
        assert found.general is None
        assert references(found).general is None
        return
    assert found.general is not None
    assert (found.general.before, found.general.after) == (start, rows)
    assert found.general.delta == [{"x": row["x"] - 10.0} if row and start else None for row in rows]
    at_end = rows[-1] if rows else None
    assert references(found).general == ((start, at_end) if start and at_end else None)


# --- rows and protocols ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "score", "share", "mark"),
    [(True, None, None, 1.0), (False, None, None, 0.0), (True, 40.0, None, 0.4), (True, 40.0, -20.0, -0.2),
     (True, 0.0, None, 0.0), (True, 40.0, 0.0, 0.0)],
)  # fmt: skip
def test_what_a_row_adds_to_the_score(correct: bool, score: Any, share: Any, mark: float) -> None:
    row = AnswerRow(task="t", row=0, target="", prediction="", correct=correct, score=score, share=share)
    assert row.mark == pytest.approx(mark)


def test_how_a_protocol_is_named() -> None:
    assert RunProtocol(hash="0").describe() == RunProtocol(hash="0", changed=True).describe() == "0"
    assert RunProtocol(hash="0", name="mine").describe() == "mine (0)"
    assert RunProtocol(hash="0", name="mine", changed=True).describe() == "mine with changes (0)"


def test_a_name_that_libraries_cannot_write_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"\\udcff is not UTF-8; choose another --out"):
        RunFolder(tmp_path / "out\udcff", run())


# --- whose folder it is ----------------------------------------------------------------------------------------------


def learned(path: Path, seed: int = 0) -> RunFolder:
    """The folder of a run that has learned one task."""
    folder = RunFolder(path, run(seed))
    with folder.commit(1, "a", facts(50.0)) as place:
        (place / "weights").write_text("x")
    return folder


def test_a_folder_that_holds_a_run_is_gone_on_with_only_where_that_is_meant(tmp_path: Path) -> None:
    learned(tmp_path)
    with pytest.raises(FolderError, match="holds this run already; pass --resume to go on, or choose another --out"):
        RunFolder(tmp_path, run())
    assert [stage.facts.name for stage in RunFolder(tmp_path, run(), resume=True).stages()] == ["a"]
    for resume in (False, True):
        with pytest.raises(FolderError, match=r"holds another run \(different: seed\); choose another --out"):
            RunFolder(tmp_path, run(1), resume=resume)


def test_a_folder_in_which_nothing_was_learned_is_anybodys(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", run())
    assert RunFolder(tmp_path / "run", run(1)).id == run(1).id
    assert read_json(RunRecord, tmp_path / "run" / "run.yaml").id == run(1).id
    RunFolder(tmp_path / "unwritten", run(), write=False)
    assert not (tmp_path / "unwritten").exists()


def test_a_learner_that_was_made_and_knows_nothing_yet_stays_what_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, run())
    note(tmp_path, Act(act="init", date="2026-01-02T03:04:05Z", tasks=[]))
    assert RunFolder(tmp_path, run(1)).id == run(1).id, "it was not made to its end"
    folder = RunFolder(tmp_path, run())
    folder.write_manifest(complete=True)
    with pytest.raises(FolderError, match=r"holds another run \(different: seed\); choose another --out"):
        RunFolder(tmp_path, run(1))
    assert RunFolder(tmp_path, run()).id == read_json(RunRecord, tmp_path / "run.yaml").id == run().id


def test_a_learner_that_is_being_taken_back_to_its_start_is_not_made_anew(tmp_path: Path) -> None:
    RunFolder(tmp_path, run())
    assert is_begun(tmp_path)
    write(tmp_path / MANIFEST, Manifest(run=run().id, exchange=Exchange(keep=0)))
    assert not is_begun(tmp_path)


def test_what_is_no_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match="is not empty and holds no run of everlora; choose another --out"):
        RunFolder(tmp_path, run(), resume=True)
    with pytest.raises(FolderError, match=r"notes\.txt is a file; --out must name a folder"):
        RunFolder(tmp_path / "notes.txt", run())
    with pytest.raises(FolderError, match=r"cannot make the folder .*: Not a directory"):
        RunFolder(tmp_path / "notes.txt" / "run", run())
    (tmp_path / "run.yaml").write_text("settings: {}\n")
    with pytest.raises(FolderError, match=r"run\.yaml is damaged; choose another --out"):
        RunFolder(tmp_path, run(), resume=True)


def test_the_id_that_an_older_everlora_gave_the_same_run_stays(tmp_path: Path) -> None:
    learned(tmp_path)
    update(tmp_path / "run.yaml", id="f" * 16)
    update(tmp_path / "tasks" / "01-a" / COMMIT, run="f" * 16)
    relist(tmp_path)
    again = RunFolder(tmp_path, run(), resume=True)
    assert (again.id, again.record.id) == ("f" * 16, "f" * 16)
    assert len(again.stages()) == 1
    assert read_json(RunRecord, tmp_path / "run.yaml").id == "f" * 16
    with pytest.raises(FolderError, match=r"holds another run \(different: seed\)"):
        RunFolder(tmp_path, run(1), resume=True)


def test_a_stage_of_another_run_is_no_stage_of_this_one(tmp_path: Path) -> None:
    folder = learned(tmp_path)
    update(tmp_path / "tasks" / "01-a" / COMMIT, run="f" * 16)
    relist(tmp_path, "f" * 16)
    with pytest.raises(FolderError, match="01-a was learned by another run than"):
        folder.stages()
    with pytest.raises(FolderError, match=r"run\.yaml is of another run than .*01-a; copy the one that is there"):
        stages(tmp_path)
