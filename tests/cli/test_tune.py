"""From a search over rates to a sweep with what it found, in two processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from .conftest import Everlora, committed

DATA = "--model tiny-bert --benchmark builtin --tasks reviews,reply --max-train-samples 8 --max-eval-samples 4"
HOW = "--max-steps 2 --eval-scoring labels --eval-schedule diagonal"
TINY = f"{DATA} {HOW}".split()


def test_what_is_typed_is_not_searched_and_test_rows_are_not_scored(everlora: Everlora) -> None:
    dry = ("tune", *TINY, "--methods", "decay,inclora", "--trials", "3", "--out", "x", "--dry-run")
    for typed in (("--learning-rate", "0.005"), ("--set", "learning_rate=0.005")):
        lines = everlora(*dry, *typed).out.splitlines()
        assert [line.split("\t")[:2] for line in lines] == [
            *([f"decay(rho={rho})", "rate 0.005"] for rho in ("0.03", "0.1", "0.3")),
            ["inclora", "rate 0.005"],
        ]
    said = everlora(*dry, "--eval-split", "test")
    assert (said.status, said.line) == (
        2,
        "everlora: tuning scores dev rows, so that test rows stay unseen: leave out --eval-split",
    )


def test_what_a_search_refuses_and_what_all_stands_for(everlora: Everlora) -> None:
    dry = ("--model", "tiny-bert", "--tasks", "reviews", "--out", "x", "--dry-run", "--methods")
    for command in ("tune", "sweep"):
        said = everlora(command, *dry, "")
        assert (said.status, said.out, said.line) == (
            2,
            "",
            "everlora: name at least one method in --methods and one seed in --seeds",
        )
    once = everlora("tune", *dry, "ella,decay,ella()").out
    assert once == everlora("tune", *dry, "ella,decay").out, "one system in two spellings is searched once"
    said = everlora("tune", *dry, "all,ella,o-lora(lam=0.3)", "--trials", "1")
    methods = [line.split("\t")[0] for line in said.out.splitlines()]
    assert {"ella(rho=0.1)", "seqlora", "mtl", "o-lora(lam=0.3)"} <= set(methods)
    assert len(methods) == len(set(methods))
    assert said.err.splitlines() == ["lfpt5 is left out: for models of decoder, encoder-decoder, not encoder"]
    Path("x").mkdir()
    Path("x/trials.json").write_text("{")
    said = everlora("tune", *(word for word in dry if word != "--dry-run"), "inclora")
    assert "cannot read the trials in x/trials.json" in said.line
    assert len(list(Path("x").iterdir())) == 1, "nothing was begun"


def test_a_sweep_says_which_systems_a_table_lacks(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("systems: {decay: {method: decay(rho=0.3), train: {learning_rate: 0.01}}}")
    dry = ("sweep", *TINY, "--tuned", "t.yaml", "--out", "s", "--dry-run", "-q", "--methods")
    said = everlora(*dry, "decay()")
    assert (said.out.split("\t")[0], said.err) == ("decay(rho=0.3)", "")
    assert everlora(*dry, "decay,ella").err == "t.yaml has no row for ella: it runs as without --tuned\n"
    assert everlora(*dry, "mtl,decay,ella").err == "t.yaml has no row for mtl, ella: they run as without --tuned\n"
    (tmp_path / "t.yaml").write_text("systems: {decay: {trian: {learning_rate: 0.01}}}")
    assert "t.yaml, system 'decay': unknown key 'trian'; did you mean 'train'?" in everlora(*dry, "decay").line


def test_tune_then_sweep_with_what_was_found(
    everlora: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two processes, one of whose jobs fails, and which share the hidden states below chosen layers."""
    methods = ("--methods", "inclora,ella")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # a worker with two threads fights for cores with other tests
    said = everlora("tune", *TINY, *methods, "--trials", "2", "--out", "tuned")
    assert said.status == 0, said.err
    assert "use it with: everlora sweep --tuned" in said.out
    trials = json.loads((tmp_path / "tuned/trials.json").read_text())
    assert len(trials) == 4
    assert all(len(trial["scores"]) == 1 for trial in trials)

    tuned = ("sweep", *TINY, "--tuned", "tuned/tuned.yaml", "--lora-layers", "top:1")
    wanted = ("--methods", "inclora,ella,l2p", "--seeds", "0", "--workers", "2", "--out", "swept")
    found = everlora(*tuned, *wanted)
    assert found.status == 3, found.err
    assert "1 of 3 runs could not be made: l2p-seed0: layers say" in found.line
    assert "leave out --lora-layers" in found.line
    assert "tuned/tuned.yaml has no row for l2p: it runs as without --tuned" in found.err.splitlines()
    made = {f"{method}-seed0" for method in ("ella", "inclora")}
    assert made == {path.parent.name for path in (tmp_path / "swept").glob("*/matrix.json")}
    # The same jobs in one process are the same runs, with hidden states that are computed each time, or kept.
    alone = everlora(*tuned, *methods, "--seeds", "0", "--feature-cache", "off", "--out", "one")
    assert alone.status == 0, alone.err
    assert everlora(*tuned, *methods, "--seeds", "0", "--feature-cache", "kept", "--out", "given").status == 0
    assert list((tmp_path / "kept").glob("*.safetensors"))
    for method in ("ella", "inclora"):
        places = [tmp_path / where / f"{method}-seed0" for where in ("one", "swept", "given")]
        weights = [
            {name: content for name, content in committed(place).items() if "safetensors" in name} for place in places
        ]
        assert weights[0] == weights[1] == weights[2] != {}
        matrices = [json.loads((place / "matrix.json").read_text())["matrix"] for place in places]
        assert matrices[0] == matrices[1] == matrices[2]
    assert not (tmp_path / "swept/.features").exists()
    # What went with the sweep is no setting of its runs: one that is begun again makes no folder inside the sweep's.
    named = [
        yaml.safe_load((tmp_path / where / "ella-seed0/run.yaml").read_text())["settings"]["feature_cache"]
        for where in ("swept", "given")
    ]
    assert named == [None, "kept"]
