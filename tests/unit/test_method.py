from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import ClassVar

import pytest

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.method import Method, compose
from everlora.core.registry import Entry, entries
from everlora.core.roles import Budget
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


# --- what a method is ------------------------------------------------------------------------------------------------


def test_whether_it_joins_others_is_no_part_of_what_a_run_does() -> None:
    """Nor are its families, or how it was typed: a run is known again by its composition."""
    plug = parse("migu")
    assert plug.plugin
    assert replace(plug, plugin=False, families=("decoder",), replay=True, expression="x") == plug
    assert parse("replay+migu").plugin
    for text in ("seqlora", "migu+seqlora", "seqlora+migu"):
        assert not parse(text).plugin
    assert not Method(name="mine").plugin


def test_a_composition_replays_if_one_of_the_two_does() -> None:
    plain, again = ella(), replace(inclora(), replay=True)
    assert [compose(*two).sees_again for two in ((plain, plain), (plain, again), (again, plain))] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("text", "independent", "group"),
    [
        ("per-task", True, "task id"),
        ("seqlora", False, "replay-free"),
        ("ella", False, "replay-free"),
        ("progprompt", False, "task id"),  # its prompts stand behind those of the earlier tasks
        ("ella+replay", False, "replay"),
        ("lfpt5", False, "replay-free"),  # the model writes the rows that it sees again
        ("mtl", False, "replay"),
    ],
)
def test_which_tasks_are_learned_as_if_each_were_the_first(text: str, independent: bool, group: str) -> None:
    assert (parse(text).independent_tasks, parse(text).group) == (independent, group)


def test_full_models_of_one_task_each_are_independent() -> None:
    class Whole(Adapter):
        whole_model: ClassVar[bool] = True
        loads_with_peft: ClassVar[bool] = False

    each = Method(name="mine", adapter=Whole(form="full"), consolidator=Consolidator(rule="keep"))
    assert each.independent_tasks is True
    assert replace(each, consolidator=Consolidator(rule="continue")).independent_tasks is False


def test_parts_act_in_their_order() -> None:
    found = [part.name for part in parse("kif+ella(policy=continue)+lwf+migu").parts()]
    assert found == ["energy_overlap", "distil", "magnitude_mask", "row_replay", "fusion"]
    found = [part.name for part in parse("lb-cl+ps-merge").parts()]
    assert found == ["sensitivity_blend", "orthonormal_triplets", "project_out", "largest_magnitude"]


def test_what_carries_something_from_task_to_task() -> None:
    assert [part.name for part in parse("ewc+replay").remembering] == ["quadratic"]
    assert parse("o-lora").remembering == ()


# --- what a method refuses -------------------------------------------------------------------------------------------


def test_a_part_of_low_rank_wants_an_adapter_of_low_rank() -> None:
    with pytest.raises(ConfigError, match="'energy_overlap' works on low-rank updates, and 'mine' trains none"):
        Method(name="mine", adapter=Adapter(form="full"), penalties=ella().penalties)


def test_a_budget_is_held_against_a_prediction_of_this_part_or_of_another() -> None:
    (predicts,) = parse("kfac").penalties
    overlap = EnergyOverlap(lam=Budget(nats=0.1))
    with pytest.raises(ConfigError, match="the budget of 'energy_overlap' is held against a prediction, and no part"):
        Method(name="mine", penalties=(overlap,))
    for held in ((overlap, predicts), (predicts, overlap), (replace(predicts, lam=Budget(nats=0.1)),)):
        assert Method(name="mine", penalties=held).penalties == held
    with pytest.raises(ConfigError, match="strength of the penalty 'energy_overlap' must be a finite number"):
        Method(name="mine", penalties=(EnergyOverlap(lam=-1.0),))


def test_a_pull_to_where_earlier_tasks_were_wants_one_adapter() -> None:
    pull = parse("ewc").penalties
    with pytest.raises(ConfigError, match="'quadratic' holds what is trained where earlier tasks left it, and 'mine'"):
        Method(name="mine", penalties=pull)
    adapter, rule = Adapter(policy="continue"), Consolidator(rule="continue")
    assert Method(name="mine", adapter=adapter, consolidator=rule, penalties=pull).penalties == pull


