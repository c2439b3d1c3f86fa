"""Runs set side by side: what is ranked, what is told apart by how it was trained, what each row says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everlora.analysis.answers import ComparedProtocol, ScoredRun
from everlora.analysis.compare import Interval, RunAnswers
from everlora.analysis.comparison import Comparison
from everlora.analysis.tables import compare
from everlora.archive.identity import Composition
from everlora.archive.records import Fingerprint
from everlora.core.errors import ConfigError
from everlora.report.columns import cell, chosen
from everlora.report.forms import FORMS
from everlora.settings.spec import RunSpec

FEW = 200


def ran(method: str, seed: int, rates: list[float], rows: int = 400, **more: Any) -> ScoredRun:
    """A run of two tasks, whose rows are the more often right the higher their rate."""
    random = np.random.default_rng([seed, *map(ord, method)])
    cells = {(i, j): (random.random(rows) < rates[j]).astype(float) for i in range(2) for j in range(i + 1)}
    told: dict[str, Any] = {
        "composition": Composition(name=method, regime="sequence", consolidator="sum"),
        "protocol": ComparedProtocol(model="m", rows={"a": "same"}),
        "settings": RunSpec(model="m", **more.pop("training", {})),
        "hash": "h1",
        "fingerprints": {"f1": made("float32")},
        **more,
    }
    answers = RunAnswers(seed, ("a", "b"), cells, "a b")
    return ScoredRun(path=Path(f"{method}-{seed}-{told['hash']}"), method=method, group="replay-free", answers=answers,
               ability={}, **told)  # fmt: skip


def made(weights: str) -> Fingerprint:
    """How scores were made."""
    return Fingerprint(
        backend="torch",
        weights=weights,
        device="cpu",
        attention=None,
        scoring="labels",
        batch_invariant=True,
        versions={},
    )


def methods(table: Comparison) -> list[str]:
    return [row.method for section in table.sections for row in section.rows]


def test_one_run_each_is_not_ranked() -> None:
    """However far apart: the best is first only where that is its name's place."""
    table = compare([ran("b", 0, [0.9, 0.9]), ran("a", 0, [0.1, 0.1])], resamples=FEW)
    (section,) = table.sections
    assert section.reference == "b"
    assert methods(table) == ["a", "b"]
    assert [row.alike for row in section.rows] == [True, True]
    assert "(rows)" in FORMS["markdown"](table, ())


def test_what_several_seeds_tell_apart_is_set_below() -> None:
    runs = [ran(name, seed, [rate, rate]) for name, rate in (("a", 0.3), ("b", 0.8), ("c", 0.8)) for seed in range(5)]
    table = compare(runs, resamples=FEW)
    assert methods(table) == ["b", "c", "a"]
    rows = {row.method: row for row in table.sections[0].rows}
    assert [rows[name].alike for name in "abc"] == [False, True, True]
    p = rows["a"].p_corrected
    assert p is not None
    assert p <= 0.05
    assert rows["a"].test == "runs and rows"


def test_without_a_common_seed_nothing_is_ranked() -> None:
    table = compare([ran("a", 0, [0.1, 0.1]), ran("b", 1, [0.9, 0.9])], resamples=FEW)
    assert methods(table) == ["a", "b"]
    assert table.sections[0].rows[0].difference is None


def test_a_named_baseline_is_corrected_over_methods_and_a_best_over_all_pairs() -> None:
    """Three methods: two comparisons with a baseline; three pairs, any of which was to be looked at."""
    runs = [ran(name, seed, [0.5 + k / 30] * 2) for k, name in enumerate("abc") for seed in range(3)]
    named = compare(runs, resamples=FEW, baseline="a").sections[0].rows
    p = sorted(row.p for row in named if row.p is not None)
    assert max(row.p_corrected for row in named if row.p_corrected is not None and row.p == p[0]) == min(1.0, 2 * p[0])
    rows = compare(runs, resamples=FEW).sections[0].rows
    best = [(row.p, row.p_corrected) for row in rows if row.p is not None and row.p_corrected is not None]
    assert len(best) == 2
    assert all(p < corrected <= min(1.0, 3 * p + 1e-9) for p, corrected in best)


