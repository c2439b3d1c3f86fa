"""First tasks that are equal by construction are learned once in a sweep, and end as they do when learned alone."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from everlora import TaskStream, load
from everlora.archive.folder import stages
from everlora.archive.records import Seconds
from everlora.learner.experiment import latest_stream
from everlora.learner.resolve import resolve
from everlora.learner.sweep import FIRST, Job, sharing, work
from everlora.models.loading import Loaded
from everlora.runtime.progress import Progress
from everlora.settings.spec import RawSettings, RunSpec
from everlora.training.shared import SharedTraining

SETTINGS: RawSettings = {
    "model": "tiny-llama",
    "benchmark": "builtin",
    "tasks": ["reviews", "news"],
    "max_train_samples": 8,
    "max_eval_samples": 4,
    "evaluation": {"scoring": "labels"},
    "train": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.003},
}
PLAIN = ("inclora", "seqlora", "ella", "kfac", "ps-lora", "o-lora", "ewc", "decay")
"""They begin alike: LoRA pairs, and no past."""
OWN = ("n-lora(lam=0.01)", "lb-cl")
"""Their first task is their own: a penalty that needs no past."""


class Heard(Progress):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def base() -> Loaded:
    return load("tiny-llama")


def jobs(out: Path, methods: tuple[str, ...], **settings: object) -> list[Job]:
    return [
        Job(resolve(RunSpec, SETTINGS, {"method": method, "seed": 0, **settings}), out / method) for method in methods
    ]


def learned(out: Path) -> dict[str, str]:
    """Return the digest of every tensor and figure that the runs in a folder have learned."""
    files = [*out.rglob("tasks/*/*.safetensors"), *out.rglob("modules.jsonl")]
    return {str(file.relative_to(out)): sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_first_task_is_learned_once_and_every_run_ends_as_it_does_alone(tmp_path: Path, base: Loaded) -> None:
    methods, heard = (*PLAIN, *OWN), Heard()
    alone, together = tmp_path / "alone", tmp_path / "together"
    work(jobs(alone, methods), base)
    with sharing(jobs(together, methods), together) as shared:
        work(shared, base, progress=heard)
        (place,) = (together / FIRST).iterdir()
        seconds = SharedTraining(place, place.name).seconds
    assert not (together / FIRST).exists()
    assert sum("learned already" in line for line in heard.lines) == len(PLAIN) - 1
    assert learned(alone) == learned(together) != {}
    first = [sha256(adapter.read_bytes()) for adapter in alone.glob("*/tasks/01-reviews/adapter_model.safetensors")]
    assert len(first) == len(methods)
    equal = {digest.hexdigest() for digest in first}
    assert len(equal) == 1 + len(OWN), "those of one form without a past are equal by construction"
    # It took as long as it did where it was learned.
    took = [stages(together / method)[0].facts.seconds for method in PLAIN]
    assert all(isinstance(one, Seconds) and one.train >= seconds > 0 for one in took)


@pytest.mark.parametrize("head", ["names", None])
def test_evidence_behind_a_shared_first_task_is_measured_on_what_training_leaves(tmp_path: Path, head: str | None):
    """Frozen layers hold what they made of the texts, batch by batch, and a trial of them is seen by whoever looks."""
    encoder = {"model": "tiny-bert", "lora": {"layers": "top:1"}, "head": head}
    small, heard, methods = load("tiny-bert"), Heard(), ("seqlora", "kfac", "ewc")
    work(jobs(tmp_path / "alone", methods, **encoder), small)
    with sharing(jobs(tmp_path / "together", methods, **encoder), tmp_path / "together") as shared:
        work(shared, small, progress=heard)
    assert sum("learned already" in line for line in heard.lines) == 2
    assert learned(tmp_path / "alone") == learned(tmp_path / "together")


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"max_train_samples": 7}, {"train": {"max_steps": 1}}, {"tasks": ["news", "reviews"]}]
)
def test_what_differs_in_seed_rows_or_arguments_is_learned_by_itself(tmp_path: Path, base: Loaded, other: RawSettings):
    heard = Heard()
    with sharing([*jobs(tmp_path / "a", ("inclora",)), *jobs(tmp_path / "b", ("ella",), **other)], tmp_path) as shared:
        work(shared, base, progress=heard)
    assert not any("learned already" in line for line in heard.lines)


def test_a_fixed_factor_that_a_method_designs_is_its_own(tmp_path: Path, base: Loaded) -> None:
    # B begins at 0 in both and alone is trained; they differ in A.
    designs, heard = ("inflora", "inflora(samples=2)"), Heard()
    alone, together = tmp_path / "alone", tmp_path / "together"
    work(jobs(alone, designs), base)
    with sharing(jobs(together, designs), together) as shared:
        work(shared, base, progress=heard)
    assert not any("learned already" in line for line in heard.lines)
    assert learned(alone) == learned(together) != {}


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "frozen.safetensors", "trainer_state.json"])
def test_a_torn_file_is_not_read_and_the_task_is_learned_again(tmp_path: Path, file: str) -> None:
    encoder, heard, small = {"model": "tiny-bert", "lora": {"layers": "top:1"}}, Heard(), load("tiny-bert")
    work(jobs(tmp_path / "alone", ("inclora",), **encoder), small)
    todo = [*jobs(tmp_path / "one", ("ella",), **encoder), *jobs(tmp_path / "two", ("inclora",), **encoder)]
    with sharing(todo, tmp_path) as shared:
        work(shared[:1], small)
        (torn,) = (tmp_path / FIRST).glob(f"*/{file}")
        torn.write_bytes(torn.read_bytes()[:100])
        work(shared[1:], small, progress=heard)
    assert not any("learned already" in line for line in heard.lines)
    assert learned(tmp_path / "alone") == learned(tmp_path / "two")


def test_runs_outside_a_sweep_read_files_that_have_changed(tmp_path: Path, base: Loaded) -> None:
    listed = "tasks:\n  - {name: films, train: train.jsonl, test: test.jsonl}\n"
    (tmp_path / "tasks.yaml").write_text(listed)
    spec, digests = {"benchmark": str(tmp_path / "tasks.yaml"), "tasks": ["films"]}, []
    for word in ("fine", "poor"):
        for split in ("train", "test"):
            lines = [f'{{"text": "{word} {split} {k}", "label": "{k % 2}"}}\n' for k in range(6)]
            (tmp_path / f"{split}.jsonl").write_text("".join(lines))
        (result,) = work(jobs(tmp_path / word, ("inclora",), **spec), base)
        digests.append(stages(result.folder)[0].facts.data)
    assert digests[0] != digests[1]


def test_runs_of_one_stream_read_its_rows_once_and_those_of_another_read_theirs(base: Loaded) -> None:
    def stream(**settings: object) -> TaskStream:
        return latest_stream(resolve(RunSpec, SETTINGS, settings), base)

    first = stream(method="ella", seed=0)
    assert stream(method="inclora", seed=1) is first
    other = stream(method="inclora", max_train_samples=7)
    assert (len(first.tasks[0].train), len(other.tasks[0].train)) == (8, 7)
    with sharing([], Path("nowhere")):
        assert stream(method="ella", seed=0) is not first, "another sweep reads files anew, which may have changed"
    assert stream(method="ella", seed=0, stream_seed=5).tasks[0].train != first.tasks[0].train
