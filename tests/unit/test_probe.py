"""The probe of activations by itself: sums over passes, stacks of places, random draws, what parts are shown."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from everlora.core.errors import ConfigError
from everlora.core.roles import ActivationSource, State
from everlora.core.updates import LowRank, Weights
from everlora.parts.masks import MagnitudeMask
from everlora.training.group import Group
from everlora.training.probe import Probe, magnitudes


@dataclass(frozen=True, kw_only=True)
class Look(MagnitudeMask):
    """Takes what it is shown for the constants of the step."""

    name: ClassVar[str] = "look"
    outputs: ActivationSource = "combined"

    def look(self, magnitudes: State, state: State) -> State:
        return magnitudes


class Other(Look):
    name: ClassVar[str] = "other"


class Padding:
    """Knows no padding, and whether it is in use."""

    used = 0

    def __enter__(self) -> None:
        self.used += 1

    def __exit__(self, *_: object) -> None:
        self.used -= 1

    def of(self, layer: nn.Module, x: Tensor) -> None:
        return None


def pair(sigma: bool = False) -> LowRank:
    """A of rank 2 that reads 3 features, B that makes 4 outputs."""
    made = LowRank(torch.ones(2, 3), torch.ones(4, 2), 0.5, torch.ones(2, 1) if sigma else None)
    return made


def probe(layers: dict[str, nn.Module], live: dict[str, Any], update_too: bool = False) -> Probe:
    return Probe(layers, live, update_too, cast(Any, Padding()), seed=7)


def linear() -> nn.Linear:
    layer = nn.Linear(3, 4, bias=False)
    nn.init.ones_(layer.weight)
    return layer


def test_sums_are_over_all_passes_of_training_and_end_with_the_block() -> None:
    layers: dict[str, nn.Module] = {"a": linear(), "b": linear()}
    seen = probe(layers, {"a": pair(), "b": pair()}, update_too=True)
    with seen as inside:
        assert inside is seen
        assert cast(Any, seen.tokens).used == 1
        for x in (torch.ones(2, 3), -torch.ones(1, 3)):
            layers["a"](x)
        layers["b"].eval()(torch.ones(1, 3))
        assert seen.sums.keys() == {"a"}
        # A x = 3 a row and W x = 3 an output, of three tokens; of the update ½ · 2 · 3.
        assert {key: value.tolist() for key, value in seen.sums["a"].items()} == {
            "A": [9.0] * 2,
            "B": [9.0] * 4,
            "update": [9.0] * 4,
        }
        assert not any(value.requires_grad for value in seen.sums["a"].values())
    assert cast(Any, seen.tokens).used == 0
    assert seen.sums == {}
    layers["a"](torch.ones(1, 3))
    assert seen.sums == {}, "a hook is left"


@pytest.mark.parametrize("update_too", [False, True])
def test_the_update_is_summed_only_for_a_part_that_wants_it(update_too: bool) -> None:
    parts = [Look(), *([Other(outputs="lora_only")] if update_too else [])]
    live, model = {"a": pair()}, nn.Linear(1, 1)
    model.config = cast(Any, SimpleNamespace())
    backend: Any = SimpleNamespace(output_layers=lambda: {"a": linear()}, trainable=lambda: live)
    group = Group(("a",), [live["a"]], transforms=[(part, {}) for part in parts])
    found = Probe.wanted([group], model, backend, 3)
    assert found is not None
    assert (found.update_too, found.seed, found.live) == (update_too, 3, live)
    assert ("update" in magnitudes(pair(), torch.ones(1, 3), torch.ones(1, 4), None)) is False


def test_nobody_looks_where_no_part_wants_it_or_nothing_answers() -> None:
    backend: Any = SimpleNamespace(output_layers=dict)
    group = Group(("a",), [pair()])
    assert Probe.wanted([group], nn.Linear(1, 1), backend, 0) is None
    group.transforms = [(Look(), {})]
    with pytest.raises(ConfigError, match="'look' looks at the outputs of trained layers, and this method trains no"):
        Probe.wanted([group], nn.Linear(1, 1), backend, 0)


def test_each_part_is_shown_its_own_outputs_and_sums_begin_anew() -> None:
    """One place has no outputs: it is infinite, so that no row of it is masked."""
    layer = linear()
    live = {"a": pair(), "none": pair()}
    group = Group(
        tuple(live),
        list(live.values()),
        transforms=[(Look(), {}), (Other(outputs="lora_only"), {}), (cast(Any, object()), {})],
    )
    seen = probe({"a": layer}, live, update_too=True)
    with seen:
        layer(2 * torch.ones(1, 3))
        layer.weight.data *= 2
        layer(torch.ones(1, 3))
        seen.show([group], 1)
        assert seen.sums == {}
    inf = float("inf")
    shown, other = group.now["look"], group.now["other"]
    assert shown["B"].tolist() == [[12.0] * 4, [inf] * 4]  # 2 · 3 of weights 1 and 3 of weights 2
    assert shown["A"].tolist() == other["A"].tolist() == [[9.0] * 2, [inf] * 2]
    assert other["B"].tolist() == [[9.0] * 4, [inf] * 4]  # ½ · 2 · (6 + 3)
    seen.show([group], 2)
    assert group.now == {"look": {}, "other": {}}, "nothing was seen since"


def test_whole_weights_have_the_outputs_of_their_layer_whatever_a_part_wants() -> None:
    layer, site = linear(), Weights({"W": torch.ones(4, 3), "bias": torch.ones(4)})
    group = Group(("a",), [site], transforms=[(Look(outputs="lora_only"), {})])
    seen = probe({"a": layer}, {"a": site}, update_too=True)
    with seen:
        layer(torch.ones(2, 3))
        seen.show([group], 1)
    assert {key: value.tolist() for key, value in group.now["look"].items()} == {"W": [[6.0] * 4]}


def test_random_draws_are_of_every_matrix_but_sigma_where_there_are_outputs() -> None:
    live = {"a": pair(sigma=True), "none": pair(sigma=True)}
    group = Group(tuple(live), list(live.values()), transforms=[(Look(outputs="random"), {})])
    seen = probe({"a": linear()}, live)
    draws = []
    for step in (1, 2, 1):
        seen.show([group], step)
        draws.append(group.now["look"])
    for found in draws:
        assert {key: tuple(value.shape) for key, value in found.items()} == {"A": (2, 2), "B": (2, 4)}
        assert all(bool(((value[0] >= 0) & (value[0] < 1)).all()) for value in found.values())
        assert all(bool(value[1].isinf().all()) for value in found.values())
    assert torch.equal(draws[0]["B"], draws[2]["B"])
    assert not torch.equal(draws[0]["B"], draws[1]["B"])
    whole = Group(("a",), [Weights({"W": torch.ones(4, 3), "bias": torch.ones(4)})])
    whole.transforms = [(Look(outputs="random"), {})]
    seen.show([whole], 1)
    assert {key: tuple(value.shape) for key, value in whole.now["look"].items()} == {"W": (1, 4)}


def test_sums_do_not_depend_on_the_split_of_a_batch() -> None:
    """In fp32 ones that are added to 2²⁴ one by one are lost, and those that are added up first are not."""
    site = Weights({"W": torch.ones(1, 1)})
    out = torch.ones(9, 1)
    out[0] = 2**24
    (found,) = magnitudes(site, out, out, None).values()
    assert found.dtype == torch.float64
    assert found.tolist() == [2**24 + 8.0]
