"""The page of a run: what it shows, escapes and weighs, and what it says of runs that are not at their end."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from everlora.analysis.recorded import RecordedRun, recorded
from everlora.archive.records import AnswerRow
from everlora.core.errors import ConfigError, FolderError
from everlora.metrics.scores import ScoreMatrix
from everlora.report import charts
from everlora.report.answers import RESERVED, allowed, pack
from everlora.report.page import MOST_BYTES, environment, render
from everlora.report.run_page import run_page
from everlora.report.write import write_report

from .made import make_run

EVIL = "<script>alert('x')</script>"


class Seen(HTMLParser):
    """What a browser makes of a page: tags with their attributes, ids, texts of the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    return recorded(make_run(tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def seen(run: RecordedRun) -> Seen:
    return Seen(render(run_page(run)))


def test_all_sections_are_there_and_can_be_reached(seen: Seen) -> None:
    names = [
        "matrix",
        "retention",
        "tasks",
        "cost",
        "training",
        "modules",
        "analyses",
        "answers",
        "data",
        "setup",
        "next",
    ]
    linked = [str(a["href"]) for tag, a in seen.tags if tag == "a" and str(a["href"]).startswith("#")]
    assert linked == ["#main", *(f"#{name}" for name in names)]
    assert {*names, "main", "files"} <= set(seen.ids())
    assert len(seen.ids()) == len(set(seen.ids()))


def test_penalties_and_their_strengths_are_drawn_over_all_steps(run: RecordedRun) -> None:
    training = next(one for one in run_page(run).sections if one.name == "training")
    drawn = {
        one.name: [[cell.text for cell in row] for row in one.table.rows] for one in training.figures if one.table
    }
    assert drawn["penalty-energy_overlap"][:1] == [["1", "reviews", "0.1"]]
    assert [row[0] for row in drawn["penalty-energy_overlap"]] == [str(step) for step in range(1, 10)]
    assert {row[2] for row in drawn["strength-energy_overlap"]} == {"0.5"}


def test_the_headline_numbers_are_those_of_the_matrix(seen: Seen, run: RecordedRun) -> None:
    """Two of three rows of each earlier task are still right: OA (67 + 67 + 100) / 3, BWT −33."""
    tiles = {tile.label: tile for tile in run_page(run).tiles}
    assert tiles["Overall accuracy"].value == "77.8"
    assert tiles["Backward transfer"].value == "−33.3"
    low, _, high = tiles["Overall accuracy"].interval.partition(" to ")
    assert float(low) < 77.8 < float(high)
    assert "77.8" in seen.text


def test_a_page_asks_nothing_of_the_network(seen: Seen) -> None:
    loading = [a for _, attributes in seen.tags for a in ("src", "data", "srcset", "action") if a in attributes]
    links = [str(attributes["href"]) for _, attributes in seen.tags if "href" in attributes]
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and "http-equiv" in a)
    assert loading == []
    assert [link for link in links if not link.startswith("#")] == []
    assert str(policy).startswith("default-src 'none'")


def test_drawings_are_named_for_who_does_not_see_them(seen: Seen) -> None:
    drawings = [attributes for tag, attributes in seen.tags if tag == "svg"]
    assert len(drawings) >= 6
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings)


def test_heads_of_tables_say_what_they_are_heads_of(seen: Seen) -> None:
    assert {attributes.get("scope") for tag, attributes in seen.tags if tag == "th"} == {"col", "row"}


def test_answers_come_back_as_they_were_given(seen: Seen, run: RecordedRun) -> None:
    answers = json.loads(seen.scripts[0])["answers"]
    first = answers["tasks"][0]
    assert [task["name"] for task in answers["tasks"]] == list(run.tasks)
    assert [stage["marks"] for stage in first["stages"]] == ["111111", "011011", "011011"]
    after_news = [answers["strings"][k] for k in first["stages"][1]["answers"]]
    assert after_news == ["other", "no", "yes", "other", "yes", "no"]


