"""Methods and plug-ins together: what joins, what excludes one another, and what the message says."""

from __future__ import annotations

import re
from itertools import permutations

import pytest

from everlora.core.adapter import Adapter, Consolidator
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.core.method import Method, compose
from everlora.core.registry import Entry, entries
from everlora.core.roles import Merge
from everlora.methods.ella import ella
from everlora.methods.inclora import inclora
from everlora.methods.lbcl import b_cl, l_cl, lb_cl, nlnb_cl, project_out
from everlora.methods.merging import dare, mean_merge, ties
from everlora.methods.olora import olora
from everlora.methods.pslora import ps_merge, pslora
from everlora.methods.seqlora import seqlora
from everlora.parts.blend import SensitivityBlend
from everlora.parts.merges import LargestMagnitude
from everlora.parts.penalties import EnergyOverlap, Orthogonality
from everlora.parts.signs import SignConflict
from everlora.parts.subspace import OrthonormalTriplets, ProjectOut

SVD = Adapter(policy="new", form="svd")


def kinds(method: Method) -> list[type]:
    return [type(part) for part in method.parts()]


# --- what joins ------------------------------------------------------------------------------------------------------


def test_the_plug_in_of_the_paper_on_olora() -> None:
    method = parse("ps-lora+o-lora(norm_lam=0.1)")
    assert method.penalties == pslora().penalties + olora(norm_lam=0.1).penalties
    assert method.merge == LargestMagnitude()
    assert method.adapter == inclora().adapter
    assert not method.task_id_at_inference
    assert parse("o-lora(norm_lam=0.1)+ps-lora").describe().plain()["merge"] == method.describe().plain()["merge"]


def test_a_merge_plugs_into_any_method_that_sums() -> None:
    for host in (inclora(), olora(), ella(), lb_cl(), nlnb_cl()):
        for plug in (ps_merge(), mean_merge(), ties(), dare()):
            for method in (compose(host, plug), compose(plug, host)):
                assert method.merge == plug.merge
                assert method.penalties == host.penalties
                assert method.adapter == host.adapter
                assert method.initialiser == host.initialiser
    assert kinds(parse("o-lora+ps-merge")) == [Orthogonality, LargestMagnitude]
    assert parse("ps-lora+ps-merge").merge == LargestMagnitude()  # the same merge twice is once


def test_a_plug_in_on_a_host_is_no_plug_in_any_more() -> None:
    """Else a third method would take the place of the host, where it excludes it."""
    for text in ("migu+o-lora", "o-lora+migu", "replay+o-lora"):
        assert not parse(text).plugin, text
        assert parse(f"{text}+inclora").adapter == olora().adapter
        with pytest.raises(ConfigError, match=f"'{re.escape(text)}' and 'seqlora' exclude one another"):
            parse(f"{text}+seqlora")
    assert parse("migu+replay").plugin
    assert parse("migu+replay+o-lora").consolidator == olora().consolidator


PLUG_INS = ["kfac", "replay", "migu"]


def test_all_plug_ins_are_among_those_that_are_joined() -> None:
    assert sorted(known.name for known in entries() if parse(known.name).plugin) == sorted(PLUG_INS)


@pytest.mark.parametrize("several", [*permutations(PLUG_INS, 2), *permutations(PLUG_INS)], ids="+".join)
def test_plug_ins_join_one_another_in_any_order(several: tuple[str, ...]) -> None:
    """By themselves on fresh adapters, if one of them takes these, and as typed on whatever hosts them."""
    text, parts = "+".join(several), {part for one in several for part in parse(one).parts()}
    host = inclora() if "kfac" in several else seqlora()
    assert (parse(text).adapter, parse(text).consolidator) == (host.adapter, host.consolidator)
    assert set(parse(text).parts()) == parts
    assert parse(text).named("x") == parse(f"{host.name}+{text}").named("x")
    assert parse(f"{text}+seqlora").named("x") == parse(f"seqlora+{text}").named("x")


