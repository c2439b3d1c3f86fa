"""Twelve everyday wishes, each of which `everlora --help` leads to one verb with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from everlora.cli.app import run_command

DOCS = Path(__file__).parents[2] / "docs" / "learner.md"


def table() -> dict[str, tuple[str, list[str]]]:
    """The wishes, the verb of each, and the words of it that lead there."""
    text = DOCS.read_text("utf-8").partition("## Twelve wishes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| `(\w+)` \|$", text, re.MULTILINE)
    return {wish: (verb, re.findall(r"\*\*(.+?)\*\*", wish)) for wish, verb in rows}


def help_lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert run_command(["--help"]) == 0
    said = capsys.readouterr().out.partition("Commands:\n")[2]
    return dict(re.findall(r"^  ([\w-]+) +(.+)$", said, re.MULTILINE))


def says(line: str, words: list[str]) -> bool:
    """Whether a line has all words, scored as it may stand in a sentence: ``score`` for ``scores``."""
    return all(re.search(rf"\b{re.escape(word.removesuffix('s'))}s?\b", line, re.IGNORECASE) for word in words)


def test_there_are_twelve_and_each_is_a_verb_of_its_own() -> None:
    verbs = [verb for verb, _ in table().values()]
    assert len(verbs) == len(set(verbs)) == 12


@pytest.mark.parametrize("wish", table())
def test_the_words_of_a_wish_lead_to_its_verb_and_to_no_other(wish: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, words = table()[wish]
    assert words
    assert [name for name, line in help_lines(capsys).items() if says(line, words)] == [verb]
