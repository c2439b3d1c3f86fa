from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

import everlora.methods  # noqa: F401
from everlora.archive import atomic
from everlora.archive.atomic import staged, write_json, write_text
from everlora.archive.card import matrix_table, model_card
from everlora.archive.commits import Commit, Scored, StageFacts
from everlora.archive.committed import PREDICTIONS
from everlora.archive.folder import RunFolder, read_matrix, read_run
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.manifest import COMMIT
from everlora.archive.records import AnswerRow
from everlora.archive.results import LearnerFacts, MatrixRecord, ScoredProtocol
from everlora.archive.schema import SCHEMA, read_rows, write, write_rows
from everlora.core.errors import FolderError
from everlora.core.expressions import parse
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import LearnerSpec
from sealing import update


def record(method: str = "ella", **settings: Any) -> RunRecord:
    """What a run is."""
    spec = LearnerSpec(**{"model": "m", "method": method, **settings})
    return RunRecord.of(spec, Composition.of(parse(method).describe()))


RUN = record()


def disk_full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


# --- files -----------------------------------------------------------------------------------------------------------


def test_text_replaces_text_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "zwei – два")
    assert path.read_text(encoding="utf-8") == "zwei – два"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(broken, disk_full)
        with pytest.raises(FolderError, match=r"cannot write .*a\.txt: No space left on device.*intact"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_write_that_breaks_half_way_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half(self: Path, text: str, **kwargs: Any) -> None:
        with open(self, "w") as handle:
            handle.write(text[: len(text) // 2])
        disk_full()

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(FolderError):
        write_text(path, "a long new text")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_the_new_content_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: (calls.append("sync"), sync(handle)))
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_text(tmp_path / "a", "x")
    assert calls == ["sync", "rename", "sync"]


def test_json_refuses_numbers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1.5, "b": None, "c": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1.5, "b": None, "c": "ü"}
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            write_json(path, {"a": bad})
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == 1.5
    assert names(tmp_path) == {"a.json"}


def test_rows_are_one_json_value_a_line(tmp_path: Path) -> None:
    rows = [
        AnswerRow(task="t", row=0, target="ü", prediction="a\nb\u2028c", correct=False),
        AnswerRow(task="t", row=1, target="", prediction="", correct=True, metric="rouge_l", score=12.5),
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    text = (tmp_path / "p.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 2
    first = {"task": "t", "row": 0, "target": "ü", "prediction": "a\nb\u2028c", "correct": False}
    assert json.loads(text.split("\n")[0]) == first  # no word of a score that says no more
    assert read_rows(AnswerRow, tmp_path / "p.jsonl") == rows
    assert [row.mark for row in rows] == [0.0, 0.125]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "tasks" / "01-a"
    with staged(target) as beside:
        (beside / "x").write_text("1")
        assert not target.exists()
    assert names(tmp_path) == {"tasks", "tasks/01-a", "tasks/01-a/x"}


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_error_inside_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    expected = FolderError if isinstance(error, OSError) else type(error)

    def fill() -> None:
        with staged(tmp_path / "01-a") as beside:
            (beside / "x").write_text("1")
            raise error

    with pytest.raises(expected):
        fill()
    assert names(tmp_path) == set()


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync"])
def test_a_disk_that_fills_up_at_the_end_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(broken, disk_full)
        with pytest.raises(FolderError, match=r"No space left.*tasks are intact"), staged(tmp_path / "a") as b:
            (b / "x").write_text("1")
    assert names(tmp_path) == set()


def test_left_overs_of_a_killed_process_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".a.part").mkdir()
    (tmp_path / ".a.part" / "stale").write_text("x")
    with staged(tmp_path / "a") as beside:
        (beside / "fresh").write_text("y")
    assert names(tmp_path) == {"a", "a/fresh"}


# --- the run folder --------------------------------------------------------------------------------------------------


FACTS = StageFacts(data={}, labels=[], seconds=0.5, warning=None, strengths={}, cut=0)


def commit(folder: RunFolder, number: int, name: str, text: str = "data") -> None:
    with folder.commit(number, name, FACTS) as path:
        (path / "weights.bin").write_text(text)
    with folder.commit_evaluation(folder.stages()[-1], Scored(row=[1.0], seconds=0.25)) as path:
        (path / PREDICTIONS).write_text("{}\n")


def test_a_new_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run", RUN)
    written = yaml.safe_load((folder.path / "run.yaml").read_text())
    assert written.keys() == {"schema", "id", "settings", "composition", "digest"}
    assert (written["schema"], written["id"]) == (SCHEMA, RUN.id)
    assert written["settings"] == RUN.settings.model_dump(mode="json")  # those that are not set, too
    assert written["composition"] == json.loads(json.dumps(parse("ella").describe().plain()))
    assert folder.stages() == []


def test_identity_depends_on_content_and_not_on_order() -> None:
    described = RUN.composition.plain()
    turned = Composition.model_validate({key: described[key] for key in reversed(described)})
    assert RunRecord.of(LearnerSpec(model="m"), turned).id == RUN.id
    assert record(protocol={"hash": "h"}, evaluation={"general": None}).id == RUN.id  # neither tells runs apart
    assert len({record(**{name: 1}).id for name in ("seed", "max_new_tokens")} | {RUN.id}) == 3


def test_identity_is_that_which_earlier_versions_have_written() -> None:
    """Computed at commit 2962122: whoever changes this makes every run before another run."""
    of_then = {"lora": {"lora_alpha": 32}}  # the default was another
    found = (record("ella", **of_then).id, record("o-lora(lam=0.3)", seed=3, **of_then).id)
    assert found == ("5dd9d3355afa211d", "67c06aaa723d7088")


def test_a_step_has_the_same_rows_however_they_are_split(tmp_path: Path) -> None:
    def split(rows: int, steps: int, processes: int, **more: Any) -> RunRecord:
        train = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps}
        settings = LearnerSpec(model="m", train=train, **more)
        return RunRecord.of(settings, Composition.of(parse("ella").describe()), processes=processes)

    assert split(4, 1, 2).id == split(8, 1, 1).id == split(2, 2, 2).id == split(1, 8, 1).id
    assert split(4, 1, 2).id != split(4, 1, 1).id
    of_a_task = [{"train_of": {"a": {"per_device_train_batch_size": n}}} for n in (3, 6)]
    assert split(4, 1, 2, **of_a_task[0]).id == split(8, 1, 1, **of_a_task[1]).id
    assert split(4, 1, 2, **of_a_task[0]).id != split(8, 1, 1, **of_a_task[0]).id

    folder = RunFolder(tmp_path / "run", split(4, 1, 2))
    commit(folder, 1, "news")
    RunFolder(tmp_path / "run", split(8, 1, 1), resume=True, write=False)
    with pytest.raises(FolderError, match="different: rows of a step, over all processes"):
        RunFolder(tmp_path / "run", split(4, 1, 1), resume=True)
    # An older everlora counted the rows of a micro-batch.
    update(tmp_path / "run/run.yaml", id="0123456789abcdef")
    assert RunFolder(tmp_path / "run", split(8, 1, 1), resume=True, write=False).id == "0123456789abcdef"


def test_a_commit_is_sealed_with_hashes_and_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")
    commit(folder, 2, "reviews")
    again = RunFolder(tmp_path, RUN, resume=True).stages()
    assert [(s.path.name, s.facts.number, s.facts.name) for s in again] == [
        ("01-news", 1, "news"),
        ("02-reviews", 2, "reviews"),
    ]
    assert (again[0].facts.row, again[0].facts.seconds, again[0].evaluated) == ([1.0], 0.25, True)
    assert again[0].predictions == tmp_path / "tasks/01-news/evaluation-1/predictions.jsonl"
    assert set(again[0].facts.files) == {"weights.bin", "run.yaml"}
    assert (again[0].path / "run.yaml").read_bytes() == (tmp_path / "run.yaml").read_bytes()
    assert len(set(again[0].facts.files.values())) == 2


def test_a_failed_commit_is_no_commit(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")

    def interrupted() -> None:
        with folder.commit(2, "reviews", FACTS) as path:
            (path / "weights.bin").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [s.path.name for s in folder.stages()] == ["01-news"]
    assert {p.name for p in (tmp_path / "tasks").iterdir()} == {"01-news"}
    commit(folder, 2, "reviews")
    assert len(folder.stages()) == 2


def test_a_disk_full_while_sealing_keeps_earlier_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")
    with monkeypatch.context() as patch:
        patch.setattr("everlora.archive.schema.write_text", disk_full)
        with pytest.raises(FolderError, match="No space left"):
            commit(folder, 2, "reviews")
    assert [s.path.name for s in folder.stages()] == ["01-news"]
    assert {p.name for p in (tmp_path / "tasks").iterdir()} == {"01-news"}


def test_a_folder_without_its_commit_does_not_count(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    (tmp_path / "tasks" / "01-news").mkdir()
    (tmp_path / "tasks" / "01-news" / "weights.bin").write_text("first try")
    assert folder.stages() == []
    commit(folder, 1, "news", "second try")
    assert (folder.stages()[0].path / "weights.bin").read_text() == "second try"
    (tmp_path / "tasks" / "01-news" / COMMIT).unlink()  # not as a process that is killed leaves it: something was lost
    with pytest.raises(FolderError, match="01-news is missing; restore the folder from a copy"):
        folder.stages()


def test_what_a_killed_process_left_beside_does_not_count(tmp_path: Path) -> None:
    """Killed between sealing and renaming, a process leaves a whole but hidden folder."""
    folder, twin = RunFolder(tmp_path / "run", RUN), RunFolder(tmp_path / "twin", RUN)
    for each in (folder, twin):
        commit(each, 1, "news")
    commit(twin, 2, "reviews")
    shutil.copytree(twin.path / "tasks" / "02-reviews", folder.path / "tasks" / ".02-reviews.part")
    assert [s.path.name for s in folder.stages()] == ["01-news"]
    commit(folder, 2, "reviews")
    assert {p.name for p in (folder.path / "tasks").iterdir()} == {"01-news", "02-reviews"}


def test_stages_come_in_the_order_of_learning_beyond_a_hundred(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    for number in range(1, 111):
        place = tmp_path / "tasks" / f"{number:02d}-task"
        place.mkdir()
        seal = {"run": folder.id, "number": number, "name": "task", "files": {}}
        write(place / COMMIT, Commit.model_validate({**seal, **FACTS.model_dump()}))
    folder.write_manifest()
    assert [s.facts.number for s in folder.stages()] == [*range(1, 111)]


def change(path: Path) -> None:
    path.write_text("other")


def test_stray_files_are_no_stages(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")
    (tmp_path / "tasks" / "notes.txt").write_text("mine")
    (tmp_path / "tasks" / ".DS_Store").write_text("x")
    assert len(folder.stages()) == 1


@pytest.mark.parametrize("harm", [change, Path.unlink], ids=["changed", "missing"])
@pytest.mark.parametrize("file", ["weights.bin", "run.yaml", "evaluation-1/predictions.jsonl"])
def test_a_changed_or_missing_file_is_found(tmp_path: Path, file: str, harm: Callable[[Path], None]) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")
    harm(tmp_path / "tasks" / "01-news" / file)
    with pytest.raises(FolderError, match=f"{file} is missing or was changed"):
        folder.stages()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'{"files": 3}', b"\xff\xfe\x81", b"null"])
def test_a_damaged_seal_is_the_users_to_mend(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path, RUN)
    commit(folder, 1, "news")
    (tmp_path / "tasks" / "01-news" / COMMIT).write_bytes(content)
    with pytest.raises(FolderError, match="COMMIT is damaged"):
        folder.stages()


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    commit(RunFolder(tmp_path, RUN), 1, "news")
    before = (tmp_path / "run.yaml").read_bytes()
    for resume in (False, True):
        with pytest.raises(FolderError, match=r"another run \(different: seed\)"):
            RunFolder(tmp_path, record(seed=1), resume=resume)
    assert (tmp_path / "run.yaml").read_bytes() == before


def test_a_task_of_another_run_is_no_task_of_this_one(tmp_path: Path) -> None:
    """A folder that was copied in by hand: whole in itself, and of other settings."""
    mine, other = RunFolder(tmp_path / "mine", RUN), RunFolder(tmp_path / "other", record("seqlora"))
    for folder in (mine, other):
        commit(folder, 1, "news")
    commit(other, 2, "mail")
    shutil.copytree(other.path / "tasks" / "02-mail", mine.path / "tasks" / "02-mail")
    with pytest.raises(FolderError, match=r"02-mail was learned by another run than .*01-news; take it away"):
        mine.stages()
    assert len(other.stages()) == 2


def test_a_method_is_the_same_however_it_is_spelt(tmp_path: Path) -> None:
    commit(RunFolder(tmp_path, record("o-lora")), 1, "news")
    for spelling in ("OLoRA", "o_lora", "O-LoRA()"):
        assert len(RunFolder(tmp_path, record(spelling), resume=True).stages()) == 1
        assert yaml.safe_load((tmp_path / "run.yaml").read_text())["settings"]["method"] == spelling


@pytest.mark.parametrize(
    ("method", "named"), [("ella(lam=3)", r"lam\)"), ("seqlora", "method, "), ("o-lora", "method, ")]
)
def test_what_differs_in_a_method_is_named(tmp_path: Path, method: str, named: str) -> None:
    commit(RunFolder(tmp_path, record("ella")), 1, "news")
    with pytest.raises(FolderError, match=rf"\(different: {named}"):
        RunFolder(tmp_path, record(method), resume=True)


def test_a_first_try_that_learned_nothing_may_be_mended(tmp_path: Path) -> None:
    RunFolder(tmp_path, RUN)
    other = record(seed=1)
    assert RunFolder(tmp_path, other).stages() == []
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["id"] == other.id


def test_the_same_run_needs_resume(tmp_path: Path) -> None:
    commit(RunFolder(tmp_path, RUN), 1, "news")
    with pytest.raises(FolderError, match="--resume"):
        RunFolder(tmp_path, RUN)
    assert len(RunFolder(tmp_path, RUN, resume=True).stages()) == 1


def test_resume_in_an_empty_or_absent_folder_starts(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "none", RUN, resume=True).stages() == []
    (tmp_path / "empty").mkdir()
    assert RunFolder(tmp_path / "empty", RUN).stages() == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(FolderError, match="not empty and holds no run"):
        RunFolder(tmp_path, RUN, resume=resume)
    assert names(tmp_path) == {"thesis.tex"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(FolderError):
            RunFolder(path, RUN)
    assert (tmp_path / "out").read_text() == "x"


@pytest.mark.parametrize("content", [b"", b"[]", b"a: [", b"no: id", b"\xff\xfe\x81", b"text"])
def test_a_damaged_run_file_is_said(tmp_path: Path, content: bytes) -> None:
    RunFolder(tmp_path, RUN)
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(FolderError, match=r"run\.yaml is damaged"):
        RunFolder(tmp_path, RUN, resume=True)


def test_facts_of_python_survive_the_file_so_that_a_run_knows_itself(tmp_path: Path) -> None:
    odd = {"model": "ja: nein", "train": {"number": 1e-4, "none": None, "list": [1, "2"], "yes": "on"}}
    RunFolder(tmp_path, record(**odd))
    assert RunFolder(tmp_path, record(**odd), resume=True).stages() == []
    assert read_run(tmp_path) == record(**odd)


# --- matrix and card -------------------------------------------------------------------------------------------------

MATRIX = ScoreMatrix(("news", "reviews"), (30, 10), ((90.0, None), (70.0, 80.0)))


def test_the_matrix_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    learner = LearnerFacts(stored_elements=0, adapter_elements=0, memory_bytes=0, method="ella")
    results = folder.write_matrix(MATRIX, learner)
    assert read_matrix(tmp_path) == results
    content = json.loads((tmp_path / "matrix.json").read_text())
    assert content["matrix"] == [[90.0, None], [70.0, 80.0]]
    assert content["metrics"]["bwt"] == -20.0
    assert content["metrics"]["oa_weighted"] == 72.5
    assert (content["method"], content["id"], content["counts"]) == ("ella", folder.id, [30, 10])


METHODS = {"sequence": "ella", "frozen": "zero-shot", "joint": "mtl"}


def results_of(**more: Any) -> MatrixRecord:
    evaluation = {"schedule": "full", "scoring": "generate", "batch_size": 32, "split": "test"}
    return MatrixRecord(
        id="0", tasks=list(MATRIX.tasks), counts=list(MATRIX.counts), matrix=[list(row) for row in MATRIX.cells],
        metrics={"oa": 75.0}, stored_elements=0, adapter_elements=0, memory_bytes=0, method="ella", model="org/base",
        protocol=ScoredProtocol(
            name="mine", hash="0123456789ab", changed=False, general=None, general_tasks=None, **evaluation
        ),
        **more,
    )  # fmt: skip


def card_of(
    *,
    hub: str | None = "org/base",
    regime: str = "sequence",
    labels: Any = (),
    family: str = "decoder",
    **more: Any,
) -> str:
    run = record(METHODS[regime], **{"model": "org/base", **more})
    return model_card(results_of(labels=list(labels), family=family), run, hub)


def test_the_card_shows_the_matrix_and_names_the_base_model() -> None:
    table = ["| after | news | reviews |", "|---|---|---|", "| news | 90.0 | – |", "| reviews | 70.0 | 80.0 |"]
    assert matrix_table(results_of()).splitlines() == table
    card = card_of()
    assert "\n".join(table) in card
    assert "Protocol mine (0123456789ab), fingerprint unknown." in card
    assert "sum of all tasks" in card
    assert "everlora.load('org/base').model" in card
    assert "base_model" not in yaml.safe_load(card_of(hub=None).split("---")[1])


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("decoder", "text-generation"),
        ("encoder-decoder", "text2text-generation"),
        ("encoder", "text-classification"),
        ("image-classifier", "image-classification"),
    ],
)
def test_the_hub_can_read_the_results(family: str, task: str) -> None:
    """Parsed as the Hub's own library does; nothing is asked of the Hub."""
    data = ModelCard(card_of(family=family)).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("org/base", "peft", task)
    found = {r.dataset_name: (r.task_type, r.metric_type, r.metric_value) for r in data.eval_results}
    assert found == {"news": (task, "exact_match", 70.0), "reviews": (task, "exact_match", 80.0)}


def test_the_card_loads_what_was_adapted() -> None:
    card = card_of(labels=["a", "b"], revision="v1", dtype="bfloat16", trust_remote_code=True)
    call = "everlora.load('org/base', revision='v1', trust_remote_code=True, dtype='bfloat16', labels=['a', 'b'])"
    assert call in card
    assert "everlora.load('org/base')" in card_of(revision=None, dtype="auto", trust_remote_code=False)


def test_the_card_of_the_base_model_shows_no_adapter() -> None:
    card = card_of(regime="frozen")
    assert "Nothing was trained" in card
    assert "adapter" not in card
    assert "PeftModel" not in card
    assert ModelCard(card).data.library_name == "transformers"
    assert "all tasks at once" in card_of(regime="joint")
