"""Fingerprints: what is part of them, how rows of a resumed run are told apart, what differs in words."""

from __future__ import annotations

from everlora.archive.commits import Commit
from everlora.archive.fingerprints import differing, digest, fingerprints_of
from everlora.archive.records import Fingerprint


def made(torch: str = "2.9", weights: str = "float32", invariant: bool | None = True) -> Fingerprint:
    return Fingerprint(
        backend="torch",
        weights=weights,
        device="cpu",
        attention="sdpa",
        scoring="labels",
        batch_invariant=invariant,
        versions={"torch": torch, "peft": "0.18"},
    )


def committed(fingerprint: Fingerprint | None) -> Commit:
    return Commit(
        run="r", number=1, name="a", files={}, row=[], data={}, labels=[], seconds=0.0, warning=None, strengths={},
        cut=0, fingerprint=fingerprint,
    )  # fmt: skip


def test_what_was_seen_is_no_part_of_the_hash_and_all_else_is() -> None:
    assert digest(made(invariant=None)) == digest(made())
    more = Fingerprint.model_validate({**made().plain(), "kernels": "triton"})  # of a later version
    assert len({digest(made()), digest(made(torch="3")), digest(made(weights="bfloat16")), digest(more)}) == 4


def test_rows_of_a_run_that_went_on_elsewhere() -> None:
    one, two = made(), made(torch="3")
    found = fingerprints_of([committed(one), committed(None), committed(two)])
    assert found.rows == [digest(one), None, digest(two)]
    assert found.of == {digest(one): one, digest(two): two}


def test_a_batch_that_once_changed_an_answer_is_not_forgotten() -> None:
    for seen, kept in (((True, False, True), False), ((None, True), True), ((False, None), False), ((None,), None)):
        (one,) = fingerprints_of([committed(made(invariant=value)) for value in seen]).of.values()
        assert one.batch_invariant is kept


def test_the_difference_in_words() -> None:
    assert differing(made(), made(torch="3", weights="bfloat16", invariant=False)) == [
        "torch 2.9 and 3",
        "weights float32 and bfloat16",
    ]
    assert differing(made(), made(invariant=None)) == []
    assert differing(None, made()) == ["one of them, of an older everlora, does not say how"]