def test_what_one_member_declares_holds_of_the_composition() -> None:
    for one, other in (("mtl(mixing=equal)", "mtl"), ("mtl", "mtl(mixing=equal)")):
        assert parse(f"{one}+{other}").mixing == "equal"
    assert parse("mtl+mtl").mixing == "proportional"
    seen, unseen = Method(name="seen", replay=True), Method(name="unseen")
    assert compose(seen, unseen).sees_again
    assert compose(unseen, seen).sees_again
    assert not compose(unseen, unseen).sees_again


def test_stability_loss_and_merge_come_apart() -> None:
    assert kinds(parse("ps-lora(merge=no)")) == [SignConflict]
    assert kinds(parse("ps-merge")) == [LargestMagnitude]
    assert parse("ps-lora(merge=no)+ps-merge").named("ps-lora") == parse("ps-lora")


def test_svd_form_wins_over_plain_form() -> None:
    for text in ("l-cl+ella", "ella+l-cl", "o-lora+b-cl", "nlnb-cl+inclora", "ella+o-lora+lb-cl"):
        assert parse(text).adapter == SVD
    assert kinds(parse("l-cl+ella")) == [SensitivityBlend, OrthonormalTriplets, EnergyOverlap]
    assert kinds(parse("ella+l-cl")) == [SensitivityBlend, EnergyOverlap, OrthonormalTriplets]
    assert parse("ella+nlnb-cl(scale=alpha)").adapter == Adapter(policy="new", form="svd", unit=False)


def test_lbcl_is_its_two_halves() -> None:
    assert compose(l_cl(), b_cl()).named("lb-cl") == lb_cl()
    assert parse("b-cl + l-cl").named("lb-cl") == lb_cl()
    assert kinds(lb_cl()) == [SensitivityBlend, OrthonormalTriplets, ProjectOut]
    assert kinds(nlnb_cl()) == [OrthonormalTriplets]
    assert compose(nlnb_cl(), project_out()).named("b-cl") == b_cl()
    assert kinds(parse("o-lora+project-out(strict=yes)")) == [Orthogonality, ProjectOut]


def test_an_expression_is_the_composition_in_python() -> None:
    text = "lb-cl(samples=4, projection=literal, gamma=0.2) + ella(lam=auto, rho=0.2) + dare(density=0.3, seed=7)"
    typed = parse(text)
    built = compose(
        lb_cl(samples=4, projection="literal", gamma=0.2), ella(lam="auto", rho=0.2), dare(density=0.3, seed=7)
    )
    assert typed == built
    assert typed.name == "lb-cl+ella+dare"
    assert typed.describe() == built.describe()


@pytest.mark.parametrize("known", entries(), ids=lambda known: known.name)
def test_a_method_and_itself_is_itself(known: Entry) -> None:
    assert parse(f"{known.name}+{known.name}").named(known.name) == parse(known.name)


def test_order_has_no_meaning_for_single_roles_and_sets_of_penalties() -> None:
    names = ["ella", "o-lora", "l-cl", "b-cl", "ps-lora", "project-out"]
    for one in names:
        for other in names:
            a, b = parse(f"{one}+{other}"), parse(f"{other}+{one}")
            for role in ("regime", "adapter", "consolidator", "initialiser", "merge"):
                assert getattr(a, role) == getattr(b, role)
            assert set(a.penalties) == set(b.penalties)
            assert set(a.transforms) == set(b.transforms)


# --- what does not ---------------------------------------------------------------------------------------------------

APART = [
    ("mtl", "ella", "'joint' as regime, the second 'sequence'"),
    ("zero-shot", "o-lora", "'frozen' as regime, the second 'sequence'"),
    ("mtl", "ps-merge", "regime"),
    ("zero-shot", "mtl", "regime"),
    ("seqlora", "ps-merge", "consolidator"),
    ("seqlora", "o-lora", "consolidator"),
    ("seqlora", "lb-cl", "consolidator"),
    ("seqlora", "project-out", "consolidator"),
    ("per-task", "ps-merge", "'keep'.* as consolidator, the second .*'sum'"),
    ("per-task", "seqlora", "consolidator"),
    ("ella(policy=continue)", "o-lora", "consolidator"),
    ("ella(policy=continue)", "ella", "consolidator"),
    ("ella(policy=continue)", "l-cl", "consolidator"),
    ("ps-merge", "ties", "as merge"),
    ("ties", "ties(density=0.5)", "as merge"),
    ("ps-lora", "mean-merge", "as merge"),
    ("ps-lora", "ps-merge(infer=sum)", "as merge"),
    ("nlnb-cl(scale=unit)", "b-cl(scale=alpha)", "unit=True.* as adapter, the second .*unit=False"),
    ("l-cl(samples=4)", "lb-cl", "as initialiser"),
]


