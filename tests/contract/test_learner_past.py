"""A learner that is taken back was never taught what followed; one that forgets or is compacted says what that is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import tiny_runs
from everlora.adapters import files as adapters
from everlora.analysis.runs import Run
from everlora.analysis.status import status
from everlora.archive import atomic, exchange, schema
from everlora.archive.committed import read_stages
from everlora.archive.exchange import complete_exchange
from everlora.archive.history import read_history
from everlora.archive.manifest import read_manifest
from everlora.core.errors import ConfigError, FolderError
from everlora.core.expressions import parse
from everlora.learner.opened import create, load_learner, restore, tasks_of
from everlora.learner.verbs.compact import check_compactable, compact
from everlora.learner.verbs.diff import diff
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.rollback import rollback
from everlora.learner.verbs.verify import keep_parity
from taught import contents, task_of, taught, teach

METHODS = ("ella", "ps-lora", "lb-cl", "ewc", "seqlora-replay(ratio=0.2)", "seqlora", "o-lora", "per-task")


@pytest.mark.parametrize("method", METHODS)
def test_a_learner_that_is_taken_back_was_never_taught_what_followed(method, tmp_path):
    never = taught(tmp_path / "never", method, "first")
    back = taught(tmp_path / "back", method, "first", "second")
    done = rollback(back, "first", by="eve", because="it was wrong")
    assert (done.task, done.number, done.removed) == ("first", 1, ["second"])
    assert contents(back) == contents(never)
    teach(never, "third"), teach(back, "third")
    assert contents(back) == contents(never)
    assert (back / "undone/1/02-second/COMMIT").is_file()
    assert (back / "undone/1/matrix.json").is_file()


ACTS = {
    "rollback": lambda place: rollback(place, "first"),
    "compact": lambda place: compact(place, 2),
    "forget": lambda place: forget(place, "first"),
}


@pytest.mark.parametrize("name", ACTS)
def test_whatever_interrupts_it_the_past_is_changed_at_once(name, tmp_path, monkeypatch, two_tasks):
    """The disk fails at one point after the other: the learner is the one behind the act, and goes on."""
    act, after = ACTS[name], Path(shutil.copytree(two_tasks, tmp_path / "after"))
    act(after)
    moved = below(after / "undone")
    tasks = [stage.facts.name for stage in read_stages(after)]
    for point in range(1, 100):
        place = Path(shutil.copytree(two_tasks, tmp_path / f"run{point}"))
        with monkeypatch.context() as patch, fails_at(point, patch):
            failed = ""
            try:
                act(place)
            except FolderError as error:
                failed = str(error)
        assert not failed or "is completed when it can be" in failed
        assert [stage.facts.name for stage in read_stages(place)] == tasks
        assert [task.name for task in status(place).tasks] == tasks
        complete_exchange(place)
        assert contents(place) == contents(after)
        assert below(place / "undone") == moved
        assert read_manifest(place).exchange is None
        assert not list(place.glob(".[ng]*"))
        if not failed:
            break
    assert point > 8


def below(place: Path) -> list[str]:
    return sorted(str(file.relative_to(place)) for file in place.rglob("*"))


@contextmanager
def fails_at(point: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is full when something is moved for the ``point``-th time, and from there on."""
    calls = iter(range(1, 1000))

    def move(source: Path, target: Path) -> None:
        if next(calls) >= point:
            raise OSError(28, "no space left")
        atomic.move(source, target)

    patch.setattr(exchange, "move", move)
    yield


@pytest.mark.parametrize("name", ["undone", ".training", "PARITY", ".gone"])
def test_what_cannot_be_deleted_when_a_task_is_forgotten_is_deleted_later(name, tmp_path, monkeypatch, two_tasks):
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    (place / "undone/1").mkdir(parents=True)
    (place / ".training").mkdir()
    keep_parity(place)
    delete = exchange._delete

    def refuse(left: Path) -> None:
        if left.name == name:
            raise PermissionError(13, "Permission denied")
        delete(left)

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "_delete", refuse)
        with pytest.raises(FolderError, match="Permission denied; what was begun is completed when it can be"):
            forget(place, "second")
    assert (place / name).exists()
    assert [stage.facts.name for stage in read_stages(place)] == ["first"]
    load_learner(place)
    assert not [left for left in ("undone", ".training", "PARITY", ".gone", ".next") if (place / left).exists()]
    assert read_manifest(place).exchange is None


