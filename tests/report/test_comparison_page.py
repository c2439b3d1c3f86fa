"""The page of several runs: the table, what nothing tells apart, what was left out, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everlora.analysis.answers import read
from everlora.analysis.tables import compare
from everlora.core.errors import ConfigError, FolderError
from everlora.report.comparison_page import comparison_page
from everlora.report.page import Page
from everlora.report.write import Allowed, write_report

from .made import TASKS, forgets, make_run
from .test_run_page import Seen

EVIL = "<script>alert('x')</script>"


def lasts(stage: int, task: int, row: int) -> bool:
    return row % 8 > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method that keeps nearly all and one that loses a third, on two orders and three seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    for order, tasks in enumerate((TASKS, TASKS[::-1])):
        for seed in range(3):
            make_run(folder / f"ella-{order}-{seed}", tasks, seed=seed, rows=48, right=lasts)
            make_run(folder / f"inclora-{order}-{seed}", tasks, method="inclora", seed=seed, rows=48)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    runs = [read(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    return comparison_page(runs, compare(runs, resamples=200))


def section(page: Page, name: str) -> list[list[str]]:
    found = next(one for one in page.sections if one.name == name)
    return [[cell.text for cell in row] for row in found.tables[0].rows]


def test_the_table_says_what_can_be_told_apart(page: Page) -> None:
    (table,) = next(one for one in page.sections if one.name == "methods").tables
    rows = {row[0].text: row for row in table.rows}
    oa = table.heads.index("OA")
    assert rows["ella"][oa].text == "87.5"
    assert rows["ella"][oa].kind == "best"
    assert rows["inclora"][oa].text == "77.8"
    assert rows["inclora"][oa].kind == "number"
    assert rows["inclora"][table.heads.index("OA − best")].text == "−9.7"


def test_every_task_and_every_run_has_its_place(page: Page) -> None:
    assert [row[0] for row in section(page, "tasks")] == ["ella", "inclora"]
    assert len(section(page, "folders")) == 12
    figures = [figure.name for one in page.sections for figure in one.figures]
    assert figures == ["methods", "stability-plasticity", "runs", "curves"]
    runs = next(one for one in page.sections if one.name == "runs").figures[0]
    assert {row[1].text for row in runs.table.rows} == {"order 1", "order 2"}


def test_cost_is_set_against_plain_lora(page: Page) -> None:
    table = next(one for one in page.sections if one.name == "cost").tables[0]
    assert table.heads[2] == "times inclora"
    assert [row[2].text for row in table.rows] == ["1.00", "1.00"]


def test_tables_of_all_forms_can_be_taken_along(page: Page) -> None:
    assert set(page.files) == {"comparison.csv", "comparison.md", "comparison.tex"}
    assert "ella" in page.files["comparison.tex"]
    assert [one["group"] for one in page.data["record"]["sections"]] == ["replay-free"]  # type: ignore[index,call-overload,union-attr]


def test_a_folder_of_runs_gets_a_page_with_links_to_theirs(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"{seed}", ("a",), seed=seed)
    place = write_report([folder := tmp_path], each=True)
    seen = Seen(place.read_text(encoding="utf-8"))
    links = [str(a["href"]) for tag, a in seen.tags if tag == "a" and not str(a["href"]).startswith("#")]
    assert place == folder / "report.html"
    assert len(links) == 2
    assert all((folder / link).is_file() for link in links)
    assert json.loads(seen.scripts[1]).keys() == {"comparison.csv", "comparison.md", "comparison.tex"}


def test_pages_name_folders_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is shared, and how a machine is laid out is nobody's business."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        make_run(Path("runs") / f"{seed}", ("a",), seed=seed)
    html = write_report([Path("runs"), tmp_path / "runs" / "0"], Path("page.html"), each=True).read_text(
        encoding="utf-8"
    )
    pages = [html, (tmp_path / "runs" / "1" / "report.html").read_text(encoding="utf-8")]
    assert not any(str(tmp_path) in page for page in pages)
    assert 'href="runs/1/report.html"' in html
    assert "everlora status runs/1" in pages[1]
    assert "2 runs" in html  # the one that was given twice is there once


def test_a_run_that_is_not_at_its_end_is_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "b", method="inclora")
    make_run(tmp_path / "runs" / "half", seed=1, learned=1)
    html = write_report([tmp_path / "runs"]).read_text(encoding="utf-8")
    assert "Left out: " in html
    assert "half is not finished: 1 of 3 tasks" in html


def test_nothing_finished_is_one_line(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"{seed}", seed=seed, learned=1)
    with pytest.raises(FolderError, match="none of 2 runs is finished"):
        write_report([tmp_path])


def test_runs_of_different_protocols_are_refused_or_stand_side_by_side(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", method="inclora", settings={"max_train_samples": 7})
    with pytest.raises(ConfigError, match="different protocols"):
        write_report([tmp_path])
    html = write_report([tmp_path], allowed=Allowed(mixed=True)).read_text(encoding="utf-8")
    assert "Runs of different protocols stand side by side" in html


def test_names_with_markup_are_texts(tmp_path: Path) -> None:
    prompt = {"prompt": f"{{text}} {EVIL}"}
    make_run(tmp_path / f"a{EVIL.replace('/', '')}", settings=prompt)
    make_run(tmp_path / "b", method="inclora", settings=prompt)
    html = write_report([tmp_path]).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<script>alert" in Seen(html).text


def test_what_cannot_be_told_apart_is_said_first(page: Page, tmp_path: Path) -> None:
    assert page.summary == ["Replay-free: ella has the highest mean, surely above the other."]
    for method in ("ella", "inclora"):
        make_run(tmp_path / method, method=method, right=lasts if method == "ella" else forgets)
    runs = [read(tmp_path / method) for method in ("ella", "inclora")]
    (few,) = comparison_page(runs, compare(runs, resamples=200)).summary
    assert few.endswith("; with fewer than 3 runs in common, none of the others can be told from it.")


def test_papers_figures_that_its_runs_can_be_drawn_as_stand_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take the table of the page: no run is read once more for them. Those of weights need weights."""
    from everlora.analysis.answers import read
    from everlora.analysis.tables import compare
    from everlora.report import analyses
    from everlora.report import read as reading

    paths = [make_run(tmp_path / f"{method}-{seed}", method=method, seed=seed)
             for method in ("lb-cl", "b-cl") for seed in (0, 1)]  # fmt: skip
    found = [read(path) for path in paths]
    known = reading.grouped(compare(found), found)
    monkeypatch.setattr(reading, "read", None)
    section = analyses.of_runs(paths, known)
    assert section is not None
    assert [one.name for one in section.figures] == [
        "paper-bwt-over-tasks",
        "paper-cost-table",
        "paper-memory-table",
        "paper-starts",
    ]
    assert all("As in" in one.caption for one in section.figures)
