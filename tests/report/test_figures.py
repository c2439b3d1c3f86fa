"""Figures of papers from recorded runs: each is drawn of what it needs, and says what is missing where it is not."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from everlora.archive.folder import RunFolder, read_run
from everlora.core.errors import ConfigError
from everlora.core.updates import LowRank
from everlora.report.figures import figures, named
from everlora.report.figures.bwt_over_tasks import bwt_at
from everlora.report.figures.layers import copies
from everlora.report.save import save_figure

from .made import make_run
from .test_run_page import Seen


def drawn(name: str, *paths: Path) -> list[list[str]]:
    return [[cell.text for cell in row] for row in named(name).draw(paths).table.rows]


def test_every_figure_is_listed_with_its_paper_and_what_it_takes() -> None:
    assert {"bwt-over-tasks", "parameter-shift", "seed-samples", "merge-rules"} <= set(figures())
    assert {paper for one in figures().values() for paper in one.paper.split(", ")} == {"ELLA", "LB-CL", "PS-LoRA"}
    assert all(one.needs and one.where and one.title for one in figures().values())
    with pytest.raises(ConfigError, match="unknown figure 'bwt-over-task'; did you mean 'bwt-over-tasks'"):
        named("bwt-over-task")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("rank-sweep", "all runs are of one rank"),
        ("seed-samples", "no two runs differ in the samples"),
        ("starts", "at least two of nlnb-cl, l-cl, b-cl, lb-cl"),
        ("merge-rules", "merge by one rule"),
        ("loss-changes", "no run has looked at stored rows"),
        ("layer-replacement", "differ in copied layers"),
        ("opposing-change", "no run has a second task"),
        ("directions", "no run has a second task"),
        ("parameter-shift", "hold no adapters"),
    ],
)
def test_what_a_figure_lacks_is_said(name: str, missing: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=missing):
        drawn(name, run)


def test_backward_transfer_grows_as_tasks_are_forgotten(tmp_path: Path) -> None:
    """A third of every earlier task is lost at once, and nothing more later: −33.3 after every task."""
    for seed in range(2):
        make_run(tmp_path / f"{seed}", seed=seed)
    assert drawn("bwt-over-tasks", tmp_path) == [["ella", "2", "−33.3"], ["ella", "3", "−33.3"]]


def test_transfer_is_undefined_where_a_task_was_not_scored(tmp_path: Path) -> None:
    from everlora.analysis.answers import read

    run = read(make_run(tmp_path / "run"))
    cells = {place: marks for place, marks in run.answers.cells.items() if place != (0, 0)}
    object.__setattr__(run.answers, "cells", cells)
    assert bwt_at(run, 1) is None


def test_ranks_are_set_against_each_other(tmp_path: Path) -> None:
    for rank in (2, 8):
        for seed in range(2):
            make_run(tmp_path / f"{rank}-{seed}", seed=seed, settings={"lora": {"r": rank}})
    assert [row[:3] for row in drawn("rank-sweep", tmp_path)] == [["ella", "2", "77.8"], ["ella", "8", "77.8"]]


def test_samples_rules_and_parts_are_found_in_the_composition(tmp_path: Path) -> None:
    for method in ("lb-cl(samples=1)", "lb-cl(samples=4)", "b-cl", "inclora+ties", "inclora"):
        make_run(tmp_path / method, method=method)
    assert [row[1] for row in drawn("seed-samples", *tmp_path.glob("lb-cl*"))] == ["1", "4"]
    assert {row[0] for row in drawn("starts", tmp_path / "b-cl", tmp_path / "lb-cl(samples=1)")} == {
        "learn off the old span (b-cl)",
        "both (lb-cl)",
    }
    rules = {row[0].partition(" (")[0] for row in drawn("merge-rules", *tmp_path.glob("inclora*"))}
    assert len(rules) == 2
    assert "sum" in rules


def test_copied_layers_are_counted(tmp_path: Path) -> None:
    from everlora.analysis.answers import read

    two = ("first", "second")
    methods = {"none": "inclora", "1": "copy-layers(top_layers=1)", "all": "copy-layers"}
    for name, method in methods.items():
        assert copies(read(make_run(tmp_path / name, two, method=method))) == name
    assert [row[0] for row in drawn("layer-replacement", tmp_path)] == ["none", "none", "1", "1", "all", "all"]


def test_cost_names_what_is_kept(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", method="inclora")
    assert [row[:4] for row in drawn("cost-table", tmp_path)] == [
        ["ella", "32", "256 B", "0"],
        ["inclora", "32", "256 B", "0"],
    ]


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run whose second update is orthogonal to the first, and whose third is its half, backwards."""
    from everlora.analysis.runs import Run
    from everlora.core.history import UpdateHistory

    up = torch.tensor([[1.0], [1.0]])
    first, across = LowRank(torch.tensor([[2.0, 0.0]]), up), LowRank(torch.tensor([[0.0, 1.0]]), up)
    back = LowRank(torch.tensor([[-1.0, 0.0]]), up)
    history = UpdateHistory()
    given = []
    for task, update in zip(("reviews", "news", "intent"), (first, across, back), strict=True):
        after = history.append({"m": update})
        given.append((task, {"m": update}, history, after))
        history = after
    monkeypatch.setattr(Run, "updates", lambda self: iter(given))
    return make_run(tmp_path / "run")