def test_blocks_of_steps_and_mixtures_want_what_they_are_made_of() -> None:
    with pytest.raises(ConfigError, match="'fusion' works on blocks with rehearsed rows, and 'mine' keeps none"):
        Method(name="mine", rule=parse("kif").rule)
    with pytest.raises(ConfigError, match="'mine' learns task after task; mixing=equal is for all tasks at once"):
        Method(name="mine", mixing="equal")
    assert Method(name="mine", regime="joint", mixing="equal").mixing == "equal"


def test_of_all_tasks_at_once_only_what_is_rehearsed_and_nothing_else_can_be_chosen() -> None:
    some, alone = parse("replay").rehearsal, parse("mtl-buffer").rehearsal
    with pytest.raises(ConfigError, match="'row_replay' cannot act in 'mine'"):
        Method(name="mine", regime="joint", rehearsal=some)
    assert Method(name="mine", regime="joint", rehearsal=alone).sees_again


def test_fields_hold_frozen_parts_of_their_role() -> None:
    (penalty,) = ella().penalties
    with pytest.raises(ConfigError, match="the field 'transforms' of a method takes a GradientTransform, and a E"):
        Method(name="mine", transforms=(penalty,))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the field 'merge' of a method takes a Merge, and a EnergyOverlap is none"):
        Method(name="mine", merge=penalty)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the field 'penalties' of a method takes a tuple of parts, not Energy"):
        Method(name="mine", penalties=penalty)  # type: ignore[arg-type]


# --- joining ---------------------------------------------------------------------------------------------------------


def test_two_forms_of_which_one_is_of_no_low_rank_exclude_one_another() -> None:
    low = Method(name="low", adapter=Adapter(policy="continue"), consolidator=Consolidator(rule="continue"))
    full = replace(low, name="full", adapter=Adapter(policy="continue", form="full"))
    for first, second in ((low, full), (full, low)):
        with pytest.raises(ConfigError, match=f"first has '{first.adapter.form}' as adapter, the second"):
            compose(first, second)
    assert compose(full, replace(full, name="again")).adapter == full.adapter


def test_single_roles_come_from_whichever_side_fills_them() -> None:
    for two in ((mtl(mixing="equal"), mtl()), (mtl(), mtl(mixing="equal"))):
        assert compose(*two).mixing == "equal"
    rows = parse("replay")
    for two in ((rows, seqlora()), (seqlora(), rows)):
        assert compose(*two).rehearsal == rows.rehearsal
    ruled = parse("kif")
    for two in ((ruled, seqlora()), (seqlora(), ruled)):
        assert (compose(*two).rule, compose(*two).rehearsal) == (ruled.rule, ruled.rehearsal)
    other = replace(ruled, name="other", rule=replace(ruled.rule, inner=ruled.rule.inner + 1))  # type: ignore[type-var,union-attr]
    with pytest.raises(ConfigError, match=r"the first has inner=\d+ as rule for blocks of steps, the second inner="):
        compose(ruled, other)


def test_masks_act_before_projections_however_they_are_typed() -> None:
    for text in ("o-lora+project-out+migu", "o-lora+migu+project-out"):
        assert [part.name for part in parse(text).transforms] == ["magnitude_mask", "project_out"]


# --- the record ------------------------------------------------------------------------------------------------------


def test_roles_that_came_later_stand_in_the_record_where_they_are_filled() -> None:
    """Runs made before keep their hash: nothing of these keys stands in theirs."""
    later = {"outputs", "rehearsal", "rule", "mixing"}
    assert not later & ella().describe().plain().keys()
    found = parse("kif+lwf").describe().plain()
    assert later & found.keys() == {"outputs", "rehearsal", "rule"}
    assert [part["part"] for part in found["outputs"]] == ["distil"]  # type: ignore[index,union-attr,call-overload]
    assert found["rehearsal"]["part"] == "row_replay"  # type: ignore[index,call-overload]
    assert found["rule"]["part"] == "fusion"  # type: ignore[index,call-overload]
    joint = mtl(mixing="equal").describe().plain()
    assert (joint["mixing"], joint["regime"], later & joint.keys()) == ("equal", "joint", {"mixing"})


def test_an_option_that_was_renamed_is_recorded_under_its_first_name() -> None:
    found = parse("mtl-buffer").describe().plain()["rehearsal"]
    assert isinstance(found, dict)
    assert (found["alone"], "rehearsed_only" in found) == (True, False)
