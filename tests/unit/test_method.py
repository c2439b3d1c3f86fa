from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.errors import ConfigError
from everlora.core.method import Method, compose
from everlora.core.registry import Entry, entries
from everlora.methods.ella import ella
from everlora.methods.inclora import inclora
from everlora.methods.lbcl import l_cl, lb_cl, nlnb_cl
from everlora.methods.olora import olora
from everlora.methods.pslora import ps_merge, pslora
from everlora.methods.references import mtl, per_task, zero_shot
from everlora.methods.seqlora import seqlora
from everlora.parts.penalties import EnergyOverlap, FactorNorm, Orthogonality


def test_ella_is_inclora_and_one_penalty() -> None:
    assert ella(lam=0.3, energy="raw") == Method(name="ella", penalties=(EnergyOverlap(lam=0.3, energy="raw"),))
    assert (ella().adapter, ella().consolidator, ella().regime) == (
        inclora().adapter,
        inclora().consolidator,
        inclora().regime,
    )


def test_olora_holds_its_second_penalty_only_if_asked() -> None:
    assert olora().penalties == (Orthogonality(lam=0.5, side="A", norm="l1"),)
    assert olora(lam=5, norm_lam=0.1).penalties == (Orthogonality(lam=5), FactorNorm(lam=0.1))


def test_penalties_add_up_and_their_order_has_no_meaning() -> None:
    one, other = compose(ella(), olora()), compose(olora(), ella())
    assert one.name == "ella+o-lora"
    assert set(one.penalties) == set(other.penalties) == set(ella().penalties + olora().penalties)
    assert compose(inclora(), ella()).penalties == ella().penalties


def test_an_exact_duplicate_is_one_penalty() -> None:
    assert compose(ella(), ella()).penalties == ella().penalties
    assert compose(ella(), olora(), ella()).penalties == ella().penalties + olora().penalties


def test_one_penalty_with_two_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'energy_overlap' is given twice.*lam=1\.0.*lam=2.*keep one"):
        compose(ella(lam=1.0), ella(lam=2))
    with pytest.raises(ConfigError, match="'orthogonality' is given twice"):
        compose(ella(), olora(), olora(side="B"))


@pytest.mark.parametrize(
    ("first", "second", "role"),
    [
        (seqlora(), ella(), "consolidator"),
        (ella(), seqlora(), "consolidator"),
        (Method(name="mine", adapter=Adapter(policy="continue")), ella(), "adapter policy"),
        (nlnb_cl(scale="unit"), nlnb_cl(scale="alpha"), "adapter"),
        (pslora(infer="sum"), ps_merge(), "merge"),
        (l_cl(samples=4), l_cl(), "initialiser"),
        (mtl(), ella(), "regime"),
        (zero_shot(), seqlora(), "regime"),
        (per_task(), ella(), "consolidator"),
        (ella(), per_task(), "consolidator"),
    ],
)
def test_single_roles_must_agree_and_the_message_names_both(first: Method, second: Method, role: str) -> None:
    with pytest.raises(ConfigError, match="exclude one another") as caught:
        compose(first, second)
    message = str(caught.value)
    assert repr(first.name) in message
    assert repr(second.name) in message
    assert f"as {role}" in message
    assert "\n" not in message


def test_a_composition_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        compose()


def test_a_method_is_a_value() -> None:
    method = ella()
    with pytest.raises(FrozenInstanceError):
        method.name = "mine"  # type: ignore[misc]
    assert method == ella()
    assert hash(method) == hash(ella())
    assert method.named("mine").name == "mine"
    assert method.named("mine").penalties == method.penalties
    assert method.name == "ella"


def test_the_description_is_plain_data_that_tells_settings_apart() -> None:
    found = ella(lam=0.3).describe().plain()
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "name": "ella",
        "regime": "sequence",
        "adapter": {"policy": "new", "form": "plain", "unit": False},
        "consolidator": "sum",
        "initialiser": None,
        "penalties": [{"part": "energy_overlap", "lam": 0.3, "energy": "rms", "store": "factors", "store_rank": 8}],
        "transforms": [],
        "merge": None,
    }
    assert ella(lam=0.4).describe().plain() != found
    assert ella(lam=0.3, energy="max").describe().plain() != found
    assert ella(lam=0.3, store="int8").describe().plain() != found
    assert ella(lam=0.3, policy="continue").describe().plain() != found


def test_every_role_stands_in_the_description() -> None:
    found = compose(lb_cl(samples=4), pslora(rho=0.2)).describe().plain()
    assert json.loads(json.dumps(found)) == found
    assert found["adapter"] == {"policy": "new", "form": "svd", "unit": False}
    assert found["initialiser"] == {
        "part": "sensitivity_blend",
        "samples": 4,
        "sigma": "without",
        "top_layers": None,
        "per_sample": False,
    }
    assert [part["part"] for part in found["penalties"]] == ["orthonormal_triplets", "sign_conflict"]
    assert found["penalties"][1]["lam"] == {"rho": 0.2, "per_module": False}
    assert found["transforms"] == [{"part": "project_out", "acts_on": "gradient", "form": "joint"}]
    assert found["merge"] == {"part": pslora().merge.name, "train": "sum", "infer": "merged"}  # type: ignore[union-attr]


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_every_methods_description_is_plain_data(known: Entry) -> None:
    found = known.build().describe().plain()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("method", "needs_id", "words"),
    [
        (zero_shot(), False, "none"),
        (mtl(), False, "all tasks at once"),
        (seqlora(), False, "one adapter for all tasks"),
        (inclora(), False, "folded"),
        (ella(), False, "folded"),
        (per_task(), True, "task id"),
        (ella(policy="continue"), False, "one adapter for all tasks"),
        (lb_cl(), False, "folded"),
        (pslora(), False, "merged"),
        (pslora(infer="sum"), False, "folded"),
    ],
)
def test_policies_in_words(method: Method, needs_id: bool, words: str) -> None:
    assert method.task_id_at_inference is needs_id
    assert words in method.policy


def test_every_role_value_has_words() -> None:
    for rule in ("sum", "continue", "keep"):
        assert Method(name="m", adapter=Adapter(), consolidator=Consolidator(rule=rule)).policy  # type: ignore[arg-type]
