"""What a learner warns of, judged on updates, losses and answers that are made by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from everlora.core.errors import TrainingError
from everlora.core.updates import LowRank, Updates, Weights
from everlora.data.task import Example, Task
from everlora.parts.subspace import ProjectOut
from everlora.testing import tiny_runs
from everlora.training import alarms
from everlora.training.alarms import (
    ABOVE_CHANCE,
    COLLAPSE,
    EDGE,
    FEW_LOSSES,
    FEW_ROWS,
    GUESSED,
    KNOWN,
    LEARN_LESS,
    RAN_AWAY,
    TOO_LARGE,
    TOO_LARGE_IN_FULL,
    after_scoring,
    after_training,
    change,
    check_finite,
    collapse,
    guessing,
    runaway,
    saturated,
    unlearned,
)

N = 200
ROWS = [Example(f"row {k}", "yes" if k % 2 else "no") for k in range(N)]
TASK = Task(name="news", train=ROWS[:8], test=ROWS, labels=("yes", "no"), instruction="Say.")


def layers(**norms: float) -> dict[str, nn.Module]:
    """Layers of 4 x 4 whose weights have these norms."""
    found = {name: nn.Linear(4, 4, bias=False) for name in norms}
    for name, layer in found.items():
        layer.weight.data = torch.eye(4) * norms[name] / 2
    return dict(found)


def update(**norms: float) -> Updates:
    """Updates of rank 1 with these norms."""
    first = torch.eye(4)[:1]
    return {name: LowRank(first, norm / 2.0 * first.mT, 2.0) for name, norm in norms.items()}


@pytest.mark.parametrize(("share", "warned"), [(0.99, False), (1.01, True)])
def test_an_update_is_measured_against_the_weights_below_it(share: float, warned: bool) -> None:
    weights = layers(a=30.0, b=3.0, c=1.0)
    sizes = {name: share * TOO_LARGE * float(layer.weight.detach().norm()) for name, layer in weights.items()}
    found = runaway(update(**sizes), None, weights)
    assert bool(found) is warned
    assert all("--lora-alpha" in line and "--learning-rate" in line for line in found)


def test_the_median_module_counts_and_not_the_largest() -> None:
    assert runaway(update(a=0.01, b=0.01, c=50.0), None, layers(a=1.0, b=1.0, c=1.0)) == []
    assert runaway(update(a=50.0, b=0.01, c=50.0), None, layers(a=1.0, b=1.0, c=1.0)) != []


def test_where_one_adapter_goes_on_only_its_change_counts() -> None:
    weights = layers(a=1.0)
    assert runaway(update(a=5.0), update(a=5.0), weights) == []
    assert runaway(update(a=5.0), None, weights) != []
    assert runaway(update(a=5.0), None, {}) == [], "a form that adapts no layer has no scale"


@pytest.mark.parametrize(("moved", "warned"), [(0.99, False), (1.01, True)])
def test_weights_that_are_trained_themselves_are_measured_against_where_they_began(moved: float, warned: bool) -> None:
    """Not against what the layer holds by then, nor with a bias, which the share leaves out."""
    began = torch.eye(4)
    now = began + moved * TOO_LARGE_IN_FULL * torch.eye(4).roll(1, 0)
    trained = {"a": Weights({"weight": now, "bias": torch.full((4,), 9.0)})}
    start = {"a": Weights({"weight": began, "bias": torch.zeros(4)})}
    assert bool(runaway(trained, start, layers(a=100.0))) is warned
    assert runaway(trained, None, layers(a=1.0)) == []
    assert runaway(trained, start, {}) == [], "a norm, an embedding"
    prompts = {"a": Weights({"prompt": 9 * now})}
    assert runaway(prompts, {"a": Weights({"prompt": now})}, layers(a=1.0)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_where_a_model_began_may_lie_on_another_device_than_the_update() -> None:
    began, now = torch.eye(4).cuda(), torch.eye(4) + 2 * TOO_LARGE_IN_FULL * torch.eye(4).roll(1, 0)
    assert runaway({"a": Weights({"weight": now})}, {"a": Weights({"weight": began})}, layers(a=100.0)) != []


@pytest.mark.parametrize(("rate", "warned"), [(1e-4, []), (0.02, ["first", "second"])])
def test_full_weights_that_run_away_are_warned_of(rate: float, warned: list[str], tmp_path: Path) -> None:
    """On the first task against the model's own weights, and on the second against those of the first."""
    watch = tiny_runs.Watch()
    tiny_runs.train_sequence(
        "tiny-bert",
        "seqft",
        tmp_path / "run",
        tiny_runs.stream("tiny-bert")[:2],
        progress=watch,
        train={"max_steps": 4, "learning_rate": rate},
    )
    assert [line.split("'")[1] for line in watch.warnings if alarms.LARGE in line] == warned


def test_weights_far_smaller_than_one_are_the_measure_all_the_same() -> None:
    assert runaway(update(a=0.002), None, layers(a=0.01)) == []
    assert runaway(update(a=0.02), None, layers(a=0.01)) != []