@pytest.mark.parametrize(("one", "other", "words"), APART)
def test_single_roles_exclude_one_another_and_the_message_names_both(one: str, other: str, words: str) -> None:
    for first, second in ((one, other), (other, one)):
        with pytest.raises(ConfigError, match=r"exclude one another.*keep one of them") as caught:
            parse(f"{first}+{second}")
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"'{first.partition('(')[0]}' and '{second.partition('(')[0]}' exclude")
    with pytest.raises(ConfigError, match=words):
        parse(f"{one}+{other}")


@pytest.mark.parametrize("host", ["data", "l2p", "progprompt", "lfpt5", "osf", "sd-lora"])
def test_a_mask_of_rows_wants_rows_that_answer(host: str) -> None:
    """A row of B answers as an output of its layer; one of a prompt, a gate or PEFT's factors as none."""
    for text in (f"{host}+migu", f"migu+{host}"):
        with pytest.raises(
            ConfigError, match=r"'magnitude_mask' looks at the outputs.*they make none; take"
        ) as caught:
            parse(text)
        assert "\n" not in str(caught.value)
    for hosted in ("seqft", "o-lora", "nlnb-cl", "lwf", "replay"):
        assert "magnitude_mask" in [part.name for part in parse(f"{hosted}+migu").parts()]


def test_what_remembers_earlier_tasks_has_no_use_where_each_stands_alone() -> None:
    for text in ("kfac+per-task", "single+kfac(lam=1e6)"):
        with pytest.raises(
            ConfigError, match=r"remembers earlier tasks for later ones, and in '.*' each stands alone"
        ):
            parse(text)
    assert parse("migu+per-task").independent_tasks, "what looks at the newest task alone may join"


def test_of_two_parts_of_a_kind_only_what_differs_is_told() -> None:
    with pytest.raises(ConfigError, match=r"the first has ratio=0\.02 as rehearsal, the second ratio=0\.1; keep"):
        parse("replay+replay(ratio=0.1)")
    with pytest.raises(ConfigError, match=r"the first has low=4 as adapter, the second low=8; keep"):
        parse("data+data(low=8)")


def test_a_third_method_is_measured_against_those_before_it() -> None:
    with pytest.raises(ConfigError, match=r"'ella\+o-lora' and 'seqlora' exclude one another"):
        parse("ella+o-lora+seqlora")
    with pytest.raises(ConfigError, match=r"'inclora\+ties' and 'ps-merge' exclude one another.*as merge"):
        parse("inclora+ties+ps-merge")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("ella+ella(store=svd)", "energy_overlap"),
        ("ella(lam=0.3)+ella", "energy_overlap"),
        ("ps-lora+ps-lora(sharpness=2)", "sign_conflict"),
        ("b-cl+b-cl(strict=yes)", "project_out"),
        ("lb-cl+project-out(projection=literal)", "project_out"),
        ("nlnb-cl+b-cl(gamma=0.5)", "orthonormal_triplets"),
    ],
)
def test_one_part_with_two_settings_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"'{part}' is given twice, as .* and as .*; keep one") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


ALONE = [
    (
        dict(penalties=(Orthogonality(),)),
        r"'orthogonality' needs a fresh adapter.*'mine' trains one adapter",
    ),
    (dict(transforms=(ProjectOut(),)), r"'project_out' needs a fresh adapter"),
    (dict(initialiser=SensitivityBlend()), r"'sensitivity_blend' needs a fresh adapter"),
]