def test_what_users_write_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    words: dict[str, Any] = {
        "labels": (EVIL, "</script><b>"),
        "instruction": f"{EVIL} {{{{ 7 * 7 }}}}",
        "warning": EVIL,
    }
    run = recorded(make_run(tmp_path / "run", learned=2, learner=True, because=EVIL, **words))
    html = render(run_page(run))
    seen = Seen(html)
    assert len(seen.scripts) == 3
    assert EVIL not in html
    assert "</script><b>" not in html
    assert EVIL in seen.text
    assert "{{ 7 * 7 }}" in seen.text
    assert EVIL in json.loads(seen.scripts[0])["answers"]["strings"]


def test_other_directions_of_text_stay_in_their_places(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run", ("مهام", "ב" * 80, "c"), labels=("مهذب", "x" * 500)))
    html = render(run_page(run))
    assert "<bdi>مهام</bdi>" in html
    assert "ב" * 80 in html


def test_a_run_that_is_not_at_its_end_is_drawn_as_such(tmp_path: Path) -> None:
    page = run_page(recorded(make_run(tmp_path / "run", learned=2)))
    assert page.alerts[0] == "Not finished: 2 of 3 tasks learned."
    assert [tile.value for tile in page.tiles if tile.label == "Mean so far"] == ["83.3"]
    assert page.summary == []
    assert "--resume" in next(section for section in page.sections if section.name == "next").commands[0][1]


def test_one_task_has_no_retention(tmp_path: Path) -> None:
    page = run_page(recorded(make_run(tmp_path / "run", ("only",))))
    assert "retention" not in [section.name for section in page.sections]
    assert page.tiles[0].value == "100.0"


def test_a_learner_tells_what_was_done_to_it(tmp_path: Path) -> None:
    page = run_page(recorded(make_run(tmp_path / "run", learner=True, because="new policy")))
    history = next(section for section in page.sections if section.name == "history")
    assert page.kind == "a learner"
    assert [row[4].text for row in history.tables[0].rows] == ["new policy"] * 3


def test_all_tasks_at_once_have_one_row(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run", method="mtl", learned=1))
    assert run.joint
    assert "retention" not in [section.name for section in run_page(run).sections]


def answering(run: RecordedRun, rows: list[AnswerRow]) -> RecordedRun:
    return replace(run, stages=[replace(run.stages[0], answers=rows)])


def test_a_million_answers_become_numbers_and_a_link(run: RecordedRun) -> None:
    row = run.stages[0].answers[0]
    many = answering(run, [row] * 1_000_000)
    html = render(run_page(many))
    assert len(html.encode()) <= MOST_BYTES
    assert "1,000,000 answers are too many for this page" in html
    assert "answers" not in json.loads(Seen(html).scripts[0])
    assert 'id="browser"' not in html


def test_a_long_sequence_is_drawn_in_some_of_its_stages(run: RecordedRun) -> None:
    """Of 60 tasks ten rows are shown, the last that was scored among them; the page stays light."""
    names = tuple(f"task-{k:03d}" for k in range(60))
    cells = tuple(tuple(50.0 if j <= i else None for j in range(60)) for i in range(60))
    stages = [
        replace(
            run.stages[0], facts=run.stages[0].facts.model_copy(update={"data": {name: "d"}, "name": name}), answers=[]
        )
        for name in names
    ]
    long = replace(run, matrix=ScoreMatrix(names, (6,) * 60, cells), stages=stages)
    page = run_page(long)
    matrix = next(section for section in page.sections if section.name == "matrix")
    assert len(matrix.tables[0].rows) == 10
    assert matrix.tables[0].rows[-1][0].text == "60 · task-059"
    assert "Of 60 rows 10 are shown" in matrix.notes[0]
    assert len(render(page).encode()) <= allowed(0)


@pytest.mark.parametrize("count", [200, 2_000, pytest.param(20_000, marks=pytest.mark.full)])
def test_long_answers_are_cut_until_the_page_is_light_enough(count: int, run: RecordedRun) -> None:
    rows = [
        AnswerRow(task="reviews", row=k, target=f"{k} " * 300, prediction=f"{k} is\u00e9 " * 300, correct=False)
        for k in range(count)
    ]
    packed = pack(answering(run, rows))
    assert packed.size <= allowed(count) - RESERVED
    html = render(run_page(answering(run, rows)))
    assert len(html.encode()) <= allowed(count)


def test_what_is_left_out_of_a_drawing_is_never_a_users_text() -> None:
    alt = charts.alt()
    words = 'class="a" 1.23456 <b>'
    rows: list[charts.Row] = [{"name": words, "value": 1.0}]
    drawn = charts.svg(alt.Chart(charts.data(rows)).mark_bar().encode(y="name:N", x="value:Q"), 'a "label" <x>')
    seen = Seen(drawn)
    assert words in seen.text
    assert seen.tags[0][1]["aria-label"] == 'a "label" <x>'
    assert "aria-roledescription" not in drawn


@pytest.mark.parametrize("colour", [charts.INK, charts.MUTED, charts.GRID, charts.PAPER, *charts.HUES])
def test_every_colour_of_a_drawing_has_a_dark_counterpart(colour: str) -> None:
    style = Path(charts.__file__).parent.joinpath("templates/style.css").read_text(encoding="utf-8")
    assert f'svg [fill="{colour}"]' in style
    assert f'svg [stroke="{colour}"]' in style


def test_what_cannot_be_a_page_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match="holds no run of everlora"):
        write_report([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="is a folder; --out names the file"):
        write_report([run], tmp_path)
    with pytest.raises(ConfigError, match="several folders: --out"):
        write_report([run, run])
    (run / "matrix.json").write_text("{")
    with pytest.raises(FolderError, match=r"matrix\.json is damaged"):
        write_report([run])


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    log = next(run.glob("tasks/01-*/training.jsonl"))
    log.write_text("no JSON")
    with pytest.raises(FolderError, match=r"training\.jsonl is missing or was changed"):
        write_report([run])


def test_a_missing_package_is_named(run: RecordedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ConfigError, match=r"everlora\[report\].*altair is not installed"):
        run_page(run)
    environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match="Jinja2 is not installed"):
        environment()
    environment.cache_clear()


def test_a_page_lies_in_the_folder_of_its_run_and_changes_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    place = write_report([run])
    assert place == run / "report.html"
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file != place} == before
    assert recorded(run).finished


