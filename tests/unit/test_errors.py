"""Errors that a user can act on: one line that is not too long, an exit status, and the name that was meant."""

from __future__ import annotations

import pytest

from everlora.core import errors
from everlora.core.errors import LONGEST, EverloraError, closest, nearest


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("EverloraError", 2),
        ("ConfigError", 2),
        ("DataError", 2),
        ("ModelError", 2),
        ("FolderError", 2),
        ("TrainingError", 3),
        ("Interrupted", 130),  # 128 and the number of the signal, as shells have it
    ],
)
def test_the_exit_status_says_what_kind_of_error_it_was(kind: str, status: int) -> None:
    error = getattr(errors, kind)("what is wrong;\n what to do")
    assert isinstance(error, EverloraError)
    assert error.status == status
    assert str(error) == "what is wrong; what to do"


def test_a_message_that_is_too_long_loses_its_middle() -> None:
    assert LONGEST == 1500
    whole = "a" * 750 + "b" * 250 + "c" * 500
    assert str(EverloraError(whole)) == whole
    longer = "a" * 750 + "b" * 251 + "c" * 500
    assert str(EverloraError(longer)) == "a" * 750 + " … " + "c" * 500


def test_the_name_that_was_meant() -> None:
    assert closest("ELAL", ["ella", "o-lora"]) == "ella"
    assert closest("zzz", ["ella", "o-lora"]) is None
    # Three letters of five are alike, 2 · 3 / (5 + 5) = .6; of two, .4.
    assert closest("abcde", ["abcxy"]) == "abcxy"
    assert closest("abcde", ["abwxy"]) is None
    assert nearest("elal", ["o-lora", "ella"]) == "; did you mean 'ella'?"
    assert nearest("zzz", ["o-lora", "ella"]) == "; known: ella, o-lora"