@pytest.mark.parametrize(("parts", "words"), ALONE)
def test_parts_that_need_a_fresh_adapter_say_so(parts: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Method(name="mine", adapter=Adapter(policy="continue"), consolidator=Consolidator(rule="continue"), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts", [dict(penalties=(OrthonormalTriplets(),)), dict(initialiser=SensitivityBlend())], ids=str
)
def test_parts_that_work_on_triplets_need_triplets(parts: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"works on triplets.*SVD form"):
        Method(name="mine", **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "words"), [("continue", "only one adapter"), ("keep", "apart by task id")])
@pytest.mark.parametrize("merge", [ps_merge().merge, ties().merge])
def test_only_what_is_summed_can_be_merged(merge: Merge, rule: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"'{merge.name}' merges the updates.*'mine'.*{words}") as caught:
        Method(name="mine", consolidator=Consolidator(rule=rule), merge=merge)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("regime", ["joint", "frozen"])
@pytest.mark.parametrize("parts", [dict(penalties=(EnergyOverlap(),)), dict(merge=ps_merge().merge)], ids=str)
def test_parts_act_from_task_to_task(parts: dict[str, object], regime: str) -> None:
    with pytest.raises(ConfigError, match="cannot act in 'mine', which does not learn task after task"):
        Method(name="mine", regime=regime, **parts)  # type: ignore[arg-type]


def test_one_adapter_trained_on_still_takes_what_looks_at_its_change() -> None:
    assert ella(policy="continue").adapter == seqlora().adapter
    assert compose(seqlora(), ella(policy="continue")).penalties == ella().penalties
    assert parse("ella(policy=continue)+seqlora").consolidator == seqlora().consolidator


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ps-lora(sharpnes=1)", "'ps-lora' has no option 'sharpnes'; did you mean 'sharpness'"),
        ("lb-cl(sample=4)", "'lb-cl' has no option 'sample'; did you mean 'samples'"),
        ("lb-cl(projections=joint)", "did you mean 'projection'"),
        ("ella(storage=svd)", "did you mean 'store'"),
        ("ties(densty=0.3)", "'ties' has no option 'densty'; did you mean 'density'"),
        ("ps-merge(lam=1)", "'ps-merge' has no option 'lam'"),
        ("ps-lora(infer=both)", "option 'infer'.*'sum' or 'merged'.*'both'"),
        ("ella(store=fp8)", "option 'store'.*'factors', 'dense', 'svd' or 'int8'.*'fp8'"),
        ("ella(policy=old)", "option 'policy'.*'new' or 'continue'.*'old'"),
        ("lb-cl(samples=many)", "option 'samples'.*integer.*'many'"),
        ("lb-cl(samples=2.5)", "option 'samples'.*integer"),
        ("lb-cl(top_layers=0)", "'sensitivity_blend' counts blocks from the top"),
        ("b-cl(strict=perhaps)", "option 'strict'.*boolean.*'perhaps'"),
        ("dare(density=half)", "option 'density'.*number.*'half'"),
        ("ella(lam=auto0)", "option 'lam'.*'auto0'"),
        ("ewc(rho=0.1)", "nothing to find: write lam=auto, or leave"),
        ("ps-lora(sharpness=sqrt)", "option 'sharpness'.*'sqrt'"),
        ("lbcl-(samples=0)", "at least one sample"),
        ("pslor", "unknown method 'pslor'; did you mean 'ps-lora'"),
        ("lb-c1", "unknown method 'lb-c1'; did you mean 'lb-cl'"),
    ],
)
def test_slips_are_named_with_what_was_meant(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["ella(lam=much)", "ps-lora(lam=)", "ps-lora(sharpness=sqrt)"])
def test_of_an_option_with_a_word_among_numbers_the_word_is_offered(text: str) -> None:
    word = "rms" if "sharpness" in text else "auto"
    with pytest.raises(ConfigError, match=f"option '(lam|sharpness)'.*number.*{word}"):
        parse(text)


@pytest.mark.parametrize("option", ["infer=sum", "train_past=merged"])
def test_views_of_a_merge_that_is_not_there_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="with merge=no there is none"):
        parse(f"ps-lora(merge=no, {option})")
    assert parse("ps-lora(merge=no)").merge is None
