"""The commands about pages: what they write and where, what they refuse; and the page that other commands leave."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from everlora.cli import report as reporting

from .conftest import Everlora

PAGE = "report.html"


def test_a_run_leaves_a_page_unless_it_is_told_not_to(small: Everlora, everlora: Everlora, monkeypatch: Any) -> None:
    monkeypatch.setenv("EVERLORA_REPORT", "1")
    done = small("--method", "inclora", "--out", "a", "--json")
    assert done.json["folder"] == "a"  # the last line is what it was
    assert done.err.splitlines()[-1] == f"look at it: a/{PAGE}"
    assert Path("a", PAGE).stat().st_size > 10_000
    assert everlora("verify", "a").status == 0
    assert small("--method", "inclora", "--out", "b", "--no-report").status == 0
    assert not Path("b", PAGE).exists()
    assert everlora("report", "a", "-o", "other.html").out.startswith("written to other.html (")
    assert Path("other.html").is_file()


def test_no_page_is_left_where_the_packages_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(reporting, "find_spec", lambda name: None if name == "altair" else found(name))
    reporting.leave_report(tmp_path, wanted=True)
    assert list(tmp_path.iterdir()) == []


def test_too_many_answers_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reporting, "MOST_BYTES", 3)
    (tmp_path / "predictions.jsonl").write_text("1234")
    reporting.leave_report(tmp_path, wanted=True)
    assert capsys.readouterr().err == f"a page of so many answers takes a while: everlora report {tmp_path}\n"


def test_what_is_wrong_with_a_page_ends_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporting.leave_report(tmp_path, wanted=True)
    assert capsys.readouterr().err.startswith(f"no page was made: {tmp_path} holds no run of everlora")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "gone"], "gone holds no run of everlora"),
        (["figure", "nope", "gone"], "unknown figure 'nope'"),
        (["figure", "cost-table", "gone"], "gone holds no run of everlora"),
        (["figure", "cost-table", "gone", "-o", "a.doc"], "a.doc names no form of a figure; let it end in .svg"),
    ],
)
def test_what_cannot_be_shown_is_one_line(words: list[str], said: str, everlora: Everlora) -> None:
    assert said in everlora(*words).line


def test_figures_are_listed(everlora: Everlora) -> None:
    names = [one["name"] for one in everlora("figures", "--json").json]
    listed = everlora("figures").out
    assert "bwt-over-tasks" in names
    assert all(name in listed for name in names)


def test_a_figure_of_ones_own_comes_with_a_plug_in(everlora: Everlora) -> None:
    Path("own.py").write_text(
        "from everlora.report.figures import figure\n"
        "@figure('own', paper='ours', where='here', title='t', needs='nothing')\n"
        "def own(paths):\n"
        "    raise AssertionError\n"
    )
    assert "own" in [one["name"] for one in everlora("figures", "--plugin", "own.py", "--json").json]
    from everlora.report.figures import _KNOWN

    del _KNOWN["own"]
