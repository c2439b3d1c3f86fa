"""What would end in nothing learned, or in a traceback, is refused before a step is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import everlora
from everlora import Example, Learner, Task, load
from everlora.adapters import make_backend
from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError, DataError, FolderError, ModelError
from everlora.data.tasks import task_from_dataset
from everlora.learner.resolve import settle
from everlora.settings.spec import RunSpec


def small(name: str, rows: int) -> Task:
    found = [Example(f"text {k}", "good" if k % 2 else "bad") for k in range(rows)]
    return Task(name=name, train=found, test=found[:2], labels=("good", "bad"))


@pytest.mark.parametrize("key", ["dataloader_persistent_workers", "dataloader_prefetch_factor"])
def test_arguments_of_workers_need_workers(key: str) -> None:
    train: dict[str, Any] = {key: True if key.endswith("workers") else 2}
    with pytest.raises(ConfigError, match=f"'{key}' needs dataloader_num_workers"):
        settle(RunSpec, {"model": "tiny-llama", "train": train})
    with pytest.raises(ConfigError, match=f"'{key}' needs dataloader_num_workers"):
        settle(RunSpec, {"model": "tiny-llama", "train_of": {"a": train}})
    settle(RunSpec, {"model": "tiny-llama", "train": {**train, "dataloader_num_workers": 1}})


def test_a_task_smaller_than_a_batch_is_not_dropped_unseen(tmp_path: Path) -> None:
    learner = Learner("tiny-llama", out=tmp_path / "run", train={"dataloader_drop_last": True})
    with pytest.raises(ConfigError, match="'second' has 7 training rows, fewer than a batch of 8"):
        learner.follow([small("first", 8), small("second", 7)])
    assert not list((tmp_path / "run" / "tasks").iterdir())


@pytest.mark.parametrize(
    ("method", "lora", "what"),
    [
        *(
            (method, {"r": 10**10, "target_modules": targets}, "rank 10000000000 on")
            for method in ("seqlora", "lb-cl", "sd-lora")
            for targets in (["q_proj"], r".*q_proj", "all-linear")
        ),
        ("data(low=10000000000)", {}, "rank 10000000016 on 4 modules"),
        ("data(components=10000000000)", {}, "gates of 10000000000 components"),
        ("l2p(size=10000000000)", {}, "prompts of 60000000000 vectors"),
        ("progprompt(mlp=10000000000)", {}, "prompts of 20000000010 vectors"),
    ],
)
def test_what_is_beyond_the_memory_is_refused_in_every_form(method: str, lora: dict[str, Any], what: str) -> None:
    base = load("tiny-llama")
    before = set(base.model.state_dict())
    backend = make_backend(base, lora, "auto", everlora.parse(method).adapter)
    with pytest.raises(ModelError, match=what) as caught:
        backend.attach(seed=0, tasks=[small("a", 2)])
    assert len(str(caught.value).splitlines()) == 1
    assert set(base.model.state_dict()) == before, "nothing of the adapter stays on the model"
    backend = make_backend(base, {**lora, "r": 4}, "auto", everlora.parse(method.partition("(")[0]).adapter)
    backend.attach(seed=0, tasks=[small("a", 2)])
    backend.detach()


# --- what was written is opened again ---


@pytest.mark.parametrize("method", ["ella", "seqft", "sd-lora", "l2p"])
def test_what_reads_back_as_something_else_is_not_learned(method: str, tmp_path: Path) -> None:
    base = load("tiny-bert" if method == "l2p" else "tiny-llama", labels=["good"] if method == "l2p" else ())
    backend = make_backend(base, {"r": 2}, "auto", everlora.parse(method).adapter)
    backend.plan_tasks(1)
    backend.attach(seed=0)
    update = backend.extract()
    backend.save(tmp_path)
    backend.check_saved(tmp_path, update)
    name = next(iter(update))
    changed = {**update, name: update[name].map(lambda t: t + 1)}
    with pytest.raises(FolderError, match="reads back as something else"):
        backend.check_saved(tmp_path, changed)
    with pytest.raises(FolderError, match="reads back as something else"):
        backend.check_saved(tmp_path, {n: site for n, site in update.items() if n != name})
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(FolderError):
        backend.check_saved(tmp_path, update)


def test_a_form_without_a_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no backend handles the adapter form 'fulll'; did you mean 'full'\?"):
        make_backend(everlora.load("tiny-llama"), {}, "auto", Adapter(form="fulll"))


# --- messages that are learned ---


def chats(**beside: Any) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good", **beside}]
    return [{"messages": turns}]


@pytest.mark.parametrize(
    "beside",
    [{"tool_calls": [{"type": "function"}]}, {"reasoning_content": "first"}, {"thinking": "x"}, {"refusal": "no"}],
)
def test_what_stands_beside_the_learned_content_is_refused(beside: dict[str, Any]) -> None:
    key = next(iter(beside))
    with pytest.raises(DataError, match=f"row 1: the last message has '{key}' beside its content"):
        task_from_dataset("t", chats(**beside), chats())


def test_a_weight_other_than_one_is_refused() -> None:
    with pytest.raises(DataError, match="has the weight 0"):
        task_from_dataset("t", chats(weight=0), chats())
    read = task_from_dataset("t", chats(weight=1, tool_calls=None, reasoning_content=""), [{"messages": [
        {"role": "user", "content": "other"}, {"role": "assistant", "content": "good"}]}])  # fmt: skip
    assert read.train[0].target == "good"