def test_cost_is_set_against_plain_lora_beside_it(tmp_path: Path) -> None:
    """Every made run trains 1, 2, 3 seconds in three steps each; another benchmark's rows do not count."""
    make_run(tmp_path / "ella", method="ella", settings={"train": {"num_train_epochs": 2}})
    page = run_page(recorded(tmp_path / "ella"))
    cost = next(one for one in page.sections if one.name == "cost")
    assert [name for name, _ in cost.commands] == ["make one, beside it"]
    make_run(tmp_path / "inclora-few", method="inclora", settings={"max_train_samples": 4})
    make_run(tmp_path / "inclora-seed1", method="inclora", seed=1, settings={"train": {"num_train_epochs": 2}})
    page = run_page(recorded(tmp_path / "ella"))
    cost = next(one for one in page.sections if one.name == "cost")
    table = next(one for one in cost.tables if one.title == "Beside plain LoRA")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert table.heads[2] == "plain LoRA, inclora-seed1"
    assert rows["training per task"] == ["2.0 s", "2.0 s", "1.00"]
    assert rows["per step"] == ["667 ms", "667 ms", "1.00"]
    assert rows["per epoch"] == ["1.0 s", "1.0 s", "1.00"]
    assert rows["kept for the next task"] == ["256 B", "256 B", "1.00"]


def test_memory_that_was_measured_is_shown(tmp_path: Path) -> None:
    run = recorded(make_run(tmp_path / "run"))
    for stage in run.stages:
        object.__setattr__(stage, "facts", stage.facts.model_copy(update={"peak_bytes": 123_000_000}))
    assert ("most memory of the process", "123 MB") in [
        pair for one in run_page(run).sections if one.name == "cost" for pair in one.pairs
    ]
