"""What a notebook shows of an object, and what printing it says: short, and with nothing of a user's obeyed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from everlora import Example, Learner, ScoreMatrix, Task, TaskStream, open_stream
from everlora.archive.results import MatrixRecord
from everlora.core.errors import ConfigError
from everlora.learner.experiment import Result
from everlora.learner.verbs.diff import AnswerChange, Difference

EVIL = "<script>alert('x')</script>"
MATRIX = ScoreMatrix(("a", "b"), (10, 10), ((90.0, None), (80.0, 70.0)))


def test_a_stream_of_thousands_of_rows_is_a_line() -> None:
    stream = open_stream("builtin", tasks=["news", "reviews"])
    assert repr(stream) == "TaskStream('builtin': 2 tasks: news, reviews)"
    assert repr(stream.tasks[0]) == "Task('news': 1,000 train, 50 dev, 50 test, 5 labels)"
    assert "1,000" in stream._repr_html_()


def test_rows_are_texts() -> None:
    task = Task(name="t", train=[Example(EVIL * 9, EVIL)] * 3, test=[Example("b", "c")], instruction=EVIL)
    shown = task._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<tr>") == 4  # the heads, two rows of three, one of one


def test_a_matrix_is_a_line_a_table_and_a_drawing() -> None:
    assert repr(MATRIX) == "ScoreMatrix(2 tasks: a, b; OA 75.0, BWT -10.0)"
    assert repr(ScoreMatrix.empty([str(k) for k in range(9)], [1] * 9)) == "ScoreMatrix(9 tasks: 0, 1, 2, 3, 4, 5, …)"
    assert MATRIX._repr_html_().count("80.0") == 1
    table = MATRIX.to_pandas()
    assert table.loc["b", "a"] == 80.0
    assert table.loc["a"].isna().to_list() == [False, True]
    assert [row["score"] for row in MATRIX.plot().to_dict()["data"]["values"]] == [90.0, 80.0, 70.0]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"everlora\[report\]"):
        MATRIX.plot()
    with pytest.raises(ConfigError, match="needs pandas"):
        MATRIX.to_pandas()


def test_a_learner_says_what_it_has_learned(tmp_path: Path) -> None:
    rows = [Example("x", "yes"), Example("y", "no")] * 3
    task = Task(name="only", train=rows, test=rows[:2], labels=("yes", "no"))
    learner = Learner("tiny-bert", method="inclora", out=tmp_path / "l", train={"max_steps": 1})
    assert repr(learner) == f"Learner(inclora on tiny-bert in {tmp_path / 'l'}, 0 tasks learned)"
    learned = learner.learn(task, because=EVIL)
    assert repr(learned).startswith(f"Learned(task=only, number=1, scores={{only: {learned.scores['only']:.4g}}}")
    assert str(learned) == repr(learned)
    assert "<td" in learned._repr_html_()
    assert repr(learner.status()).startswith("Status(")
    assert repr(learner).endswith("1 task learned: only)")
    assert "&lt;script&gt;" in learner._repr_html_()
    assert "<script>" not in learner._repr_html_()


def test_what_a_comparison_of_thousands_of_rows_prints_is_short() -> None:
    changes = [AnswerChange(task="t", row=k, target=EVIL, a=EVIL, b="b", right=False) for k in range(9000)]
    scores = {f"task {k}": 50.0 for k in range(200)}
    found = Difference(
        a="l@a", b="l@b", norm=1.23456, relative=None, modules=[], scores=[], other_rows=[EVIL], answers=changes,
        compared={name: 9 for name in scores}, settings=["x" * 999],
    )  # fmt: skip
    assert len(repr(found)) < 400
    assert "answers=9000 x AnswerChange" in repr(found)
    assert "norm=1.235" in repr(found)
    assert "… 200 in all" in repr(found)
    assert "<script>" not in found._repr_html_()


def test_a_streams_note_is_shown() -> None:
    rows = [Example("x", "y")]
    stream = TaskStream(name="mine", tasks=(Task(name="t", train=rows, test=rows),), note="a note")
    assert "a note" in stream._repr_html_()


def test_a_result_names_its_folder_and_its_scores() -> None:
    record = MatrixRecord(
        id="i", tasks=["a", "b"], counts=[10, 10], matrix=[], metrics={}, method="ella", stored_elements=0,
        adapter_elements=0, memory_bytes=0,
    )  # fmt: skip
    result = Result(Path("runs/r"), MATRIX, record)
    assert repr(result) == f"Result(ella in runs/r: {MATRIX!r})"
    assert result._repr_html_() == MATRIX._repr_html_()
