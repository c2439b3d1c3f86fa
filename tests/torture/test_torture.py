"""A sample of what ``make torture`` does: faults at changes of a folder, damage to files, wrong base models."""

from __future__ import annotations

from pathlib import Path

import pytest

import everlora
from torture.acts import killed_everywhere, tortured
from torture.damage import tried
from torture.pairings import loads, pairings

SAMPLE = [
    ("init", 4, 8),
    ("learn", 12, 5),
    ("forget, schedule forward", 90, 1),
    ("compact", 90, 1),
    ("export --to peft", 10, 1),
    ("verify --repair", 25, 1),
]
"""Acts, and at every how many of their changes there is a fault, and from how many folders they are gone on with."""


@pytest.mark.parametrize(("act", "every", "states"), SAMPLE)
def test_a_fault_leaves_a_folder_that_goes_on(act: str, every: int, states: int, tmp_path: Path) -> None:
    outcome = tortured(act, tmp_path / "learner", every, states)
    assert outcome.wrong == []
    assert outcome.ends.get("traceback", 0) == 0
    assert outcome.points > 15
    assert outcome.states >= 3


def test_a_process_that_is_killed_leaves_a_folder_that_goes_on(tmp_path: Path) -> None:
    kills, wrong = killed_everywhere("learn", tmp_path / "learner", 40)
    assert wrong == []
    assert kills >= 2


def test_every_damage_is_noticed_by_verify_and_by_the_verbs_that_read_the_file(tmp_path: Path) -> None:
    tries, noticed, used, refused, missed = tried(tmp_path, everlora.load("tiny-llama"))
    assert missed == []
    assert (noticed, refused) == (tries, used)
    assert tries.total() > 200


def test_no_learner_is_loaded_on_another_base_model(tmp_path: Path) -> None:
    wrong = [(name, loads(learner, here)) for name, learner, here in pairings(tmp_path)]
    assert len(wrong) >= 50
    assert [name for name, loaded in wrong if loaded] == []
