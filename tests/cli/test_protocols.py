"""Protocols on the command line: listed, shown, followed, and told beside every figure."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from everlora.core import registry
from everlora.settings import protocol

from .conftest import Everlora

TINY = ("--model", "tiny-llama", "--tasks", "reviews,news", "--max-steps", "1", "--max-new-tokens", "2")


def test_they_are_listed_and_shown_and_a_file_of_ones_own_is_like_them(everlora: Everlora, tmp_path: Path) -> None:
    known = everlora("protocols", "--json").json
    listed = everlora("protocols").out
    for name, found in known.items():
        assert name in listed
        assert found["hash"] in listed
    shown = everlora("protocols", "paper-olora")
    assert yaml.safe_load(shown.out)["hash"] == known["paper-olora"]["hash"]
    assert everlora("protocols", "small-cpu", "--json").json["settings"]["max_train_samples"] == 96
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"title": "own", "settings": known["small-cpu"]["settings"]}))
    assert everlora("protocols", "own.yaml", "--json").json["hash"] == known["small-cpu"]["hash"]
    assert "did you mean 'paper-olora'" in everlora("protocols", "paper-olor").line


def test_what_is_shown_can_be_given_back(everlora: Everlora, tmp_path: Path) -> None:
    """``protocols NAME > mine.yaml`` is how a protocol of one's own begins."""
    for name, found in everlora("protocols", "--json").json.items():
        (tmp_path / "mine.yaml").write_text(everlora("protocols", name).out)
        assert everlora("protocols", "mine.yaml", "--json").json["hash"] == found["hash"]


def test_one_may_score_by_a_metric_of_ones_own(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("title: own\nsettings: {metric: shout}\n")
    (tmp_path / "shout.py").write_text(
        "from everlora import metric\n@metric('shout', formula='capitals', source='a test')\n"
        "def shout(answer): return 100.0 * answer.prediction.isupper()\n"
    )
    with registry.isolated():
        assert "unknown metric 'shout'" in everlora("protocols", "own.yaml").line
        shown = everlora("protocols", "own.yaml", "--plugin", "shout.py", "--json")
        assert shown.json["settings"] == {"metric": "shout"}


def test_a_run_names_it_wherever_it_writes_figures(everlora: Everlora, tmp_path: Path) -> None:
    settings = {"max_train_per_class": 2, "max_eval_samples": 3, "train": {"max_steps": 1}, "max_new_tokens": 2}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"title": "own", "settings": settings}))
    shown = everlora("protocols", "own.yaml", "--json").json["hash"]
    base = ("--protocol", "own.yaml", "--model", "tiny-llama", "--tasks", "reviews,news")
    said = everlora("run", *base, "--method", "lb-cl", "--out", "a")
    assert f"protocol own ({shown}); fingerprint " in said.out
    for file in (tmp_path / "a" / "run.yaml", tmp_path / "a" / "matrix.json"):
        assert yaml.safe_load(file.read_text())["protocol"]["hash"] == shown
    assert f"Protocol own ({shown})" in (tmp_path / "a" / "README.md").read_text()
    result = everlora("run", *base, "--method", "seqlora", "--seed", "2", "--out", "b", "--json").json
    assert (result["protocol"]["hash"], result["protocol"]["changed"]) == (shown, False)
    assert set(result["fingerprints"]["rows"]) == set(result["fingerprints"]["of"])
    table = everlora("compare", "a", "b", "--json").json
    assert {one for section in table["sections"] for row in section["rows"] for one in row["protocols"]} == {shown}
    other = everlora("run", *base, "--learning-rate", "0.01", "--out", "c", "--json").json["protocol"]
    assert other["changed"] is True
    assert other["hash"] != shown


def test_a_recipe_may_name_one(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("protocol: small-cpu\nmax_eval_samples: 5\n")
    said = everlora("run", "--config", "recipe.yaml", "--dry-run")
    found = json.loads(said.out)
    assert (found["max_train_samples"], found["max_eval_samples"], found["protocol"]["name"]) == (96, 5, "small-cpu")


def test_scores_of_two_fingerprints_need_a_flag(everlora: Everlora) -> None:
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        more = ("--max-train-samples", "8", "--max-eval-samples", "2", "--method", "seqlora", "--dtype", dtype)
        assert everlora("run", *TINY, *more, "--seed", str(ord(name)), "--out", name).status == 0
    line = everlora("compare", "a", "b").line
    assert "weights float32 and bfloat16" in line
    assert "--mixed-fingerprints" in line
    table = everlora("compare", "a", "b", "--mixed-fingerprints", "--json").json
    assert len(table["fingerprints"]) == 2
    legend = everlora("compare", "a", "b", "--mixed-fingerprints").out
    assert all(key in legend for key in table["fingerprints"])


def test_an_unknown_protocol_lists_each_name_once(everlora: Everlora) -> None:
    line = everlora("protocols", "foo").line
    assert [line.count(name) for name in protocol.known()] == [1] * len(protocol.known())
