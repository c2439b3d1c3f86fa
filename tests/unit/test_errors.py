"""Errors that a user can act on: one line that is not too long, an exit status, and the name that was meant."""

from __future__ import annotations

import signal

import pytest

from everlora.core import errors
from everlora.core.errors import (
    LONGEST,
    ConfigError,
    EverloraError,
    Interrupted,
    TrainingError,
    closest,
    nearest,
    printable,
)


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


def test_of_a_long_message_the_middle_is_left_out() -> None:
    """Half of what fits is its beginning and a third its end, where it says what to do."""
    begin, end = "b" * 750, "e" * 500
    fits = begin + "m" * 250 + end
    assert str(EverloraError(fits)) == fits
    assert str(EverloraError(f"{begin}m{fits[750:]}")) == f"{begin} … {end}"


def test_a_message_is_one_line_that_a_terminal_shows() -> None:
    assert str(EverloraError("two\n  lines\tof\x1b[31m red\x7f")) == "two lines of\\u001b[31m red\\u007f"
    assert printable("plain\n\ttext") == "plain\n\ttext"


def test_exit_statuses() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EverloraError)]
    assert len(kinds) == 7
    assert {kind.status for kind in kinds if kind not in (TrainingError, Interrupted)} == {2}
    assert TrainingError.status == 3  # earlier tasks are intact: a script may resume
    assert Interrupted.status == 128 + signal.SIGINT  # as shells have it


@pytest.mark.parametrize(
    ("name", "found"), [("abcde", "abcdx"), ("ABCDE", "abcdx"), ("abcyz", "abcdx"), ("abpqr", None), ("", None)]
)
def test_the_closest_name_shares_most_of_its_letters(name: str, found: str | None) -> None:
    """Three letters of five are enough, two are not."""
    assert closest(name, ["zzzzz", "abcdx"]) == found


def test_where_no_name_is_near_all_are_listed() -> None:
    assert nearest("ella", ["o-lora", "elma"]) == "; did you mean 'elma'?"
    assert nearest("q", iter(["b", "a"])) == "; known: a, b"
    assert issubclass(ConfigError, EverloraError)
