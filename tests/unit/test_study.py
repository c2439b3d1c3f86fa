"""The data of studies: their statistics against scipy, and pages that say what the data say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

PATH = Path(__file__).parents[2] / "benchmarks" / "study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["study"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def points(study: ModuleType, method: str, scores: list[float]) -> list[object]:
    return [
        study.Point(
            system=method,
            method=method,
            rate=0.003,
            order="1",
            seed=seed,
            split="test",
            tasks=("a", "b"),
            learned=(score, score),
            final=(score, score),
            oa=score,
            bwt=-1.0,
            learning_accuracy=score + 1,
            identity=f"{method}{seed}",
            versions={},
        )
        for seed, score in enumerate(scores)
    ]


ELLA, INCLORA, DECAY = [62.0, 63.5, 64.0, 63.0], [60.0, 61.0, 62.5, 60.5], [61.0, 63.0, 62.0, 61.0]


def test_a_difference_is_that_of_the_paired_t_test(study: ModuleType) -> None:
    found = study.gap({("1", k): x for k, x in enumerate(ELLA)}, {("1", k): x for k, x in enumerate(INCLORA)})
    theirs = stats.ttest_rel(ELLA, INCLORA)
    interval = theirs.confidence_interval(0.95)
    assert (found.mean, found.p, found.runs) == (pytest.approx(2.125), pytest.approx(float(theirs.pvalue)), 4)
    assert found.half == pytest.approx((interval.high - interval.low) / 2)


def test_only_runs_that_both_have_are_paired_and_two_tell_nothing(study: ModuleType) -> None:
    one = {("1", 0): 60.0, ("1", 1): 61.0, ("2", 0): 70.0}
    assert study.gap(one, {("1", 0): 50.0, ("1", 1): 50.0, ("3", 0): 1.0}) is None
    assert study.gap(one, one).mean == 0
    assert study.gap(one, one).p == 1


def test_runs_that_know_no_order_count_once_a_seed(study: ModuleType) -> None:
    """Three orders of one seed that end alike are one run, and pairs with them are seeds."""
    one = {(order, seed): 60.0 + seed for order in "123" for seed in range(3)}
    other = {(order, seed): 58.0 + seed + int(order) for order in "123" for seed in range(3)}
    found = study.gap(one, other)
    assert (found.mean, found.runs, found.half) == (0.0, 3, 0.0)
    assert study.gap({unit: one[unit] for unit in one if unit[1] == 0}, other) is None


def test_p_is_corrected_over_methods_that_are_not_shown(study: ModuleType) -> None:
    data = points(study, "ella", ELLA) + points(study, "inclora", INCLORA) + points(study, "decay", INCLORA[::-1])
    whole = study.table(data, ["inclora"]).splitlines()
    shown = study.table(data, ["inclora"], of=["ella", "inclora"]).splitlines()
    assert shown == [line for line in whole if "`decay`" not in line]


def test_a_table_has_the_best_first_and_differences_from_the_baseline(study: ModuleType) -> None:
    data = [p for name, s in (("inclora", INCLORA), ("decay", DECAY), ("ella", ELLA)) for p in points(study, name, s)]
    lines = study.table(data, ["inclora"]).splitlines()
    assert lines[0] == "| method | rate | runs | OA | BWT | learning accuracy | minus inclora |"
    assert lines[2].startswith("| `ella` | 0.003 | 4 | 63.1 | −1.0 | 64.1 | +2.1 ± ")
    assert lines[2].endswith("* |")
    assert not lines[3].endswith("* |")
    assert lines[4] == "| `inclora` | 0.003 | 4 | 61.0 | −1.0 | 62.0 | – |"
    with pytest.raises(SystemExit, match="no runs of 'o-lora'"):
        study.table(data, ["o-lora"])


def test_a_search_shows_its_best_trial_and_the_same_system_on_test_rows(study: ModuleType) -> None:
    trials = points(study, "ella", [60.0, 63.0]) + points(study, "inclora", [59.0, 58.0])
    lines = study.tuning(trials, points(study, "ella", ELLA) + points(study, "inclora", INCLORA)).splitlines()
    assert lines[2] == "| ella | 2 | `ella` | 0.003 | 63.0 | 63.1 |"
    assert lines[3] == "| inclora | 2 | `inclora` | 0.003 | 59.0 | 61.0 |"
    assert lines[-1].endswith("over the 2 systems: 1.00.")


def test_a_block_of_a_page_is_replaced_and_nothing_else(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    data = points(study, "ella", ELLA) + points(study, "inclora", INCLORA)
    monkeypatch.setattr(study, "load", lambda name: data)
    page = "before\n<!-- study x of ella, inclora minus inclora -->\nold\n<!-- end of study -->\nafter\n"
    table = study.table(data, ["inclora"])
    new = f"before\n<!-- study x of ella, inclora minus inclora -->\n{table}<!-- end of study -->\nafter\n"
    assert study.rendered(page) == new
    assert study.rendered(new) == new


def test_a_block_may_take_one_seed_of_several_studies(study: ModuleType, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    for name, method, scores in (("x", "ella", ELLA), ("y", "inclora", INCLORA)):
        lines = [json.dumps(asdict(one)) for one in points(study, method, scores)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    expected = study.table(points(study, "ella", ELLA)[1:2] + points(study, "inclora", INCLORA)[1:2], [])
    page = "<!-- study x+y of ella, inclora seed 1 -->\n<!-- end of study -->"
    assert study.rendered(page) == page.replace("-->\n", f"-->\n{expected}", 1)


def test_a_block_may_take_some_orders(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (replace(points(study, "ella", ELLA)[0], order=order) for order in "123")
    monkeypatch.setattr(study, "load", lambda name: [one, two, three])
    page = "<!-- study x orders 2,3 -->\n<!-- end of study -->"
    assert study.rendered(page) == page.replace("-->\n", f"-->\n{study.table([two, three], [])}", 1)


def test_runs_are_added_to_those_that_a_file_has(study: ModuleType, monkeypatch, tmp_path: Path) -> None:
    """A folder that is collected twice counts once; without --add the file is what the folders hold."""
    known, more = (
        [replace(one, identity=f"{one.method} {k}") for k, one in enumerate(points(study, "ella", ELLA[:2]))],
        [],
    )
    by_path = {
        Path(f"run{k}"): one for k, one in enumerate([*known, replace(known[0], method="inclora", identity="x")])
    }
    monkeypatch.setattr(study, "find", lambda folders: list(folders))
    monkeypatch.setattr(study, "finished", lambda path: True)
    monkeypatch.setattr(study, "point", by_path.__getitem__)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    study.collect([Path("run0"), Path("run1")], tmp_path / "x.jsonl", add=True)
    study.collect([Path("run1"), Path("run2")], tmp_path / "x.jsonl", add=True)
    more = study.load("x")
    assert [one.identity for one in more] == ["ella 0", "ella 1", "x"]
    study.collect([Path("run2")], tmp_path / "x.jsonl")
    assert [one.identity for one in study.load("x")] == ["x"]


def test_each_order_has_its_mean_over_seeds(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ella, other = points(study, "ella", [60.0, 62.0, 50.0]), points(study, "inclora", [40.0])
    data = [replace(ella[0], order="1"), replace(ella[1], order="1"), replace(ella[2], order="2")]
    data.append(replace(other[0], order="2"))
    monkeypatch.setattr(study, "load", lambda name: data)
    lines = study.rendered("<!-- orders x -->\n<!-- end of study -->").splitlines()[1:-1]
    assert lines[0] == "| method | order 1 | order 2 |"
    assert lines[2:] == ["| `ella` | 61.0 (2) | 50.0 (1) |", "| `inclora` |  | 40.0 (1) |"]
    assert len(study.by_order(data, of=["ella"]).splitlines()) == 3


def test_one_method_at_two_rates_is_two_rows(study: ModuleType) -> None:
    slow = [replace(one, rate=0.001, oa=one.oa - 3) for one in points(study, "ella", ELLA)]
    found = study.table([*points(study, "ella", ELLA), *slow], []).splitlines()
    assert [line.split("|")[1:5] for line in found[2:]] == [
        [" `ella` ", " 0.003 ", " 4 ", " 63.1 "],
        [" `ella` ", " 0.001 ", " 4 ", " 60.1 "],
    ]


def test_rises_are_summed_over_all_pairs_and_by_method(study: ModuleType, tmp_path: Path) -> None:
    pairs = {"a": [(0.1, 0.2), (0.2, 0.6)], "b": [(0.3, 0.4), (0.1, 0.9)]}
    lines = [
        json.dumps({"method": method, "since": {"predicted": predicted, "real": real}})
        for method, found in pairs.items()
        for predicted, real in found
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = study.rises(tmp_path / "x.jsonl").splitlines()[1:]
    assert rows == [
        "| --- | --: | --: | --: | --: | --: |",
        "| `all` | 4 | 0.1750 | 0.525 | 3.0 | −0.11 |",  # of ranks 1.5, 3, 4, 1.5 and 1, 3, 2, 4: -0.5 / sqrt(4.5 x 5)
        "| `a` | 2 | 0.1500 | 0.400 | 2.7 | 1.00 |",
        "| `b` | 2 | 0.2000 | 0.650 | 3.2 | −1.00 |",
    ]


def test_a_baseline_may_be_one_of_several_methods_of_a_system(study: ModuleType) -> None:
    data = [replace(one, method="ella(rho=0.1)") for one in points(study, "ella", ELLA)]
    data += [replace(one, method="ella(rho=1)") for one in points(study, "ella", INCLORA)]
    assert study.table(data, ["ella"]).splitlines()[2].endswith("| – |")  # the better one
    assert study.table(data, ["ella(rho=1)"]).splitlines()[3].endswith("| – |")


def test_every_table_of_the_pages_has_a_line_of_dashes_below_its_head(study: ModuleType) -> None:
    """Without it, or with another sign than the hyphen in it, a page shows the bars and no table."""
    for page in study.PAGES:
        lines = ["", *re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines(), ""]
        for before, head, below in zip(lines, lines[1:], lines[2:], strict=False):
            if head.startswith("|") and not before.startswith("|"):
                assert re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", below), f"{page.name}: {head}"
                assert re.sub(r"`[^`]*`", "", head).replace(r"\|", "").count("|") == below.count("|"), head


def test_pages_say_what_the_data_say(study: ModuleType) -> None:
    for page in study.PAGES:
        text = page.read_text(encoding="utf-8")
        assert study.rendered(text) == text, f"{page.name}: python benchmarks/study.py render"