def test_training_of_single_tasks_tells_methods_apart() -> None:
    few, many = ({"train_of": {"a": {"num_train_epochs": n}}} for n in (1, 9))
    table = compare([ran("x", 0, [0.5] * 2, training=few), ran("x", 1, [0.5] * 2, training=many)], resamples=FEW)
    assert methods(table) == ["x [num_train_epochs=1]", "x [num_train_epochs=9]"]


def test_every_row_names_its_protocol_and_fingerprint_where_they_differ() -> None:
    runs = [
        ran("x", 0, [0.5] * 2, hash="h1"),
        ran("y", 0, [0.5] * 2, hash="h2", fingerprints={"f2": made("bfloat16")}),
    ]
    table = compare(runs, resamples=FEW, mixed_fingerprints=True)
    for line in FORMS["markdown"](table, ()).splitlines():
        if line.startswith(("| x ", "| y ")):
            assert [cell.strip() for cell in line.split("|")[-3:-1]] == (
                ["h1", "f1"] if line.startswith("| x") else ["h2", "f2"]
            )
    alike = FORMS["markdown"](compare(runs[:1], resamples=FEW), ())
    assert "| h1" not in alike
    assert "protocol h1; fingerprint f1" in alike


def test_signs_of_latex_and_lines_in_a_name() -> None:
    r"""Every special sign is escaped, and a name with line breaks (a prompt) stays in its row."""
    name = "m_1(a=5%,b=#&$~^\\{x}) [prompt={text}\nAnswer:]"
    table = compare([ran(name, 0, [0.5] * 2)], resamples=FEW)
    (line,) = [line for line in FORMS["latex"](table, ()).splitlines() if line.startswith(r"m\_")]
    escaped = r"m\_1(a=5\%,b=\#\&\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{x\}) [prompt=\{text\}"
    assert line.startswith(escaped)
    assert line.endswith(r" \\")
    for form in ("markdown", "table"):
        assert sum("m_1(" in row for row in FORMS[form](table, ()).splitlines()) == 1
        assert not any(row.startswith("Answer") for row in FORMS[form](table, ()).splitlines())


def test_nothing_has_no_sign() -> None:
    assert cell(Interval(mean=-0.01, low=-0.06, high=-0.0)) == "0.0 [−0.1, 0.0]"


def test_columns_are_chosen() -> None:
    """Means of orders and of tasks have a column each; a program reads numbers."""
    table = compare([ran("x", 0, [0.5] * 2), ran("y", 0, [0.9] * 2)], resamples=FEW)
    names = chosen("oa, orders,tasks")
    head = FORMS["markdown"](table, (), names).splitlines()[2]
    assert [word.strip() for word in head.strip("|").split("|")] == ["method", "OA", "order A", "a", "b"]
    assert "; order A: a b;" in FORMS["markdown"](table, (), names)
    first, line, *_ = FORMS["csv"](table, (), names).splitlines()
    row = dict(zip(first.split(","), line.split(","), strict=True))
    assert float(row["oa_mean"]) == (float(row["a"]) + float(row["b"])) / 2 == float(row["order A"])
    with pytest.raises(ConfigError, match="unknown column 'order'; did you mean 'orders'"):
        chosen("oa,order")


def test_latex_is_bold_where_nothing_tells_a_method_from_the_best() -> None:
    runs = [
        ran(method, seed, [rate] * 2)
        for method, rate in (("best", 0.9), ("alike", 0.895), ("worse", 0.3))
        for seed in range(5)
    ]
    lines = FORMS["latex"](compare(runs, resamples=FEW), (), ("oa",)).splitlines()
    named = [line for line in lines if line.startswith(("best", "alike", "worse"))]
    assert {line.partition(" &")[0]: r"\textbf{" in line for line in named} == {
        "best": True,
        "alike": True,
        "worse": False,
    }
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