def test_a_bound_itself_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of the share, a loss that is as high as a known one may be, a score of exactly chance."""
    assert runaway(update(a=10 * TOO_LARGE), None, layers(a=10.0)) != []
    assert unlearned([KNOWN] * FEW_LOSSES) != []
    monkeypatch.setattr(alarms, "ABOVE_CHANCE", 0.0)
    for right in (N // 2, N // 2 + 1):
        found = guessing(TASK, [row.target for row in ROWS], [k < right for k in range(N)])
        assert bool(found) is (right == N // 2)


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([1.4, 1.2, 0.8, 0.5], False),
        ([1.4, 1.38, 1.41, 1.42], True),
        ([1.4, 1.5, 1.8, 2.7], True),
        ([2.0, *[0.5] * 30], False),
        ([KNOWN / 3, KNOWN / 2, KNOWN / 3, KNOWN / 2], False),
        ([1.0] * (FEW_LOSSES - 1), False),
        ([], False),
    ],
    ids=["fell", "flat", "rose", "fell at once", "known before", "too few to tell", "none"],
)
def test_a_loss_that_did_not_fall_is_said(losses: list[float], warned: bool) -> None:
    found = unlearned(losses)
    assert bool(found) is warned
    assert all("--num-train-epochs" in line and "--learning-rate" in line for line in found)


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([1.1, 14.7, 8.5], True),
        ([1.1, 2.2], True),
        ([1.1, 2.1], False),
        ([1.1, 14.7, 0.9], False),
        ([0.02, 0.3], False),
        ([0.02, GUESSED], True),
        ([9.0], False),
        ([0.7, 8.1, 8.0, 8.0, 7.9, 7.9], True),
        ([0.4, 2.0, 1.8, 1.5, 1.2, 1.0, 0.9, 0.6, 0.5, 0.81], False),
        ([1.1, 1.0, 0.9, 0.3, 0.2, 2.3], False),
    ],
    ids=[
        "stays high",
        "twice",
        "less than twice",
        "came back",
        "known",
        "known no longer",
        "one step",
        "high from the second",
        "fell from the second, the first was an easy batch",
        "the last was a hard batch",
    ],
)
def test_a_loss_that_ran_away_is_said_of_however_few(losses: list[float], warned: bool) -> None:
    """The first is that of the first step: later ones are means, by whose time it may be high already."""
    found = unlearned(losses)
    assert found == ([f"{RAN_AWAY} it went from {losses[0]:g} to {losses[-1]:.3g}; {LEARN_LESS}"] if warned else [])
    (line,) = after_scoring([TASK], {"news": [False] * N}, "test", "; ".join(found))
    assert line.endswith(LEARN_LESS if warned else alarms.LEARN_MORE), "the advice is the same once it is scored"


@pytest.mark.parametrize(("right", "warned"), [(100, True), (111, True), (112, False), (180, False), (20, True)])
def test_a_score_within_noise_of_guessing_is_said(right: int, warned: bool) -> None:
    """Of 200 answers to two labels half are right by chance, give or take 7.07: 111 are within 1.645 times that."""
    correct = [k < right for k in range(N)]
    found = guessing(TASK, [row.target for row in ROWS], correct)
    assert bool(found) is warned
    assert all("guessing comes to 50.0%" in line for line in found)


def test_guessing_is_the_most_frequent_label_where_labels_are_uneven() -> None:
    targets = ["yes"] * 160 + ["no"] * 40
    assert guessing(TASK, targets, [True] * 160 + [False] * 40) != [], "always yes"
    assert guessing(TASK, targets, [True] * 180 + [False] * 20) == []


@pytest.mark.parametrize("rows", [FEW_ROWS - 1, FEW_ROWS])
def test_few_rows_and_rows_of_one_label_tell_nothing(rows: int) -> None:
    targets = ["yes", "no"] * (rows // 2) + ["yes"] * (rows % 2)
    assert bool(guessing(TASK, targets, [False] * rows)) is (rows >= FEW_ROWS)
    assert guessing(TASK, ["yes"] * N, [True] * N) == []


def test_free_answers_and_tasks_that_are_not_scored_are_left_out() -> None:
    free = Task(name="free", train=ROWS[:8], test=ROWS, labels=(), instruction="Say.")
    assert after_scoring([free], {"free": [False] * N}, "test") == []
    assert after_scoring([TASK], {}, "test") == []
    assert len(after_scoring([TASK], {"news": [False] * N}, "test")) == 1


def test_a_scale_that_is_far_too_large_is_said_and_recorded(tmp_path: Path) -> None:
    progress = tiny_runs.Watch()
    learner = tiny_runs.train_sequence(
        "tiny-bert",
        "inclora",
        tmp_path / "run",
        tiny_runs.stream("tiny-bert")[:1],
        progress=progress,
        lora={"lora_alpha": 512},
        train={"max_steps": 6},
    )
    (recorded,) = [stage.facts.warning or "" for stage in learner.folder.stages()]
    (said,) = [line for line in progress.warnings if line.startswith("task 'first': the update is large")]
    assert said.endswith("lower --learning-rate or, of adapters, --lora-alpha")
    assert said.removeprefix("task 'first': ") in recorded


def test_how_much_a_task_has_changed() -> None:
    """Of tensors their distance from where they began, of which what has grown is all new; of pairs ‖ΔW − ΔW₀‖."""
    was = {"p": Weights({"w": torch.tensor([[1.0, 2.0]])}), "q": Weights({"w": torch.tensor([5.0])})}
    now = {"p": Weights({"w": torch.tensor([[1.0, 4.0], [0.0, 4.0]])}), "q": Weights({"w": torch.tensor([9.0])})}
    assert change(now, was) == pytest.approx((2**2 + 4**2 + 4**2) ** 0.5)
    assert change(now, None) == pytest.approx((1 + 16 + 16 + 81) ** 0.5)
    assert change(was, was) == 0
    first, second = update(a=3.0), update(a=5.0)
    assert change(second, first) == pytest.approx(2.0)
    assert change(update(a=3.0, b=4.0), None) == pytest.approx(5.0)


@pytest.mark.parametrize(("now", "warned"), [(0.0, True), (0.199, True), (0.2, False), (9.0, False)])
def test_an_update_that_vanished_against_the_median_earlier_one(now: float, warned: bool) -> None:
    assert COLLAPSE == 0.05
    found = collapse(now, [100.0, 4.0, 1.0])
    assert bool(found) is warned
    assert all(f"its norm is {now:.3g}, that of earlier tasks 4;" in line for line in found)
    assert collapse(now, []) == []
    assert bool(collapse(now, [4.0, 1.0])) is warned, "of two the larger"


def test_the_alarms_of_a_task_that_was_trained() -> None:
    small, losses = update(a=1e-3), [{"loss": 1.0}, {"eval": 9.0}, *[{"loss": 1.0}] * 3]
    found = after_training(small, None, layers(a=1.0), losses, [1.0])
    assert [line.split(":")[0] for line in found] == ["the update collapsed", "the task was not learned"]
    assert after_training(small, None, layers(a=1.0), losses[:2], []) == []
    assert after_training(update(a=1.0), None, layers(a=1.0), [], [1.0]) == runaway(update(a=1.0), None, layers(a=1.0))


def test_losses_at_either_end_are_compared_without_overlap() -> None:
    """Three at each end where there are six; of four or five, two."""
    assert (EDGE, FEW_LOSSES, KNOWN, FEW_ROWS, ABOVE_CHANCE, TOO_LARGE) == (3, 4, 0.1, 30, 1.645, 0.3)
    assert unlearned([1, 1, 9, 9, 1, 1, 1.0]) == []
    assert unlearned([1, 1, 1, 9, 1, 1, 1.1]) != []
    assert unlearned([1.5, 9, 2, 2]) == []
    assert unlearned([1, 2, 9, 2, 1]) != []
    assert "went from 1 to 1.5;" in unlearned([1.5, 0.5, 0, 1, 2])[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    check_finite(update(a=1.0), "news")
    with pytest.raises(
        TrainingError, match=r"task 'news' is NaN or infinite.*lower --learning-rate or, of adapters, --lora-alpha"
    ):
        check_finite({**update(a=1.0), "b": Weights({"w": torch.tensor([1.0, bad])})}, "news")


@pytest.mark.parametrize(("left", "warned"), [(5, True), (6, False)])
def test_little_room_is_warned_of(left: int, warned: bool) -> None:
    """Directions for fewer than three tasks of rank 2, in the module that has the fewest."""
    part = ProjectOut()
    object.__setattr__(part, "free", lambda state: torch.tensor([9, left]))
    live = [SimpleNamespace(rank=2)]
    group = SimpleNamespace(transforms=[(object(), {}), (part, {})], live=live, names=("a", "b"))
    found = saturated(cast(Any, [group]))
    assert bool(found) is warned
    assert all(f"{left} directions are left in 'b', room for {left // 2} more tasks of rank 2;" in x for x in found)


def test_noise_is_that_of_as_many_answers() -> None:
    """Where a bound of certainty is reached no score tells; labels that no row has count for guessing."""
    three = Task(name="three", train=ROWS[:8], test=ROWS, labels=("yes", "no", "maybe"), instruction="Say.")
    targets = ["yes", "no", "maybe"] * 20
    assert "guessing comes to 33.3%" in guessing(three, targets, [True] * 20 + [False] * 40)[0]
    assert guessing(three, targets, [True] * 27 + [False] * 33) == []
    assert guessing(three, targets, [True] * 26 + [False] * 34) != []
    for right, rare in ((54, 3), (58, 2)):
        found = guessing(TASK, ["yes"] * (60 - rare) + ["no"] * rare, [True] * right + [False] * (60 - right))
        assert bool(found) is (rare == 3)