def test_all_that_takes_the_place_of_a_task_has_reached_the_disk_before_it_is_listed(tmp_path, monkeypatch, two_tasks):
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    synced, missing = set[Path](), list[set[Path]]()

    def listing(target: Path, record: object) -> None:
        missing.append({place / ".next", *(place / ".next").rglob("*")} - synced)
        schema.write(target, record)

    monkeypatch.setattr(exchange, "sync", synced.add)
    monkeypatch.setattr(exchange, "write", listing)
    rollback(place, "first")
    assert missing == [set()]
    assert place / ".next/tasks/01-first/COMMIT" in synced


@pytest.mark.parametrize("act", [lambda place: rollback(place, "first"), lambda place: forget(place, "second")])
def test_scores_of_a_task_that_was_not_learned_yet_are_not_left_to_another(act, tmp_path):
    tasks = [task_of("tiny-llama", name) for name in ("first", "second")]
    spec = tiny_runs.spec("tiny-llama", "ella", max_source_length=32, max_new_tokens=4)
    plain = spec.model_dump(mode="json", exclude={"evaluation"})
    place = tmp_path / "run"
    create(place, {**plain, "evaluation": {"scoring": "labels", "schedule": "forward"}})
    load_learner(place).follow(tasks)
    assert read_stages(place)[0].facts.row[1] is not None
    before = contents(place)
    with pytest.raises(ConfigError, match="task behind 'first' before that was learned"):
        act(place)
    assert contents(place) == before


@pytest.fixture(scope="session")
def two_tasks(tmp_path_factory):
    return taught(tmp_path_factory.mktemp("past") / "run", "ella", "first", "second")


def test_a_learner_is_taken_back_to_its_start(two_tasks, tmp_path):
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    done = rollback(place, "start", discard=True)
    assert (done.task, done.number, done.removed, done.undone) == (None, 0, ["first", "second"], None)
    assert not (place / "undone").exists()
    assert not (place / ".next").exists()
    assert read_stages(place) == []
    assert not (place / "adapter_model.safetensors").exists()
    assert not (place / "matrix.json").exists()
    teach(place, "second")
    assert contents(place) == contents(taught(tmp_path / "never", "ella", "second"))


def test_what_is_taken_back_stands_in_the_history(two_tasks, tmp_path):
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    rollback(place, "first", by="eve", because="it was wrong")
    acts = [(act.act, act.tasks, act.by, act.because) for act in read_history(place)]
    assert acts == [
        ("init", [], None, None),
        ("learn", ["first"], "ada", None),
        ("learn", ["second"], "ada", None),
        ("rollback", ["second"], "eve", "it was wrong"),
    ]


@pytest.mark.parametrize(("to", "why"), [("second", "nothing to take back"), ("frist", "did you mean 'first'")])
def test_what_cannot_be_taken_back_is_refused(to, why, two_tasks):
    before = contents(two_tasks)
    with pytest.raises(ConfigError, match=why):
        rollback(two_tasks, to)
    assert contents(two_tasks) == before


