"""A learner is handed on: prompts as servers put them, cards that answer without us, lines of other tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from everlora import Example, Learner, Task, load
from everlora.archive.card_base import check_base_lines
from everlora.archive.records import BaseFilesRecord
from everlora.cli.app import run_command
from everlora.core.errors import ConfigError, ModelError
from everlora.export.handover import VLLM_RANKS, serving_lines, vllm_rank
from everlora.export.hub import push
from everlora.learner.opened import create

TURNS = (
    "{% for m in messages %}<{{m['role']}}>{{m['content']}}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS = [Example(f"a {mood} film {n}", mood) for n in range(8) for mood in ("good", "bad")]


def films(name: str = "films") -> Task:
    return Task(name=name, train=ROWS[:12], test=ROWS[12:], labels=("good", "bad"), instruction="Rate it.")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base model that has a chat template and loads without us."""
    place, made = tmp_path_factory.mktemp("base"), load("tiny-llama")
    made.family.processor.chat_template = TURNS
    made.model.save_pretrained(place)
    made.family.processor.save_pretrained(str(place))
    return place


@pytest.fixture(scope="module")
def learner(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("learner") / "assistant"
    create(place, {"model": str(base), "method": "ella"})
    opened = Learner.open(place)
    for name in ("films", "plays"):
        opened.learn(films(name), keep_probe=2, train={"max_steps": 2, "learning_rate": 0.01})
    return place


# --- prompts ---------------------------------------------------------------------------------------------------------


def prompt(task: Task, place: Path, style: str) -> str:
    family = load(str(place), prompt_style=style).family  # type: ignore[arg-type]
    batch = family.collate([family.features(task.train[0], task)])
    return str(family.processor.decode(batch["input_ids"][0]))


def test_new_learners_put_rows_as_a_users_message_where_there_is_a_template(base: Path, learner: Path) -> None:
    message = "Rate it.\nOptions: good, bad\na good film 0"
    assert prompt(films(), base, "chat") == prompt(films(), base, "auto") == f"<user>{message}</><assistant>good"
    assert prompt(films(), base, "plain").endswith(f"{message}\nAnswer: good")
    assert Learner.open(learner)._learner.spec.prompt_style == "chat"


def test_a_prompt_that_is_given_as_a_whole_is_a_message_as_well(base: Path) -> None:
    rows = [Example("Say good.", "good")]
    whole = Task(name="t", train=rows, test=rows, form="prompted")
    assert prompt(whole, base, "chat") == "<user>Say good.</><assistant>good"
    assert prompt(whole, base, "plain").endswith("Say good.good")


def test_only_the_text_is_cut_and_never_what_stands_around_it(base: Path) -> None:
    family = load(str(base), prompt_style="chat", max_source_length=60).family
    long = Example("word " * 200, "good")
    ids, cut = family.prompter.prompt(long, films(), room=8)
    text = family.processor.decode(ids)
    assert len(ids) == 60
    assert cut > 100
    assert text.startswith("<user>Rate it.\nOptions: good, bad\nword")
    assert text.endswith("</><assistant>")


def test_a_model_without_a_chat_template_is_refused_or_put_plainly() -> None:
    with pytest.raises(ModelError, match="'tiny-llama' has no chat template to put prompts through"):
        load("tiny-llama", prompt_style="chat")
    assert not load("tiny-llama", prompt_style="auto").family.limits.chat
    assert not load("tiny-t5", prompt_style="auto").family.limits.chat


# --- other tools -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["merged", "peft"])
def test_a_card_answers_without_us_as_the_learner_does(learner: Path, base: Path, tmp_path: Path, to: str) -> None:
    out, text = tmp_path / "out", "a good film 3"
    assert run_command(["export", str(learner), "--to", to, "--out", str(out), "--quiet"]) == 0
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (out / "README.md").read_text("utf-8"), re.DOTALL)
        if "generate(" in block
    ]
    assert len(code.splitlines()) <= 10
    code = code.replace("text = '…'", f"text = {text!r}").replace("max_new_tokens=50", "max_new_tokens=8")
    check = "\nimport sys\nassert 'everlora' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=out, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    opened = Learner.open(learner)
    family, model = opened._learner.base.family, opened.model
    ids = torch.tensor([family.prompter.prompt(Example(text, "good"), films("plays"), room=8)[0]])
    with torch.no_grad():
        wanted = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert done.stdout.strip() == family.processor.decode(wanted, skip_special_tokens=True).strip()


def check_of(card: str) -> str:
    return next(b for b in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "sha256" in b)


def test_a_card_checks_the_base_model_without_us(
    learner: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["export", str(learner), "--to", "peft", "--out", str(tmp_path / "out"), "-q"]) == 0
    code = check_of((tmp_path / "out/README.md").read_text("utf-8"))
    assert "everlora" not in code
    exec(code, {})
    assert capsys.readouterr().out.splitlines()[-1] == "the base model is the one that it was trained on"
    copy = Path(shutil.copytree(base, tmp_path / "other"))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    exec(code.replace(repr(str(base)), repr(str(copy))), {})
    assert capsys.readouterr().out == "another base model: model.safetensors\n"
    assert run_command(["export", str(learner), "--out", str(tmp_path / "merged"), "-q"]) == 0
    assert "sha256" not in (tmp_path / "merged/README.md").read_text("utf-8")  # it has its weights with it