def test_directions_are_angles_to_the_first_task(updates: Path) -> None:
    rows = drawn("directions", updates)
    assert [row[2] for row in rows] == ["0.0°", "90.0°", "180.0°"]
    assert [float(row[3]) for row in rows] == pytest.approx([math.sqrt(8), math.sqrt(2), math.sqrt(2)], abs=0.01)


def test_what_a_method_merges_has_a_direction_of_its_own(updates: Path, tmp_path: Path) -> None:
    """The larger of every two entries: 2 along the first task, 1 along the second."""
    run = make_run(tmp_path / "merged", method="inclora+ps-merge")
    merged = drawn("directions", run)[-1]
    assert merged[1] == "merged"
    assert float(merged[2].rstrip("°")) == pytest.approx(math.degrees(math.atan(1 / 2)), abs=0.1)


def test_only_entries_of_other_signs_oppose(updates: Path) -> None:
    """The second update shares no entry with the first; of the third, both entries go against it."""
    assert [row[1:] for row in drawn("opposing-change", updates)] == [["news", "0"], ["intent", "2"]]


def test_shifts_are_quantiles_of_the_entries(updates: Path) -> None:
    (first, second, third) = drawn("parameter-shift", updates)
    assert (first[4], first[6]) == ("1", "2")  # entries 2, 0, 2, 0
    assert second[2] == "0"
    assert third[2] == "−1"


def test_a_figure_is_written_in_four_forms(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    wanted = named("cost-table")
    figure = wanted.draw([run])
    for form in ("svg", "png", "csv", "html"):
        save_figure(wanted, figure, tmp_path / f"f.{form}")
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert next(csv.reader((tmp_path / "f.csv").open(newline="")))[0] == "method"
    assert "figure-cost-table" in Seen((tmp_path / "f.html").read_text(encoding="utf-8")).ids()


def test_losses_of_stored_rows_are_set_against_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlora.analysis import recorded as reading
    from everlora.archive.commits import ProbedRise

    run = reading.recorded(make_run(tmp_path / "run"))
    losses = [{"reviews": [1.0, 2.0]}, {"reviews": [1.5, 1.0], "news": [3.0]}, {"reviews": [1.5, 1.0], "news": [2.0]}]
    for stage, known in zip(run.stages, losses, strict=True):
        object.__setattr__(stage, "facts", stage.facts.model_copy(update={"probed": ProbedRise(losses=known)}))
    monkeypatch.setattr("everlora.report.figures.loss_changes.recorded", lambda path: run)
    changes = [(row[1], row[2]) for row in drawn("loss-changes", run.path)]
    assert changes == [("reviews", "0.5"), ("reviews", "−1"), ("reviews", "0"), ("reviews", "0"), ("news", "−1")]


def test_a_run_stays_a_run(tmp_path: Path) -> None:
    """What these tests make is a folder that everlora goes on with."""
    run = make_run(tmp_path / "run", learned=1)
    assert len(RunFolder(run, read_run(run), resume=True).stages()) == 1