@pytest.mark.parametrize(("method", "model"), [("ella", "tiny-llama"), ("o-lora", "tiny-bert"), ("kfac", "tiny-t5")])
def test_a_compacted_learner_answers_with_the_nearest_update_and_learns_on(method, model, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second", model=model)
    exact = Run.read(place).past()
    looked = compact(place, 3, dry_run=True)
    assert not looked.done
    found = compact(place, 3, because="small")
    past = Run.read(place).past()
    assert len(past) == 1
    lost = sum(float((past.total(n) - exact.total(n)).square().sum()) for n in exact.sites) ** 0.5
    size = sum(float(exact.total(n).square().sum()) for n in exact.sites) ** 0.5
    assert found.error == looked.error == pytest.approx(lost / size, rel=1e-4)
    assert max(past.factors(n).rank for n in past.sites) == 3 < max(exact.factors(n).rank for n in exact.sites)
    assert {n: int(torch.linalg.matrix_rank(past.total(n))) for n in past.sites} == dict.fromkeys(past.sites, 3)
    assert [stage.facts.within for stage in read_stages(place)] == ["second", None]
    assert set(found.scores) == {"first", "second"}
    assert (place / "undone/1/01-first/adapter_model.safetensors").is_file()
    with pytest.raises(ConfigError, match="was compacted into one update"):
        rollback(place, "first")
    teach(place, "third", model)
    rollback(place, "second")
    again = Run.read(place).past()
    assert all(torch.equal(again.total(n), past.total(n)) for n in past.sites)


def test_a_full_rank_loses_nothing(two_tasks, tmp_path):
    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    learner = load_learner(place)
    rows = tasks_of(learner)
    before = [tiny_runs.outputs(restore(learner, rows), learner.base.family, task, task.test) for task in rows]
    assert compact(place, 8).error < 1e-6
    learner = load_learner(place)
    after = [tiny_runs.outputs(restore(learner, rows), learner.base.family, task, task.test) for task in rows]
    for then, now in zip(before, after, strict=True):
        torch.testing.assert_close(now, then, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("seqlora", "on and on"),
        ("per-task", "of its own"),
        ("ties", "merges"),
        ("lb-cl", "no plain low-rank updates"),
        ("copy-layers", "starts a task from"),
    ],
)
def test_a_past_that_is_no_plain_sum_is_not_compacted(method, why):
    with pytest.raises(ConfigError, match=why):
        check_compactable(parse(method))


@pytest.mark.parametrize("method", ["ella", "seqlora", "ties"])
def test_what_differs_is_what_was_learned_between(method, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second")
    same = diff(place, f"{place}@second")
    assert (same.norm, same.scores, same.answers, same.settings) == (pytest.approx(0, abs=1e-6), [], [], [])
    found = diff(f"{place}@first", place)
    sums = [merged(place, 1), merged(place, 2)]
    exact = {name: float((sums[1][name] - sums[0][name]).norm()) for name in sums[0]}
    for module in found.modules:
        assert module.norm == pytest.approx(exact[module.module], rel=1e-3)
    assert found.norm == pytest.approx(sum(v**2 for v in exact.values()) ** 0.5, rel=1e-3)
    size = sum(float(v.norm()) ** 2 for v in sums[0].values()) ** 0.5
    assert found.relative == pytest.approx(found.norm / size, rel=1e-3)
    assert {one.task for one in found.scores} >= {"second"}  # which the first had no score of
    assert found.compared == {"first": 4}
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        diff(f"{place}@frist", place)


def merged(place: Path, tasks: int) -> dict[str, torch.Tensor]:
    """What a learner adds to each module after so many tasks, from the adapter at its root then."""
    copy = place.with_name(f"after{tasks}")
    shutil.copytree(place, copy)
    if tasks < len(read_stages(copy)):
        rollback(copy, read_stages(copy)[tasks - 1].facts.name)
    return {name: update.dense() for name, update in adapters.read(copy)[0].items()}


def test_settings_that_differ_are_named(two_tasks, tmp_path):
    other = taught(tmp_path / "other", "o-lora", "first")
    found = diff(two_tasks, other)
    assert "method" in found.settings
    assert {(one.task, one.b) for one in found.scores} >= {("second", None)}


def test_what_ends_before_it_is_done_changes_nothing(two_tasks, tmp_path, monkeypatch):
    def end(*args: object) -> None:
        raise KeyboardInterrupt

    place = Path(shutil.copytree(two_tasks, tmp_path / "run"))
    monkeypatch.setattr("everlora.learner.verbs.rollback.settle", end)
    with pytest.raises(KeyboardInterrupt):
        rollback(place, "first")
    assert (place / ".next").exists()
    load_learner(place)
    assert not (place / ".next").exists()
    assert contents(place) == contents(two_tasks)