def test_of_a_model_of_the_hub_the_files_of_its_revision_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    files = BaseFilesRecord(digests={"model.safetensors": "ab", "tokenizer.json": "cd"}, commit="1a2b")
    code = check_of(check_base_lines("owner/base", files, on_hub=True))
    asked: list[tuple[str, str, str]] = []

    def download(repo: str, name: str, revision: str) -> str:
        asked.append((repo, name, revision))
        return __file__

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    exec(code, {})
    assert asked == [("owner/base", "model.safetensors", "1a2b")]
    packed = BaseFilesRecord(digests={"base.gguf": "ef"})
    assert "weights of `base.gguf` (SHA-256 `ef`)" in check_base_lines("owner/base", packed, on_hub=True)
    assert (
        check_base_lines("tiny-llama", BaseFilesRecord(digests={"the tensors of the model": "0"}), on_hub=False) == ""
    )


def test_merged_weights_are_exact_or_rounded_once(learner: Path, tmp_path: Path) -> None:
    for dtype in ("fp32", "bf16"):
        assert run_command(["export", str(learner), "--dtype", dtype, "--out", str(tmp_path / dtype), "-q"]) == 0
    exact, rounded = (load_file(tmp_path / dtype / "model.safetensors") for dtype in ("fp32", "bf16"))
    assert {tensor.dtype for tensor in rounded.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor.bfloat16(), rounded[name]) for name, tensor in exact.items())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--to", "ollama"], "unknown tool 'ollama'"),
        (["--to", "merged", "--rank", "8"], "--to merged writes a whole model, which has no rank"),
        (["--to", "vllm", "--dtype", "bf16"], "--to vllm writes an adapter in fp32"),
        (["--dtype", "fp8"], "unknown type 'fp8'"),
        (["--rank", "0"], "--rank must be at least 1, not 0"),
    ],
)
def test_what_no_tool_takes_is_one_line(
    learner: Path, tmp_path: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["export", str(learner), "--out", str(tmp_path / "out"), *words]) == ConfigError.status
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", [1, 8, 9, 100, 257, 512])
def test_vllm_gets_the_least_rank_that_holds_the_adapter(rank: int) -> None:
    found = vllm_rank(rank)
    assert found in VLLM_RANKS
    assert found >= rank
    assert all(one < rank for one in VLLM_RANKS if one < found)
    (line,) = serving_lines("vllm", Path("out"), "owner/base", "helper", rank)
    assert line == f"vllm serve owner/base --enable-lora --max-lora-rank {found} --lora-modules helper=out"
    (line,) = serving_lines("vllm", Path("out"), "owner/base", "helper", rank, "1a2b")
    assert line.startswith("vllm serve owner/base --revision 1a2b --enable-lora --max-lora-rank ")


def test_an_adapter_that_is_too_large_for_vllm_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank 512 at most, and this one has 513"):
        vllm_rank(513)


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_rows_stay_here_unless_somebody_says_so(learner: Path) -> None:
    plain = push(learner, "me/helper", dry_run=True)
    assert "adapter_model.safetensors" in plain.files
    assert plain.url is None
    assert not [file for file in plain.files if "/" in file or file.endswith(".jsonl") or file.startswith(".")]
    assert plain.bytes == sum((learner / file).stat().st_size for file in plain.files)
    whole = push(learner, "me/helper", tasks=True, dry_run=True).files
    assert {"MANIFEST", "tasks/01-films/COMMIT"} <= {*whole}
    assert not [file for file in whole if file.endswith(("tests.jsonl", "predictions.jsonl"))]
    assert "tasks/01-films/tests.jsonl" in push(learner, "me/helper", tasks=True, rows=True, dry_run=True).files
    with pytest.raises(ConfigError, match="'helper' is no name of a repository; write owner/name"):
        push(learner, "helper", dry_run=True)


def test_what_gives_rows_back_stays_here_too(learner: Path, tmp_path: Path) -> None:
    """A parity file is the exclusive or of all files, rows among them; what was taken back is no part of a learner."""
    place = tmp_path / "copy"
    shutil.copytree(learner, place)
    assert run_command(["verify", str(place), "--parity"]) == 0
    (place / "undone/1/02-plays").mkdir(parents=True)
    (place / "undone/1/02-plays/tests.jsonl").write_text("{}\n")
    for tasks, rows in ((False, False), (True, False), (False, True)):
        found = push(place, "me/helper", tasks=tasks, rows=rows, dry_run=True).files
        assert "PARITY" not in found
        assert not [file for file in found if file.startswith("undone")]
    assert "PARITY" in push(place, "me/helper", tasks=True, rows=True, dry_run=True).files
