"""The pages in a real browser: everything is drawn, nothing is fetched, filters and downloads work, at every width."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everlora.report.write import write_report

from .made import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<script>document.title='broken'</script>"
WIDTHS = (320, pytest.param(768, marks=pytest.mark.full), pytest.param(3840, marks=pytest.mark.full))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with api.sync_playwright() as play:
        try:
            found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@dataclass
class Opened:
    page: Page
    said: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    labels = ("yes", f"no {EVIL}")
    run = make_run(folder / "run", rows=60, labels=labels, instruction=EVIL, warning=EVIL)
    sweep = folder / "sweep"
    for method in ("ella", "inclora"):
        for seed in range(3):
            make_run(sweep / f"{method}-{seed}", method=method, seed=seed)
    return {"run": write_report([run]), "sweep": write_report([sweep])}


def opened(browser: Browser, place: Path, **how: Any) -> Opened:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **how})
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda request: found.fetched.append(request.url))
    found.page.goto(place.as_uri())
    return found


@pytest.mark.parametrize("name", ["run", "sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_drawn_and_nothing_is_fetched(
    name: str, scheme: Any, browser: Browser, pages: dict[str, Path]
) -> None:
    seen = opened(browser, pages[name], color_scheme=scheme)
    assert seen.said == []
    assert seen.fetched == [pages[name].as_uri()]
    assert "broken" not in seen.page.title()
    for section in seen.page.locator("main section").all():
        assert section.bounding_box() is not None
        assert len(section.inner_text().split()) > 3
    for drawing in seen.page.locator("figure svg").all():
        box = drawing.bounding_box()
        assert box is not None
        assert box["width"] > 100
        assert box["height"] > 40


@pytest.mark.full
def test_many_runs_are_painted_within_a_second(browser: Browser, tmp_path: Path) -> None:
    """15 tasks x 10 methods x 5 seeds, from a page that stays under its cap."""
    methods = ["ella", "inclora", "seqlora", "o-lora", "ps-lora", "lb-cl", "ewc", "kfac", "decay", "b-cl"]
    for method in methods:
        for seed in range(5):
            make_run(tmp_path / f"{method}-{seed}", [f"task{k}" for k in range(15)], method=method, seed=seed, rows=8)
    place = write_report([tmp_path])
    assert place.stat().st_size < 900_000
    seen = opened(browser, place)
    painted: list[float] = []
    while not painted:  # the page's policy forbids what Playwright waits by
        seen.page.wait_for_timeout(20)
        found = "performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)"
        painted = seen.page.evaluate(found)
    assert painted[0] < 1000


def contrast(page: Page, element: str) -> float:
    """The contrast of an element's text with the page, as WCAG computes it."""
    return float(
        page.evaluate(
            """(name) => {
              const bright = (text) => {
                const [r, g, b] = text.match(/[\\d.]+/g).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const own = getComputedStyle(document.querySelector(name)), drawn = own.fill && name.includes("svg");
              const [a, b] = [bright(drawn ? own.fill : own.color), bright(getComputedStyle(document.body).backgroundColor)];
              return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            }""",  # noqa: E501
            element,
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(scheme: Any, browser: Browser, pages: dict[str, Path]) -> None:
    seen = opened(browser, pages["run"], color_scheme=scheme)
    elements = ["h1", ".subtitle", "figcaption", "nav a", "svg text[fill='#57606a']"]
    assert [element for element in elements if contrast(seen.page, element) < 4.5] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_no_width_needs_scrolling_sideways(width: int, name: str, browser: Browser, pages: dict[str, Path]) -> None:
    """But inside wide tables and drawings, which scroll by themselves."""
    seen = opened(browser, pages[name], viewport={"width": width, "height": 900})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def rows(page: Page) -> list[str]:
    return page.locator("#browser tbody tr").all_inner_texts()


def test_answers_can_be_filtered_and_searched(browser: Browser, pages: dict[str, Path]) -> None:
    """Of 60 rows one in three is lost with the second task; the browser shows 25 at a time."""
    page = opened(browser, pages["run"]).page
    found = page.locator("#found")
    assert found.inner_text() == "1 to 25 of 60 rows (60 in all)"
    page.get_by_role("button", name="Next").click()
    assert found.inner_text() == "26 to 50 of 60 rows (60 in all)"
    page.get_by_label("Show").select_option("lost")
    assert found.inner_text() == "1 to 20 of 20 rows (60 in all)"
    page.get_by_label("Turned wrong after").select_option(label="news")
    assert len(rows(page)) == 20
    page.get_by_label("Turned wrong after").select_option(label="intent")
    assert rows(page) == []
    page.get_by_label("Turned wrong after").select_option(label="any task")
    page.get_by_label("Search").fill("script")
    assert found.inner_text() == "1 to 10 of 10 rows (60 in all)"
    assert all("no <script>" in row for row in rows(page))
    page.locator("select[name=task]").select_option(label="intent")
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Search").fill("")
    assert found.inner_text() == "1 to 25 of 60 rows (60 in all)"


def test_downloads_hold_what_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"]).page

    def saved(button: Any) -> Path:
        with page.expect_download() as coming:
            button.click()
        return Path(coming.value.path())

    figure = page.locator("#figure-retention")
    figure.locator("summary").click()
    assert saved(figure.get_by_role("button", name="SVG")).read_text(encoding="utf-8").startswith("<svg")
    assert saved(figure.get_by_role("button", name="PNG")).read_bytes().startswith(b"\x89PNG")
    with saved(figure.get_by_role("button", name="CSV")).open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["task", "after", "percent right"]
    with saved(page.get_by_role("button", name="Main table (CSV)")).open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[2][:3] == ["2 · news", "66.7", "100.0"]
    record = json.loads(saved(page.get_by_role("button", name="Everything (JSON)")).read_text(encoding="utf-8"))
    assert record["results"]["tasks"] == ["reviews", "news", "intent"]


def test_keys_lead_through_the_page(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"]).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")


@pytest.mark.parametrize("name", ["run", pytest.param("sweep", marks=pytest.mark.full)])
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.full)])
def test_axe_finds_nothing(name: str, scheme: Any, browser: Browser, pages: dict[str, Path]) -> None:
    place = os.environ.get("AXE_CORE")
    if place is None:
        pytest.skip("AXE_CORE names no axe.min.js (npm pack axe-core)")
    page = opened(browser, pages[name], color_scheme=scheme).page
    page.evaluate(Path(place).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_a_page_can_be_printed(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"]).page
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#figure-retention svg").is_visible()
