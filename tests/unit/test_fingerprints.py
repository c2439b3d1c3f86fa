"""Fingerprints: what is part of them, how rows of a resumed run are told apart, what differs in words."""

from __future__ import annotations

from typing import Any

from everlora.archive.fingerprints import differing, digest, of_rows


def made(torch: str = "2.9", weights: str = "float32", invariant: bool | None = True) -> dict[str, Any]:
    return {
        "backend": "torch",
        "weights": weights,
        "batch_invariant": invariant,
        "versions": {"torch": torch, "peft": "0.18"},
    }


def test_what_was_seen_is_no_part_of_the_hash_and_all_else_is() -> None:
    assert digest(made(invariant=None)) == digest(made())
    assert len({digest(made()), digest(made(torch="3")), digest(made(weights="bfloat16"))}) == 3


def test_rows_of_a_run_that_went_on_elsewhere() -> None:
    one, two = made(), made(torch="3")
    found = of_rows([{"fingerprint": one}, {}, {"fingerprint": two}])
    assert found == {"rows": [digest(one), None, digest(two)], "of": {digest(one): one, digest(two): two}}


def test_a_batch_that_once_changed_an_answer_is_not_forgotten() -> None:
    for seen, said in (((True, False, True), False), ((None, True), True), ((False, None), False), ((None,), None)):
        (one,) = of_rows([{"fingerprint": made(invariant=value)} for value in seen])["of"].values()
        assert one["batch_invariant"] is said
    assert made() == made()  # the facts themselves are not touched
    facts = {"fingerprint": made(invariant=True)}
    of_rows([facts, {"fingerprint": made(invariant=False)}])
    assert facts == {"fingerprint": made(invariant=True)}


def test_the_difference_in_words() -> None:
    assert differing(made(), made(torch="3", weights="bfloat16", invariant=False)) == [
        "torch 2.9 and 3",
        "weights float32 and bfloat16",
    ]
    assert differing(made(), made(invariant=None)) == []
    assert differing({}, made()) == ["one of them, of an older everlora, does not say how"]
