"""Evidence of a task on a toy: one linear layer that is called twice, against autograd, and what has read nothing."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from calculus import draw
from everlora import Example, Task
from everlora.core.roles import NO_EVIDENCE, Evidence
from everlora.core.updates import Weights
from everlora.training.evidence import draw_rows, fisher, observe, second_moments, weight_gradients
from everlora.training.stages import Stage


class Toy(nn.Module):
    """Two calls of one layer, whose outputs are added, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.layer, self.idle = nn.Linear(3, 4), nn.Linear(5, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.drop(self.layer(x)) + self.layer(2 * x))


@dataclass
class Rows:
    """A family whose rows are numbers: those of ``x`` and ``y``, of three positions each, the last of them padding."""

    x: Tensor = field(default_factory=lambda: draw(0, (12, 3, 3), dtype=torch.float32)[0])
    y: Tensor = field(default_factory=lambda: torch.arange(36).view(12, 3) % 4)

    def features(self, row: Example, task: Task) -> int:
        return int(str(row.input))

    def collate(self, rows: list[int]) -> dict[str, Tensor]:
        return {"x": self.x[rows], "y": self.y[rows]}

    def token_masks(self, batch: dict[str, Tensor]) -> tuple[Tensor, None]:
        return torch.tensor([[True, True, False]]).expand(len(batch["x"]), 3), None

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return model(batch["x"])[:, :2].flatten(0, 1), batch["y"][:, :2].flatten()


TASK = Task(name="t", train=[Example(str(k), "a") for k in range(12)], test=[Example("0", "a")])
ROWS = [(row, TASK) for row in TASK.train]
FAMILY: Any = Rows()


@pytest.fixture
def model() -> Toy:
    torch.manual_seed(0)
    made = Toy()
    made.idle.train(False)
    return made


def left_as_it_was(model: Toy) -> bool:
    modes = [model.training, model.layer.training, model.idle.training, model.drop.training]
    hooks = [one for module in model.modules() for one in (*module._forward_hooks, *module._forward_pre_hooks)]
    return modes == [True, True, False, True] and not hooks and all(p.grad is None for p in model.parameters())


def gradients(model: Toy, rows: range, reduction: str) -> list[Tensor]:
    model.eval()
    logits, targets = FAMILY.logits(model, FAMILY.collate(list(rows)))
    return list(
        torch.autograd.grad(cross_entropy(logits, targets, reduction=reduction), list(model.layer.parameters()))
    )


def test_gradients_of_weights_are_those_of_all_calls(model: Toy) -> None:
    layers = {"layer": model.layer}
    model.layer.requires_grad_(False)
    mean = weight_gradients(model, FAMILY, layers, ROWS, per_sample=False)["layer"]
    each = weight_gradients(model, FAMILY, layers, ROWS[:3], per_sample=True)["layer"]
    assert left_as_it_was(model)
    model.layer.requires_grad_(True)
    torch.testing.assert_close(mean, gradients(model, range(12), "mean")[0][None])
    single = [gradients(model, range(k, k + 1), "mean")[0] for k in range(3)]
    torch.testing.assert_close(each, torch.stack(single))


def test_gradients_are_given_away_one_module_at_a_time() -> None:
    """The same as all at once, and none of an earlier module is in memory when the next one's is there."""
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 4))
    model.config = SimpleNamespace()
    layers = {str(k): layer for k, layer in enumerate(model)}
    backend: Any = SimpleNamespace(base_layers=lambda: layers)
    part: Any = Part(evidence="gradients")
    stage = Stage(1, "t", (TASK,), 1)
    found, alive = {}, list[weakref.ref[Tensor]]()

    def take(name: str, seen: Evidence) -> None:
        assert seen.gradients is not None
        assert [one() for one in alive] == [None] * len(alive)
        found[name] = seen.gradients.tolist()
        alive.append(weakref.ref(seen.gradients))

    assert observe(part, stage, model, FAMILY, backend, 0, take=take) == {}
    assert list(found) == ["2", "1", "0"], "as the backward pass comes by"
    every = observe(part, stage, model, FAMILY, backend, 0)
    assert found == {name: one.gradients.tolist() for name, one in every.items() if one.gradients is not None}


def test_a_gradient_that_autograd_leaves_is_taken_away(model: Toy) -> None:
    weight_gradients(model, FAMILY, {"layer": model.layer}, ROWS, per_sample=False)
    assert left_as_it_was(model)


def test_moments_are_of_all_tokens_but_padding(model: Toy) -> None:
    model.idle = cast(Any, nn.Linear(5, 6).train(False))
    found = second_moments(model, FAMILY, {"layer": model.layer, "idle": model.idle}, ROWS)
    x = FAMILY.x[:, :2].flatten(0, 1).double()
    torch.testing.assert_close(found["layer"], (1 + 4) / 2 * x.mT @ x / len(x))
    assert found["layer"].dtype == torch.float64
    assert torch.equal(found["idle"], torch.zeros(5, 5, dtype=torch.float64))
    assert left_as_it_was(model)


