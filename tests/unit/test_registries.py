"""One registry by itself: what it imports and when, whose names are whose, and what is forgotten again."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from everlora.core import plugins
from everlora.core.errors import ConfigError
from everlora.core.registry import KINDS, Registry, origins

OURS = """
from everlora.core.registry import KINDS
KINDS["gadget"].add("Egg-Timer", 1, module="everlora.gadgets", aliases=("timer", "clock"))
"""


@pytest.fixture
def gadgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry[int]:
    """A registry of a kind of its own, whose own module was not imported yet."""
    monkeypatch.setattr(plugins, "_broken", {})
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setitem(KINDS, "gadget", None)
    (tmp_path / "gadgets_of_ours.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    return Registry("gadget", own="gadgets_of_ours")


def test_ours_are_imported_at_the_first_look_at_a_name(gadgets: Registry[int]) -> None:
    assert not gadgets.loaded
    assert gadgets.words() == []
    assert [gadgets.find(name) for name in ("egg timer", "EGG_TIMER", "clock", "watch")] == [1, 1, 1, None]
    assert gadgets.loaded
    assert gadgets.words() == ["clock", "timer", "Egg-Timer"]
    assert (gadgets.from_outside(), gadgets.origin("timer"), gadgets.origin("watch")) == ([], None, None)


def test_ours_are_imported_for_a_list_of_all(gadgets: Registry[int]) -> None:
    assert gadgets.all() == {"Egg-Timer": 1}


def test_a_name_of_ours_is_taken_before_anybody_has_looked(gadgets: Registry[int]) -> None:
    """A plug-in file may be the first that touches the registry."""
    for words in (("clock",), ("watch", "EggTimer")):
        with pytest.raises(ConfigError, match=f"the gadget name '{words[-1]}' is taken by 'Egg-Timer'"):
            gadgets.add(words[0], 2, module="theirs", aliases=words[1:])
    assert (gadgets.all(), gadgets.from_outside()) == ({"Egg-Timer": 1}, [])
    gadgets.add("watch", 2, module="theirs")
    assert (gadgets.get("watch"), gadgets.from_outside()) == (2, ["watch"])
    assert gadgets.origin("watch") == {"module": "theirs"}
    assert origins(gadget=["timer", "watch", "watch", "lost"], widget=["watch"]) == [
        {"gadget": "watch", "module": "theirs"}
    ]


def test_the_same_name_from_the_same_module_replaces_and_from_another_is_refused(gadgets: Registry[int]) -> None:
    """A notebook's cell is run again."""
    for thing in (2, 3):
        gadgets.add("watch", thing, module="theirs", aliases=("wrist-watch",))
    assert (gadgets.get("WristWatch"), gadgets.words()[-2:]) == (3, ["wrist-watch", "watch"])
    with pytest.raises(ConfigError, match="the gadget name 'watch' is taken by 'watch'"):
        gadgets.add("watch", 4, module="others")
    assert gadgets.get("watch") == 3


def test_what_was_registered_in_a_test_is_forgotten_and_ours_are_not(gadgets: Registry[int]) -> None:
    with gadgets.isolated():
        gadgets.add("watch", 2, module="theirs")
        assert list(gadgets.all()) == ["Egg-Timer", "watch"]
    assert gadgets.all() == {"Egg-Timer": 1}
    assert (gadgets.find("watch"), gadgets.find("clock"), gadgets.from_outside()) == (None, 1, [])
    assert gadgets.words() == ["clock", "timer", "Egg-Timer"]


def test_packages_are_looked_at_for_a_list_and_for_a_name_that_is_not_ours(
    gadgets: Registry[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "offered.py").write_text('KINDS["gadget"].add("watch", 2, module="offered")\n')
    looked: list[str] = []

    def points(*, group: str) -> list[EntryPoint]:
        looked.append(group)
        return [EntryPoint("lost", "offered", group)]

    monkeypatch.setattr(plugins, "entry_points", points)
    assert plugins.may_offer(gadgets.group) is True
    assert gadgets.find("timer") == 1
    assert looked == ["everlora.gadgets"]
    assert list(gadgets.all()) == ["Egg-Timer"]
    assert looked == ["everlora.gadgets"] * 2
    with pytest.raises(ConfigError) as caught:
        gadgets.get("wotch")
    assert str(caught.value) == (
        "unknown gadget 'wotch'; known: Egg-Timer, clock, timer (everlora gadgets lists them); the plug-in 'lost' "
        "(offered) could not be loaded and is left out: NameError: name 'KINDS' is not defined"
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    assert plugins.may_offer(gadgets.group) is False
