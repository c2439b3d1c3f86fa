"""The commands that change a learner's past say what they did, as text and as JSON, and refuse in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

TRAIN = ("--max-steps", "2", "--per-device-train-batch-size", "8", "--quiet")
WORDS = ["film", "team", "order", "price", "music"]


@pytest.fixture
def learner(everlora) -> str:
    """A learner of two tasks whose rows are files."""
    draw = random.Random(0)
    made = everlora(
        "init", "run", "-m", "tiny-llama", "--method", "inclora", "--lora-r", "2", "--quiet", "--json"
    ).json
    assert (made["learner"], made["settings"]["lora"]["r"]) == ("run", 2)
    for name in ("one", "two"):
        for split, rows in (("train", 16), ("test", 4)):
            lines = [{"text": " ".join(draw.choices(WORDS, k=6)), "label": draw.choice("ab")} for _ in range(rows)]
            Path(f"{name}-{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = ("--data", f"{name}-train.jsonl", "--test", f"{name}-test.jsonl")
        assert everlora("learn", "run", "--name", name, *files, *TRAIN, "--by", "ada").status == 0
    return "run"


def test_the_past_of_a_learner_is_changed_and_told(everlora, learner):
    said = everlora("status", learner)
    assert "ada" in said.out
    assert "rank of the sum of all updates, over modules: 4 to 4, median 4" in said.out
    assert "room" not in said.out  # the method learns in any direction
    found = everlora("status", learner, "--json").json
    assert found["tasks"][0]["rows"] == {"train": 16, "test": 4}
    assert set(found["loads"]) == {"adapter_model.safetensors", "adapter_config.json"}
    assert "room" in found

    assert "nothing was changed" in everlora("compact", learner, "--rank", "1", "--dry-run", "--quiet").out
    found = everlora("diff", f"{learner}@one", learner, "--json").json
    assert found["norm"] > 0
    assert found["compared"] == {"one": 4}
    assert "settings that differ: none" in everlora("diff", learner, learner).out

    wrong = everlora("forget", learner, "one", "--data", "one=two-train.jsonl", "--quiet")
    assert "not those that it was learned from" in wrong.line
    assert "--data two=FILE" in everlora("forget", learner, "one", "--rebuild", "--quiet").line
    data = ("--data", "one=one-train.jsonl", "--data", "two=two-train.jsonl")
    found = everlora("forget", learner, "one", *data, "--quiet", "--json").json
    assert found["how"] == "removed"
    assert found["remaining"] == ["two"]
    assert "nothing else is claimed" in found["statement"]
    assert 0 <= found["before"]["membership"] <= 1
    assert found["before"]["members"] == 16
    assert found["never"] is not None

    said = everlora("rollback", learner, "--to", "start", "--because", "all wrong", "--quiet")
    assert "moved to run/undone/1: two" in said.out
    acts = [(act["act"], act.get("because")) for act in everlora("history", learner, "--json").json]
    assert acts[-2:] == [("forget", None), ("rollback", "all wrong")]
    assert "nothing to take back" in everlora("rollback", learner, "--to", "start").line
