"""The demo's way, on a tiny model: two methods, one stream; and what reaches a run's stream and folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Everlora, committed

TINY = {
    "model": "tiny-llama",
    "benchmark": "builtin",
    "tasks": ["reviews", "news"],
    "max_train_samples": 8,
    "max_eval_samples": 4,
    "max_new_tokens": 4,
    "train": {"max_steps": 2},
    "seed": 1,
}


def test_the_demo_compares_and_goes_on(everlora: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.learner import demo

    monkeypatch.setattr(demo, "SETTINGS", TINY)
    said = everlora("demo", "--out", "demo", "--resume")
    assert said.status == 0, said.err
    assert "minutes of one core" in said.err
    methods = [f"{name}: accuracy" for name in demo.METHODS]
    for text in (*methods, "OA", "BWT", "forgetting", "95 % interval", "written to demo", "what to do next"):
        assert text in said.out
    before = {name: committed(tmp_path / "demo" / name) for name in demo.METHODS}
    assert all("02-news/adapter_model.safetensors" in files for files in before.values())
    for name in demo.METHODS:
        there = {path.name for path in (tmp_path / "demo" / name).iterdir()}
        assert {"run.yaml", "environment.json", "matrix.json", "README.md", "tokenizer.json"} <= there
    assert "pass --resume" in everlora("demo", "--out", "demo").line
    found = everlora("demo", "--out", "demo", "--resume", "--json").json
    assert [(one["method"], one["tasks"]) for one in found] == [(m, TINY["tasks"]) for m in demo.METHODS]
    assert before == {name: committed(tmp_path / "demo" / name) for name in demo.METHODS}


def test_what_the_demo_is_compared_with_is_of_these_settings_and_tells_the_methods_apart() -> None:
    from everlora.learner import demo
    from everlora.learner.experiment import resolve
    from everlora.settings.spec import RunSpec

    resolve(RunSpec, demo.SETTINGS)  # no setting of it is unknown
    stored = demo.stored()
    found = {one.method: one for one in stored.methods}
    assert tuple(found) == demo.METHODS
    assert stored.seeds >= 5
    naive = found["seqlora"]
    assert all(one.low > naive.high for name, one in found.items() if name != "seqlora")
    assert stored.seconds <= 240


def test_the_seed_of_the_stream_reaches_the_stream(monkeypatch: pytest.MonkeyPatch, everlora: Everlora) -> None:
    from types import SimpleNamespace

    from everlora.learner import experiment
    from everlora.settings.spec import RunSpec

    base = SimpleNamespace(family=SimpleNamespace(modality="text"))
    digests = [
        experiment.stream_for(experiment.resolve(RunSpec, TINY, {"stream_seed": seed}), base).digest()  # type: ignore[arg-type]
        for seed in (0, 1, 0)
    ]
    assert digests[0] == digests[2] != digests[1]
    assert '"stream_seed": 7' in everlora("run", "--stream-seed", "7", "--dry-run").out


def test_images_leave_their_processor_beside_the_adapter(everlora: Everlora, tmp_path: Path) -> None:
    flags = ("--tasks", "shapes", "--max-steps", "1", "--max-train-samples", "8", "--max-eval-samples", "4")
    assert everlora("run", "--model", "tiny-vit", *flags, "--out", "run").status == 0
    assert (tmp_path / "run/preprocessor_config.json").is_file()
    assert "pipeline_tag: image-classification" in (tmp_path / "run/README.md").read_text()