@pytest.mark.parametrize(
    ("idle", "width"),
    [(Conv1D(6, 5), 5), (SimpleNamespace(in_features=5), 5), (SimpleNamespace(), 0)],
    ids=["conv1d", "packed", "unknown"],
)
def test_a_layer_that_has_read_nothing_has_zeros_of_its_width(model: Toy, idle: Any, width: int) -> None:
    if isinstance(idle, SimpleNamespace):
        plain = nn.Module()
        plain.__dict__.update(vars(idle))
        idle = plain
    found = second_moments(model, FAMILY, {"idle": idle}, ROWS[:1])["idle"]
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.zeros(width, width).double())


def test_fisher_information_is_the_mean_of_squares_and_zero_where_nothing_acts(model: Toy) -> None:
    live = {
        "layer": Weights(dict(model.layer.named_parameters())),
        "idle": Weights(dict(model.idle.named_parameters())),
    }
    found = fisher(model, FAMILY, live, ROWS[:4])
    assert left_as_it_was(model)
    squares = [[g.square() for g in gradients(model, range(k, k + 1), "sum")] for k in range(4)]
    for key, values in zip(("weight", "bias"), zip(*squares, strict=True), strict=True):
        torch.testing.assert_close(found["layer"][key], torch.stack(values).mean(0))
        assert not found["layer"][key].requires_grad
        assert torch.equal(found["idle"][key], torch.zeros_like(live["idle"].tensors[key]))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Wants evidence of a kind."""

    evidence: Literal["fisher", "moment", "curvature", "gradients"]
    samples: int = 4
    per_sample: bool = False
    columns: int | None = None
    name: ClassVar[str] = "part"

    def root_columns(self, n: int) -> int | None:
        return self.columns if n == 4 else None


def test_each_kind_of_evidence_is_what_a_part_sees_of_the_modules_that_it_names(model: Toy) -> None:
    live = {"layer": Weights(dict(model.layer.named_parameters()))}
    layers = {"layer": model.layer, "other": model.idle}
    backend: Any = SimpleNamespace(trainable=lambda: live, base_layers=lambda: layers)
    stage = Stage(1, "t", (TASK,), 1)

    def seen(kind: Any, only: list[str] | None = None, *, seed: int = 0, **more: Any) -> Any:
        return observe(cast(Any, Part(evidence=kind, **more)), stage, model, FAMILY, backend, seed, only)

    for kind, wide in (("moment", (3, 3)), ("gradients", (1, 4, 3))):
        found = seen(kind, ["layer"])
        assert found.keys() == {"layer"}
        assert getattr(found["layer"], kind).shape == wide
    assert seen("gradients", ["layer"], per_sample=True)["layer"].gradients.shape == (4, 4, 3)
    assert seen("moment").keys() == {"layer", "other"}
    assert set(seen("fisher")["layer"].fisher) == {"weight", "bias"}
    found = seen("curvature")
    assert found["layer"].curvature.left.shape == (4, 4)
    assert found["other"].curvature is None
    assert found["layer"].curvature_roots is None
    assert torch.equal(seen("curvature")["layer"].curvature.left, found["layer"].curvature.left)
    dense, found = found["layer"].curvature, seen("curvature", columns=99)
    assert found["other"] == NO_EVIDENCE
    assert found["layer"].curvature is None
    roots = found["layer"].curvature_roots
    torch.testing.assert_close(roots.right, dense.right)
    torch.testing.assert_close(roots.left.root @ roots.left.root.mT, dense.left)
    for kind in ("moment", "curvature", "gradients"):
        assert seen(kind, samples=0) == {"layer": NO_EVIDENCE, "other": NO_EVIDENCE}


def test_answers_are_drawn_by_the_seed_of_the_run(model: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = SimpleNamespace(base_layers=lambda: {"layer": model.layer})
    began: list[int] = []
    draw = torch.multinomial

    def note(probabilities: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
        began.append(generator.initial_seed())
        return draw(probabilities, n, generator=generator)

    monkeypatch.setattr(torch, "multinomial", note)
    for seed in (0, 0, 1):
        observe(cast(Any, Part(evidence="curvature")), Stage(1, "t", (TASK,), 1), model, FAMILY, backend, seed)
    assert began[0] == began[1] != began[2]


def test_as_many_rows_are_drawn_as_a_part_wants_or_there_are() -> None:
    stage = Stage(1, "t", (TASK,), 1)
    few, again, all_ = (draw_rows(cast(Any, Part(evidence="moment", samples=n)), stage, 0) for n in (4, 4, 99))
    assert few == again
    assert len({row.input for row, _ in few}) == 4
    assert {row.input for row, _ in all_} == {row.input for row in TASK.train}
