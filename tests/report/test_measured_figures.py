"""Figures that need the model and the rows again: what is brought back is what was, and what is measured is exact."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from everlora.analysis.layer_maps import module_maps, placed, triplets
from everlora.analysis.recorded import recorded
from everlora.analysis.update_subsets import exactly, smallest, subset
from everlora.core.errors import ConfigError
from everlora.core.history import UpdateHistory
from everlora.core.updates import LowRank
from everlora.evaluation.scoring import answer_rows
from everlora.learner import experiment
from everlora.learner.reopened import Reopened, reopen
from everlora.parts.blend import sensitivity
from everlora.report.figures import named
from everlora.report.figures.feature_maps import on_plane
from everlora.settings.spec import RunSpec
from everlora.training.evidence import weight_gradients

from .made import make_run

SETTINGS = {
    "model": "tiny-llama",
    "dtype": "float32",
    "benchmark": "builtin",
    "tasks": ["news", "questions"],
    "max_train_samples": 16,
    "max_eval_samples": 8,
    "max_source_length": 96,
    "train": {"max_steps": 4, "learning_rate": 0.02},
    "evaluation": {"scoring": "labels"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured") / "inclora"
    experiment.run(experiment.resolve(RunSpec, SETTINGS, {"method": "inclora"}), place)
    return place


@pytest.fixture(scope="module")
def again(run: Path) -> Reopened:
    return reopen(run, answers=True)


def test_each_stage_answers_as_it_did(run: Path, again: Reopened) -> None:
    spec = again.learner.spec.evaluation
    for stage, known in zip(again.stages, recorded(run).stages, strict=True):
        model = again.model_with(stage.after)
        rows = [answer.prediction for answer in known.answers if answer.task == stage.task.name]
        family = again.learner.base.family
        assert answer_rows(model, family, stage.task, stage.task.test, spec.scoring, batch_size=32) == rows


def test_nothing_is_written_to_the_folder(run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    reopen(run)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_what_cannot_be_brought_back_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="taught task by task"):
        reopen(make_run(tmp_path / "learner", learner=True))
    with pytest.raises(ConfigError, match="no low-rank updates of one model"):
        reopen(make_run(tmp_path / "full", method="seqft"))


def test_both_signs_of_all_entries_are_the_update_where_it_met_the_past() -> None:
    torch.manual_seed(0)
    past = UpdateHistory(({"m": LowRank(torch.randn(2, 5), torch.randn(3, 2))},))
    added = {"m": LowRank(torch.randn(2, 5), torch.randn(3, 2))}
    parts = [subset(added, past, 1.0, sign)["m"].dense() for sign in ("same", "opposite")]
    assert torch.allclose(parts[0] + parts[1], added["m"].dense())
    assert ((parts[0] * past.total("m")) >= 0).all()
    assert ((parts[1] * past.total("m")) <= 0).all()
    assert not subset(added, past, 0.0, "same")["m"].dense().any()
    assert int(smallest(torch.arange(10.0).view(2, 5), 0.3).sum()) == 3
    tall = torch.randn(4, 2)
    assert torch.equal(exactly(tall).dense(), tall)


def test_triplets_are_the_update_and_orthonormal() -> None:
    torch.manual_seed(0)
    update = LowRank(torch.randn(2, 5), torch.randn(3, 2), scale=0.5)
    found = triplets(update)
    assert torch.allclose(found.dense(), update.dense(), atol=1e-5)
    assert torch.allclose(found.B.mT @ found.B, torch.eye(2), atol=1e-5)
    assert torch.allclose(found.A @ found.A.mT, torch.eye(2), atol=1e-5)


def test_maps_are_the_means_of_what_is_measured_row_by_row(again: Reopened) -> None:
    first, second = again.stages
    model, family = again.model_with(first.after), again.learner.base.family
    rows = [(row, second.task) for row in second.task.train[:3]]
    found = {(one.stack, one.block, one.kind): one for one in module_maps(model, family, [first.added], rows)}
    name = next(iter(first.added))
    layer = {name: model.get_submodule(name)}
    each = [weight_gradients(model, family, layer, [row], per_sample=False)[name] for row in rows]
    one = found[placed(name)]
    assert one.fisher == pytest.approx(sum(float(g.square().mean()) for g in each) / 3, rel=1e-4)
    scores = sensitivity(triplets(first.added[name]), sum(each) / 3)  # type: ignore[arg-type]
    assert one.sensitivity == pytest.approx(float(scores.mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("feature-map", 32),
        ("layer-maps", 4),
        pytest.param("loss-histogram", 1, marks=pytest.mark.full),
        pytest.param("update-subsets", 24, marks=pytest.mark.full),
    ],
)
def test_figures_are_drawn(name: str, rows: int, run: Path) -> None:
    drawn = named(name).draw([run])
    assert len(drawn.table.rows) == rows
    assert drawn.svg.startswith("<svg")


def test_neighbours_stay_neighbours() -> None:
    torch.manual_seed(0)
    clouds = torch.cat([torch.randn(12, 4) * 0.01, torch.randn(12, 4) * 0.01 + 5])
    for plane in ("PCA", "t-SNE"):
        places = on_plane(clouds, plane)  # type: ignore[arg-type]
        centres = [[sum(p[k] for p in half) / 12 for k in (0, 1)] for half in (places[:12], places[12:])]
        apart = math.dist(*centres)
        assert all(math.dist(p, centres[k // 12]) < apart / 2 for k, p in enumerate(places))
