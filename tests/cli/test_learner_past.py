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


def test_without_a_forecast_none_is_made_and_kept_rows_stand_in_the_history(everlora):
    everlora("init", "run", "-m", "tiny-llama", "--method", "inclora", "--lora-r", "2", "--quiet")
    train = ("--max-steps", "8", "--per-device-train-batch-size", "8", "--quiet", "--no-report", "--json")
    made = {}
    for name, also in (("one", "--no-forecast"), ("two", "--forecast"), ("three", "--no-forecast")):
        rows = [{"text": f"{word} {name} {n}", "label": word} for n in range(12) for word in WORDS[:2]]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        made[name] = everlora("learn", "run", "--name", name, "--data", f"{name}.jsonl", also, *train).json
        summary = Path(f"run/tasks/{['one', 'two', 'three'].index(name) + 1:02d}-{name}/forecast.safetensors")
        assert summary.exists() == (also == "--forecast")
    assert [made[name].get("forecast") is None for name in ("one", "two", "three")] == [True, False, True]
    assert made["two"]["forecast"]["unknown"] == ["one"]

    data = ("--data", "one=one.jsonl", "--data", "two=two.jsonl")
    assert everlora("eval", "run", *data, "--keep-probe", "3", "--quiet", "--json").json["rows"]["one"] == 24
    kept = [act for act in everlora("history", "run", "--json").json if act["act"] == "eval"]
    assert [(act["tasks"], act["kept"]) for act in kept] == [(["one"], {"one": 3}), (["two"], {"two": 3})]
    assert "one (3 rows kept)" in everlora("history", "run").out
    # A later evaluation leaves it as it is, and so does what takes other tasks back.
    everlora("eval", "run", "--keep-probe", "2", "--quiet")
    everlora("rollback", "run", "--to", "one", "--quiet")
    acts = [act["act"] for act in everlora("history", "run", "--json").json]
    assert acts == ["init", "learn", "learn", "learn", "eval", "eval", "rollback"]
    assert everlora("verify", "run").status == 0
