"""A clumsy user's flags: one line that says what, where and what to do, and a status."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

import everlora as everlora_package
from everlora.core.errors import FolderError
from sealing import edit

from .conftest import Everlora, committed

WRONG = [
    (["--method", "ellla"], "unknown method 'ellla'; did you mean 'ella'?"),
    (["--method", "ella("], "cannot read the method 'ella('"),
    (["--method", "[bold]x[/x]"], "unknown method '[bold]x[/x]'"),
    (["--method", "ella(lamm=1)"], "no option 'lamm'; did you mean 'lam'?"),
    (["--benchmark", "buildin"], "unknown benchmark 'buildin'; did you mean 'builtin'?"),
    (["--benchmark", "gone.yaml"], "gone.yaml does not exist"),
    (["--tasks", "revews"], "no task 'revews'; did you mean 'reviews'?"),
    (["--tasks", ","], "tasks is an empty list"),
    (["--tasks", "news,news"], "names the task 'news' twice"),
    (["--model", "tiny-lama"], "unknown tiny model 'tiny-lama'; did you mean 'tiny-llama'?"),
    (["--model", "./gone"], "model folder './gone' does not exist"),
    (["--device", "nonsense"], "device 'nonsense' is not available here"),
    (["--device", "meta"], "device 'meta' is not available here"),
    (["--dtype", "float17"], "unknown dtype 'float17'"),
    (["--lora-r", "0"], "'lora.r'"),
    (["--lora-alpha", "inf"], "'lora.lora_alpha': Input should be a finite number"),
    (["--eval-schedule", "fulll"], "'full', 'forward', 'diagonal' or 'final'"),
    (["--max-source-length", "3"], "'max_source_length'"),
    (["--max-source-length", "9"], "raise --max-source-length"),
    (["--max-steps", "0"], "'max_steps' must be above zero"),
    (["--per-device-train-batch-size", "0"], "'per_device_train_batch_size' must be above zero"),
    (["--learning-rate", "nan"], "'learning_rate' must be a finite number"),
    (["--learning-rate", "-1"], "'learning_rate' must not be negative"),
    (["--set", "learning_rat=1"], "did you mean 'learning_rate'?"),
    (["--set", "learning_rate=fast"], "(got 'fast')"),
    (["--set", "bf16=maybe"], "training argument 'bf16'"),
    (["--set", "optim=nonsense"], "nonsense is not a valid"),
    (["--set", "fp16=true"], "'fp16' is set by everlora"),
    (["--set", "eval_strategy=steps"], "'eval_strategy' is not supported by everlora"),
    (["--set", "optim=grokadamw"], "these training arguments cannot be used: Please install grokadamw"),
    (["--set", "learning_rate"], "write --set name=value"),
    (["--config", "gone.yaml"], "cannot read the recipe gone.yaml"),
    (["--lora-target-modules", "nonsense"], "linear layers of this model: down_proj, gate_proj, k_proj"),
    (["--lora-target-modules", "q_proj,v_prj"], "is called 'v_prj'; did you mean 'v_proj'?"),
    (["--lora-target-modules", "embed_tokens"], "is not a linear layer"),
]


@pytest.mark.parametrize(("flags", "expected"), WRONG, ids=[" ".join(flags) for flags, _ in WRONG])
def test_wrong_setting_is_one_line(small: Everlora, flags: list[str], expected: str) -> None:
    said = small("--out", "run", *flags)
    assert said.status == 2
    assert expected in said.line
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("argv", [["run", "--bogus"], ["run", "--max_steps", "abc"], ["frobnicate"], ["--bogus"]])
def test_wrong_usage_ends_with_status_2(everlora: Everlora, argv: list[str]) -> None:
    said = everlora(*argv)
    assert said.status == 2
    assert said.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in said.err
    assert said.out == ""


def test_run_without_a_folder_asks_for_one(everlora: Everlora) -> None:
    assert "--out" in everlora("run").line


def test_recipes_that_are_none(everlora: Everlora) -> None:
    for text, expected in [("a: [", "not valid YAML"), ("- 1", "must be a mapping"), ("trian: {}", "mean 'train'?")]:
        Path("r.yaml").write_text(text)
        assert expected in everlora("run", "--config", "r.yaml", "--dry-run").line
    Path("r.yaml").write_text("train: 3")
    assert "'train' must be a mapping" in everlora("run", "--config", "r.yaml", "--dry-run").line


def test_a_first_try_that_failed_does_not_burn_the_folder(small: Everlora) -> None:
    assert small("--out", "run", "--lora-target-modules", "nonsense").status == 2
    assert small("--out", "run", "--json").json["folder"] == "run"


def test_another_run_is_refused_and_left_alone(small: Everlora, tmp_path: Path) -> None:
    assert small("--out", "run").status == 0
    before = committed(tmp_path / "run")
    assert "(different: seed); choose another --out" in small("--out", "run", "--seed", "1").line
    assert "pass --resume to go on" in small("--out", "run").line
    said = small("--out", "run", "--model", "tiny-t5", "--resume")
    assert "(different: model)" in said.line
    Path("file").write_text("precious")
    assert "is a file" in small("--out", "file").line
    assert "cannot make the folder" in small("--out", "file/below").line
    Path("full").mkdir()
    Path("full/precious").write_text("precious")
    assert "holds no run of everlora" in small("--out", "full").line
    assert Path("full/precious").read_text() == Path("file").read_text() == "precious"
    assert committed(tmp_path / "run") == before
    assert small("--out", "run", "--resume", "--json").status == 0
    assert committed(tmp_path / "run") == before


def test_a_damaged_folder_is_named(small: Everlora, tmp_path: Path) -> None:
    assert small("--out", "run").status == 0
    weights = tmp_path / "run/tasks/01-reviews/adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert "01-reviews/adapter_model.safetensors is missing or was changed" in small("--out", "run", "--resume").line
    weights.write_bytes(whole)
    (tmp_path / "run/run.yaml").write_text("{")
    assert "run.yaml is damaged" in small("--out", "run", "--resume").line


VERBS = (
    ("inspect", "run"),
    ("export", "run", "--out", "new"),
    ("export", "run", "--rank", "4", "--out", "new"),
    ("compare", "run"),
    ("run", "--config", "run/run.yaml", "--out", "run", "--resume"),
)
"""Every verb that reads the learner at the root of a run; `status` reads what was committed alone."""


@pytest.mark.parametrize("method", ["ella", "l2p"])
def test_a_damaged_learner_at_the_root_is_named(small: Everlora, everlora: Everlora, method: str) -> None:
    assert small("--method", method, "--out", "run").status == 0
    files = sorted(Path("run").glob("*.safetensors"))
    files += sorted(Path("run").glob("adapter_config.json"))
    assert files
    for file in files:
        sound = file.read_bytes()
        flipped = bytearray(sound)
        flipped[-3] ^= 1  # as many bytes, and another number
        for damaged in (sound[:-9], bytes(flipped)):
            file.write_bytes(damaged)
            for verb in VERBS:
                said = everlora(*verb)
                assert said.status == 2, verb
                assert f"run/{file.name} was changed after it was written, or is damaged; delete it" in said.line
            assert file.read_bytes() == damaged
        file.unlink()
        for verb in VERBS[:-1]:
            assert f"run/{file.name} is missing; run again with --resume" in everlora(*verb).line
        assert everlora(*VERBS[-1]).status == 0  # what the messages say is the way out
        assert file.read_bytes() == sound
    assert not Path("new").exists()


def test_a_whole_model_that_was_damaged_is_not_loaded(small: Everlora) -> None:
    assert small("--method", "seqft", "--out", "run").status == 0
    everlora_package.load("run")
    file = Path("run/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(FolderError, match=r"model\.safetensors was changed after it was written"):
        everlora_package.load("run")


def test_a_full_disk_keeps_earlier_tasks(small: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.learner import sequential as learner

    real = learner.write_rows

    def full(path: Path, rows: list[dict[str, object]]) -> None:
        if "02-news" in str(path):
            raise OSError(28, "No space left on device")
        real(path, rows)

    monkeypatch.setattr(learner, "write_rows", full)
    said = small("--out", "run")
    assert "No space left on device" in said.line
    assert [p.name for p in sorted((tmp_path / "run/tasks").iterdir())] == ["01-reviews"]
    before = committed(tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert small("--out", "run", "--resume", "--json").json["tasks"] == ["reviews", "news"]
    assert before.items() <= committed(tmp_path / "run").items()


def test_a_loss_that_is_no_number_keeps_earlier_tasks(
    small: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from everlora.models.families import Causal

    real, seen = Causal.logits, []

    def spoilt(self, model, batch):  # type: ignore[no-untyped-def]
        seen.append(1)
        logits, targets = real(self, model, batch)
        return (logits * float("nan") if len(seen) > 1 else logits), targets

    monkeypatch.setattr(Causal, "logits", spoilt)
    said = small("--out", "run", "--max-steps", "1")
    assert said.status == 3
    assert "NaN or infinite at step 1 of task 'news'" in said.line
    assert list({name.split("/")[0] for name in committed(tmp_path / "run")}) == ["01-reviews"]
    before = committed(tmp_path / "run")
    monkeypatch.setattr(Causal, "logits", real)
    assert small("--out", "run", "--max-steps", "1", "--resume").status == 0
    assert before.items() <= committed(tmp_path / "run").items()


def test_an_infinite_update_is_refused(small: Everlora, tmp_path: Path) -> None:
    said = small("--out", "run", "--learning-rate", "1e30")
    assert said.status == 3
    assert "lower --learning-rate" in said.line
    assert committed(tmp_path / "run") == {}


@pytest.mark.parametrize("name", ["some/nonexistent-id", "nonexistent"])
def test_an_unreachable_hub_is_one_line_within_seconds(
    small: Everlora, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse() -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_session", refuse)
    began = time.perf_counter()
    said = small("--out", "run", "--model", name)
    assert time.perf_counter() - began < 10
    assert f"cannot load the model {name!r}: the hub at" in said.line
    assert "no route to host" in said.line
    assert "tiny-llama" in said.line
    assert len(said.err.splitlines()) == 1


def test_a_written_run_is_its_own_recipe(small: Everlora, everlora: Everlora, tmp_path: Path) -> None:
    first = small("--out", "a", "--json").json
    again = everlora("run", "--config", "a/run.yaml", "--out", "b", "--json").json
    assert {**first, "folder": ""} == {**again, "folder": ""}
    assert (tmp_path / "a/run.yaml").read_text() == (tmp_path / "b/run.yaml").read_text()
    assert {k: v for k, v in committed(tmp_path / "a").items() if "safetensors" in k} == {
        k: v for k, v in committed(tmp_path / "b").items() if "safetensors" in k
    }


def test_flags_override_the_recipe_and_dry_run_shows_it(everlora: Everlora) -> None:
    Path("r.yaml").write_text(yaml.safe_dump({"model": "tiny-t5", "train": {"max_steps": 7, "learning_rate": "1e-4"}}))
    said = everlora("run", "--config", "r.yaml", "--max_steps", "3", "--dry-run")
    found = yaml.safe_load(said.out)
    assert found["model"] == "tiny-t5"
    assert (found["train"]["max_steps"], found["train"]["learning_rate"]) == (3, 1e-4)
    assert not Path("runs").exists()


def test_no_file_lets_code_run(small: Everlora, everlora: Everlora) -> None:
    """Only what the person at the keyboard typed does; a stranger's run.yaml is a file like any other."""
    Path("r.yaml").write_text(yaml.safe_dump({"model": "tiny-t5", "trust_remote_code": True}))
    for command in (("run",), ("sweep", "--methods", "ella", "-o", "s")):
        line = everlora(*command, "--config", "r.yaml", "--dry-run").line
        assert "r.yaml wants to run code that comes with the model" in line
        assert "--trust-remote-code if you trust 'tiny-t5'" in line
    for typed in (True, False):
        flag = "--trust-remote-code" if typed else "--no-trust-remote-code"
        assert everlora("run", "--config", "r.yaml", flag, "--dry-run").status == 0
        assert (
            yaml.safe_load(everlora("run", "--config", "r.yaml", flag, "--dry-run").out)["trust_remote_code"] is typed
        )
    Path("r.yaml").write_text(yaml.safe_dump({"evaluation": {"general": "lm-eval", "general_tasks": ["x.yaml"]}}))
    assert "names the task file 'x.yaml'" in everlora("run", "--config", "r.yaml", "--dry-run").line

    assert small("--out", "a").status == 0
    edit(Path("a/run.yaml"), lambda record: record["settings"].update(trust_remote_code=True))
    assert "run.yaml wants to run code" in everlora("export", "a", "--out", "b").line
    assert not Path("b").exists()
    assert everlora("export", "a", "--out", "b", "--no-trust-remote-code").status == 0
