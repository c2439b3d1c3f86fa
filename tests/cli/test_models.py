"""Model folders that cannot be used, and some that look as if they could not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from .conftest import Everlora, write_rows, write_stream


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from everlora.models import tiny

    root = tmp_path_factory.mktemp("models")
    for name, build in (("llama", tiny.tiny_llama), ("bert", tiny.tiny_bert)):
        model, tokenizer, _ = build()
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "llama", tmp_path / "m"))


def change(folder: Path, **entries: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def pickled(folder: Path, whole: Path) -> None:
    weights = torch.zeros(1)
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": weights}, folder / "pytorch_model.bin")


def remote(folder: Path, whole: Path) -> None:
    change(folder, model_type="own", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text("raise SystemExit('foreign code ran')")


DAMAGE = {
    "no config": (lambda f, w: (f / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda f, w: (f / "model.safetensors").unlink(), "no weights (*.safetensors)"),
    "pickle": (pickled, "pickled weights only, which are never loaded"),
    "truncated": (lambda f, w: (f / "model.safetensors").write_bytes(b"hello" * 99), "cannot load the model"),
    "foreign weights": (
        lambda f, w: shutil.copy(w / "bert/model.safetensors", f / "model.safetensors"),
        "do not fit its config.json",
    ),
    "other width": (lambda f, w: change(f, hidden_size=32), "do not fit its config.json"),
    "config is no JSON": (lambda f, w: (f / "config.json").write_text("{nope"), "not a valid JSON"),
    "unknown kind": (lambda f, w: change(f, model_type="zorglub"), "zorglub"),
    "remote code": (remote, "trust_remote_code"),
    "no tokenizer": (lambda f, w: [p.unlink() for p in f.glob("tokenizer*")], "tokenizer"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_model_that_cannot_be_used_is_one_line(small: Everlora, folder: Path, whole: Path, name: str) -> None:
    damage, expected = DAMAGE[name]
    damage(folder, whole)
    said = small("--out", "run", "--model", str(folder))
    assert said.status == 2
    assert expected in said.line
    assert str(folder) in said.line
    assert len(said.err.splitlines()) == 1


def test_a_damaged_gguf_file_is_one_line(small: Everlora, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 50)
    assert "x.gguf" in small("--out", "run", "--model", str(tmp_path / "x.gguf")).line


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_whole_folder_runs_without_noise(small: Everlora, whole: Path, name: str) -> None:
    said = small("--out", "run", "--model", str(whole / name), "--json")
    assert said.json["tasks"] == ["reviews", "news"]
    assert [line[:3] for line in said.plain] == ["1. ", "2. "]


TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}
FAILING = {
    # Reads the weights of its projection past the layer that an adapter keeps in fp32.
    "deberta": ("DebertaForMaskedLM", {"relative_attention": True, "pos_att_type": ["c2p"]}, "bfloat16", "float32"),
    "mra": ("MraForMaskedLM", {}, "bfloat16", "float32"),  # makes masks in fp32
    # Takes texts of one length alone.
    "nystromformer": ("NystromformerForMaskedLM", {"segment_means_seq_len": 64, "num_landmarks": 8}, "float32", None),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_model_that_fails_on_a_row_is_one_line_before_training(
    small: Everlora, whole: Path, tmp_path: Path, name: str
) -> None:
    import transformers

    kind, more, dtype, other = FAILING[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole / "bert")
    made = getattr(transformers, kind)
    config = made.config_class(**TINY, **more, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    made(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    run = ("--model", str(tmp_path / "m"), "--method", "seqlora", "--out", "run", "-q")
    said = small(*run, "--dtype", dtype)
    assert said.status == 2
    assert f"fails on rows of task 'reviews' with {dtype} weights, inside its own code: " in said.line
    assert said.line.endswith("pass --dtype float32, or choose another model" if other else "; choose another model")
    assert not list((tmp_path / "run/tasks").iterdir())
    if other:
        assert small(*run, "--dtype", other).status == 0


def test_a_fault_of_ours_keeps_its_traceback(small: Everlora, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.models.families import causal

    monkeypatch.setattr(causal.Causal, "try_out", lambda *_: causal.left_pad(None, 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        small("--out", "run")


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("named", ["by the chat template", "by generation_config.json"])
def test_a_chat_model_that_ends_its_turn_with_another_token_is_answered_for(
    everlora: Everlora, tmp_path: Path, named: str
) -> None:
    """The model is taught by torch alone, and goes on with another turn where nobody stops it."""
    from everlora.models import tiny

    model, words, _ = tiny.tiny_llama()
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = CHAT
    model.resize_token_embeddings(len(words))
    chats = [
        [{"role": "user", "content": f"the {kind} item"}, {"role": "assistant", "content": kind}]
        for kind in ("good", "bad")
    ]
    more = [{"role": "user", "content": "more"}]
    texts = [str(words.apply_chat_template([*chat, *more], tokenize=False)) for chat in chats]
    rows = words(texts, add_special_tokens=False, return_tensors="pt", padding=True)
    labels = rows.input_ids.masked_fill(rows.attention_mask == 0, -100)
    steps = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=1e-2)
    for _ in range(60):
        model.train()(**rows, labels=labels).loss.backward()
        steps.step()
        steps.zero_grad()
    turn = words.convert_tokens_to_ids("<|im_end|>")
    assert words.eos_token_id != turn
    model.generation_config.eos_token_id = [words.eos_token_id, turn]
    if named == "by the chat template":
        model.generation_config.eos_token_id = words.eos_token_id
    model.save_pretrained(tmp_path / "m")
    words.save_pretrained(tmp_path / "m")
    write_rows(tmp_path / "test.jsonl", [{"messages": chat} for chat in chats])
    write_rows(tmp_path / "train.jsonl", [{"messages": [{"role": "user", "content": "none"}, chats[0][1]]}])
    stream = write_stream(tmp_path / "mine.yaml", {"name": "t", "train": "train.jsonl", "test": "test.jsonl"})
    run = ("run", "--benchmark", stream, "--model", str(tmp_path / "m"), "--method", "zero-shot", "--out", "run")
    assert everlora(*run, "--json").json["matrix"] == [[100.0]]
