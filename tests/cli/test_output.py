"""What is printed where."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Everlora


def test_json_is_the_last_line_and_stdout_holds_nothing_else(small: Everlora) -> None:
    said = small("--out", "run", "--json")
    assert {"tasks", "matrix", "metrics", "folder"} <= said.json.keys()
    assert len(said.out.splitlines()) == 1
    assert [line[:3] for line in said.plain] == ["1. ", "2. "]  # no word from any library


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_no_library_speaks_in_an_ordinary_run(small: Everlora, model: str) -> None:
    said = small("--out", "run", "--model", model, "--json")
    assert len(said.err.splitlines()) == 2


def test_images_run_too(small: Everlora) -> None:
    said = small("--out", "run", "--model", "tiny-vit", "--tasks", "shapes,counts", "--json")
    assert said.json["tasks"] == ["shapes", "counts"]
    assert len(said.err.splitlines()) == 2


def test_a_path_with_brackets_is_no_markup(small: Everlora) -> None:
    said = small("--out", "x[/bold]y[/x]")
    assert said.status == 0
    assert "written to x[/bold]y[/x]" in said.out.splitlines()


def test_many_tasks_keep_all_their_columns(small: Everlora) -> None:
    names = ["reviews", "news", "reply", "questions", "outlook", "forum", "rule"]
    said = small("--out", "run", "--tasks", ",".join(names), "--max-eval-samples", "1", "--eval-schedule", "final")
    assert "…" not in said.out
    head = next(line for line in said.out.splitlines() if "after learning " in line and " 1" in line)
    assert head.split()[2:] == list("1234567")
    assert all(len(line) <= 80 for line in said.out.splitlines())


@pytest.mark.parametrize("name", ["O-LoRA", "o_lora", "olora", "OLoRA"])
def test_method_names_forgive(small: Everlora, name: str) -> None:
    assert "holds no run" not in small("--out", "run", "--method", name, "--dry-run").err
    from everlora import parse

    assert parse(name).name == "o-lora"


@pytest.mark.parametrize("what", ["methods", "benchmarks"])
def test_lists(everlora: Everlora, what: str) -> None:
    rows = everlora(what, "--json").json
    assert all(row["name"] for row in rows)
    table = everlora(what).out
    assert all(len(line) <= 80 for line in table.splitlines())
    for row in rows:
        assert row["name"] in table  # whole, in one line


def test_every_number_is_listed_with_formula_and_source(everlora: Everlora) -> None:
    rows = everlora("metrics", "--json").json
    assert {"oa", "bwt", "intransigence", "general_delta", "rouge_l"} <= {row["id"] for row in rows}
    table = everlora("metrics").out
    for row in rows:
        assert row["formula"]
        assert row["source"]
        assert row["id"] in table


def test_help_shows_whole_option_names(everlora: Everlora) -> None:
    text = everlora("run", "--help").out
    for option in ("--gradient-accumulation-steps", "--lora-target-modules", "--trust-remote-code", "--set"):
        assert option in text
    assert "…" not in text
    assert everlora("--version").out.strip()[0].isdigit()
    assert json.loads(everlora("env", "--json").out)["packages"]["everlora"]


def test_the_card_of_a_method_and_of_a_composition(everlora: Everlora) -> None:
    text = everlora("methods", "OLoRA").out
    page = everlora("methods", "o-lora", "--json").json["members"][0]["page"]
    assert page in text  # whole, as it is written
    for word in (
        "norm_lam",
        "l1 | l2sq | cos",
        "λ₁ = 0.5 is that of the authors'",
        "4Rri operations",
        "orthogonality(lam=0.5",
    ):
        assert " ".join(word.split()) in " ".join(text.split())
    assert "energy_overlap(lam=(rho=0.1, per_module=no), energy=rms" in " ".join(
        everlora("methods", "ella").out.split()
    )
    task_id = everlora("methods", "progprompt+replay").out
    assert "task id" in task_id
    assert re.search(r"replay +yes", task_id)  # what it is told when it answers is not what it keeps
    both = everlora("methods", "o-lora+ps-merge").out
    assert "stores (o-lora)" in both
    assert "largest_magnitude" in both
    assert "did you mean 'o-lora'" in everlora("methods", "o-lorra").line


def test_methods_stand_in_sections(everlora: Everlora, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.cli import tables

    for width in (80, 200):
        monkeypatch.setattr(tables.out_console, "width", width)
        text = everlora("methods").out
        at = 0
        for word in ("replay-free:", "inclora", "replay: data", "mtl", "task id:", "per-task"):
            at = text.index(word, at)  # in this order
        assert ("costs per step" in text) and ("families" in text)  # noqa: PT018


def test_brackets_and_escapes_in_a_path_are_shown_as_they_stand(small: Everlora, everlora: Everlora) -> None:
    name = "[bold]\x1b[31mrun[/x]"
    said = small("--out", name)
    assert said.status == 0
    assert r"[bold]\u001b[31mrun[/x]" in said.out
    shown = everlora("compare", name)
    assert shown.status == 0
    assert "\x1b" not in said.out + said.err + shown.out + shown.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_is_full_is_one_line(small: Everlora, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("everlora.learner.experiment.load_for", full)
    said = small("--out", "r")
    assert said.status == 3
    assert "out of memory" in said.line
    assert "--per-device-train-batch-size" in said.line
