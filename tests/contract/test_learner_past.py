"""A learner that is taken back was never taught what followed; one that forgets or is compacted says what that is."""

from __future__ import annotations

import json
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
from everlora.archive import atomic, exchange
from everlora.archive.committed import read_stages
from everlora.archive.history import read_history
from everlora.archive.manifest import read_manifest
from everlora.core.errors import ConfigError, DataError, FolderError
from everlora.core.expressions import parse
from everlora.data.task import Task
from everlora.learner.opened import create, load_learner, restore, tasks_of
from everlora.learner.teaching import Teaching
from everlora.learner.verbs.compact import check_compactable, compact
from everlora.learner.verbs.forget import forget
from everlora.learner.verbs.learn import learn
from everlora.learner.verbs.rollback import rollback
from everlora.runtime.progress import Progress

METHODS = ("ella", "ps-lora", "lb-cl", "ewc", "seqlora-replay(ratio=0.2)", "seqlora", "o-lora", "per-task")
TIMES = ("date", "seconds", "digest", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def taught(place: Path, method: str, *names: str, model: str = "tiny-llama") -> Path:
    """A learner that was taught tasks of these names, one after another."""
    spec = tiny_runs.spec(model, method, max_source_length=32, max_new_tokens=4)
    plain = spec.model_dump(mode="json", exclude={"evaluation"})
    create(place, {**plain, "evaluation": {"scoring": "labels", "schedule": "full"}})
    for name in names:
        teach(place, name, model)
    return place


def teach(place: Path, name: str, model: str = "tiny-llama") -> None:
    task = next(task for task in tiny_runs.stream(model, 3) if task.name == name)
    learn(place, task, Teaching(by="ada", keep_tests=4), progress=Progress())


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


def test_whatever_interrupts_it_a_learner_is_taken_back_at_once(tmp_path, monkeypatch, two_tasks):
    """The disk fails at one point after the other: the learner is the one behind the rollback, and goes on."""
    after = Path(shutil.copytree(two_tasks, tmp_path / "after"))
    rollback(after, "first")
    moved = sorted(file.relative_to(after) for file in (after / "undone").rglob("*"))
    for point in range(1, 100):
        place = Path(shutil.copytree(two_tasks, tmp_path / f"run{point}"))
        with monkeypatch.context() as patch, fails_at(point, patch):
            failed = ""
            try:
                rollback(place, "first")
            except FolderError as error:
                failed = str(error)
        assert not failed or "is completed when it can be" in failed
        assert [stage.facts.name for stage in read_stages(place)] == ["first"]
        assert status(place).tasks[-1].name == "first"
        load_learner(place)  # which writes
        assert contents(place) == contents(after)
        assert sorted(file.relative_to(place) for file in (place / "undone").rglob("*")) == moved
        assert read_manifest(place).exchange is None
        assert not (place / ".next").exists()
        if not failed:
            break
    assert point > 8


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


def task_of(model: str, name: str) -> Task:
    return next(task for task in tiny_runs.stream(model, 3) if task.name == name)


@pytest.mark.parametrize(
    ("method", "model"),
    [("ella", "tiny-bert"), ("lb-cl", "tiny-llama"), ("ewc", "tiny-llama"), ("per-task", "tiny-t5")],
)
def test_a_learner_that_is_rebuilt_was_never_taught_the_task(method, model, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second", "third", model=model)
    given = {name: task_of(model, name) for name in ("second", "third")}
    found = forget(place, "second", given, rebuild=True)
    assert (found.how, found.remaining) == ("rebuilt", ["first", "third"])
    assert contents(place) == contents(taught(tmp_path / "never", method, "first", "third", model=model))
    assert found.never == found.after


@pytest.mark.parametrize(
    ("method", "model"), [("o-lora", "tiny-llama"), ("inclora", "tiny-bert"), ("inclora", "tiny-t5")]
)
def test_the_update_of_a_task_is_removed_and_the_others_are_as_they_were(method, model, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second", "third", model=model)
    rollback(place, "second")
    teach(place, "third", model)
    exact = list(Run.read(place).past())
    tests = {name: task_of(model, name) for name in ("first", "second", "third")}
    found = forget(place, "first", tests)
    assert (found.how, found.remaining) == ("removed", ["second", "third"])
    assert equal_updates(Run.read(place).past(), exact[1:])
    assert not (place / "undone").exists()
    assert not any("first" in file.name for file in place.rglob("*"))
    assert [stage.facts.number for stage in read_stages(place)] == [1, 2]
    if model == "tiny-bert":
        assert found.after is None
        assert read_stages(place)[-1].facts.labels == read_stages(twin(tmp_path, method, model))[-1].facts.labels
    else:
        assert 0 <= found.after.membership <= 1
        assert found.never != found.after
    teach(place, "first", model)
    assert [stage.facts.name for stage in read_stages(place)] == ["second", "third", "first"]


def equal_updates(past, updates) -> bool:
    return len(past) == len(updates) and all(adapters.equal(a, b) for a, b in zip(past, updates, strict=True))


def twin(tmp_path: Path, method: str, model: str) -> Path:
    return taught(tmp_path / "twin", method, "second", "third", model=model)


def test_the_rows_of_the_head_of_a_removed_task_go(tmp_path):
    place = taught(tmp_path / "run", "inclora", "first", "second", "third", model="tiny-bert")
    learner = load_learner(place)
    task = task_of("tiny-bert", "second")
    before = tiny_runs.outputs(restore(learner, tasks_of(learner)), learner.base.family, task)
    rows = read_stages(place)[1].facts.label_rows["second"]
    exact = Run.read(place).past()
    forget(place, "first")
    learner = load_learner(place)
    model = restore(learner, tasks_of(learner))
    now = read_stages(place)[0].facts.label_rows["second"]
    assert len(learner.base.family.labels) == 5
    assert now == [0, 1, 2] != rows
    # With the update put back below it, the head that is left answers as the former one did.
    learner.backend.set_past(exact)
    after = tiny_runs.outputs(model, learner.base.family, task)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_the_newest_task_is_forgotten_whatever_the_method(tmp_path):
    place = taught(tmp_path / "run", "ewc", "first", "second")
    found = forget(place, "second", {"second": task_of("tiny-llama", "second")})
    assert found.how == "taken back"
    assert contents(place) == contents(taught(tmp_path / "never", "ewc", "first"))


@pytest.mark.parametrize(
    ("method", "why"),
    [("seqlora", "on and on"), ("kfac", "remembers more"), ("ties", "merges"), ("seqft", "on and on")],
)
def test_what_cannot_be_removed_is_refused_with_what_helps(method, why, tmp_path):
    place = taught(tmp_path / "run", method, "first", "second")
    before = contents(place)
    with pytest.raises(ConfigError, match=f"{why}.*--rebuild"):
        forget(place, "first")
    with pytest.raises(ConfigError, match="--data second=FILE"):
        forget(place, "first", rebuild=True)
    with pytest.raises(DataError, match="not those that it was learned from"):
        forget(place, "first", {"second": task_of("tiny-llama", "second").take(train=3)}, rebuild=True)
    assert contents(place) == before
