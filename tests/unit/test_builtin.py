"""The generated streams: the same everywhere, fair, different in every row, learnable and not trivial."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from everlora.benchmarks.synthetic import IMAGE_TASKS, TASKS, builtin, builtin_images
from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, lexicon, tidy
from everlora.core.errors import DataError
from everlora.data.task import Example, Task

TEXT = list(TASKS)
PICTURES = list(IMAGE_TASKS)
NO_CLOSING_MARK = {"outlook", "rule"}  # headlines end without one, and rules are about closing marks


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {task.name: task for task in builtin(train=1000, dev=100, test=300)}


@pytest.fixture(scope="module")
def pictures() -> dict[str, Task]:
    return {task.name: task for task in builtin_images(train=300, dev=30, test=90)}


def keys(rows: Any) -> list[Any]:
    return [row.input if isinstance(row.input, str) else row.input.tobytes() for row in rows]


def test_a_fresh_process_generates_the_same_stream() -> None:
    code = (
        "from everlora.benchmarks.synthetic import builtin, builtin_images;"
        "print(builtin(train=40, dev=10, test=10).digest(), builtin_images(train=9, dev=3, test=3).digest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    here = builtin(train=40, dev=10, test=10).digest(), builtin_images(train=9, dev=3, test=3).digest()
    assert tuple(ran.stdout.split()) == here


def test_dice_are_pinned() -> None:
    dice = Dice(0, "pinned")
    assert [dice.below(1000) for _ in range(4)] == [793, 615, 981, 327]


def test_another_seed_gives_other_data() -> None:
    one, other = builtin(train=20, dev=0, test=20), builtin(seed=1, train=20, dev=0, test=20)
    assert all(not set(keys(a.test)) & set(keys(b.test)) for a, b in zip(one, other, strict=True) if a.name != "rule")
    assert one.digest() != other.digest()


def test_there_are_enough_tasks_and_they_share_labels() -> None:
    assert len(TASKS) >= 10
    assert len(IMAGE_TASKS) >= 4
    shared = Counter(label for spec in TASKS.values() for label in spec.labels)
    assert shared["yes"] == shared["no"] == 3
    assert {"positive", "negative", "neutral", "sports", "business", "science"} <= {
        k for k, n in shared.items() if n > 1
    }
    assert any(all(shared[label] == 1 for label in spec.labels) for spec in TASKS.values())
    assert all(n == 1 for n in Counter(x for spec in IMAGE_TASKS.values() for x in spec.labels).values())


def test_instructions_are_one_sentence() -> None:
    for spec in TASKS.values():
        assert re.fullmatch(r"[A-Z][^.?!]+[.?]", spec.instruction), spec.instruction


@pytest.mark.parametrize("name", TEXT)
def test_splits_are_disjoint_and_balanced(tasks: dict[str, Task], name: str) -> None:
    task = tasks[name]
    every = keys(task.train) + keys(task.dev) + keys(task.test)
    assert len(set(every)) == len(every) == 1400
    for rows in (task.train, task.dev, task.test, task.train[:37]):
        counts = Counter(row.target for row in rows)
        assert set(counts) == set(task.labels)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_disjoint_balanced_and_well_formed(pictures: dict[str, Task], name: str) -> None:
    task = pictures[name]
    every = keys(task.train) + keys(task.dev) + keys(task.test)
    assert len(set(every)) == len(every)
    assert task.form == "image"
    assert {row.input.shape for row in task.train} == {(32, 32, 3)}
    assert {row.input.dtype for row in task.train} == {np.dtype(np.uint8)}
    counts = Counter(row.target for row in task.train)
    assert set(counts) == set(task.labels)
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("make", [builtin, builtin_images])
def test_more_training_rows_change_nothing_else(make: Any) -> None:
    small, large = make(train=10, dev=12, test=12), make(train=60, dev=12, test=12)
    for few, many in zip(small, large, strict=True):
        assert keys(few.test) == keys(many.test)
        assert keys(few.dev) == keys(many.dev)
        assert keys(few.train) == keys(many.train)[:10]


def test_a_task_does_not_depend_on_its_neighbours() -> None:
    alone = builtin(tasks=["order"], train=20, dev=5, test=5).tasks[0]
    among = builtin(tasks=["news", "order"], train=20, dev=5, test=5)
    assert among.names == ("news", "order")
    assert among.tasks[1].digest() == alone.digest()


def unnatural(text: str, name: str) -> str:
    """Say what is wrong with the look of a text; empty if nothing is."""
    body = text.split(" Line: ")[0] if name == "rule" else text
    checks = {
        "length": not 8 <= len(text.split()) <= 40,
        "unfilled slot": bool(re.search(r"[{}\[\]|]", text)),
        "spaces": "  " in text or text != text.strip() or bool(re.search(r" [,.;:?!]", text)),
        "first letter": not re.match(r'["A-Z]', text),
        "last letter": name not in NO_CLOSING_MARK and not re.search(r'([.?!]["]?|\b[A-Z]\w+)$', text),
        "marks": bool(re.search(r"[.,;?!]{2}|\.\"\.|[a-z][,;][a-z]", body)),
        "article": bool(re.search(r"\b[Aa] [aeio](?!ne\b)\w|\b[Aa]n [bcdfgjklmnpqrstvwxyz]", body)),
        "word said twice": bool(re.search(r"\b(?!had\b)([a-z]+) \1\b", body)),
        "number of verb": bool(re.search(r"\b(slides|keys|photos|tickets) is\b", body)),
        "quotes": text.count('"') % 2 == 1,
        "sentence": bool(re.search(r"[a-z][.!] [a-z]", body)),
    }
    return ", ".join(problem for problem, found in checks.items() if found)


@pytest.mark.parametrize("name", TEXT)
def test_texts_look_natural(tasks: dict[str, Task], name: str) -> None:
    wrong = [(unnatural(row.input, name), row.input) for row in tasks[name].train if unnatural(row.input, name)]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    "text",
    [
        "The {dish} was cold and we never went there again.",
        "The soup  was cold and we never went there again.",
        "the soup was cold and we never went there again.",
        "The soup was a awful mess and we never went back.",
        "The soup was was cold and we never went back.",
        "The soup was cold and we never went there again",
        "Too short.",
    ],
)
def test_the_look_of_a_text_can_be_wrong(text: str) -> None:
    assert unnatural(text, "reviews")


@pytest.mark.parametrize("name", TEXT)
def test_thousands_of_rows_are_all_different(name: str) -> None:
    task = builtin(tasks=[name], train=3000, dev=0, test=10).tasks[0]
    assert len(set(keys(task.train))) == 3000


def bag_of_words(task: Task) -> float:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    vectoriser = text.TfidfVectorizer()
    seen = vectoriser.fit_transform(keys(task.train))
    model = linear.LogisticRegression(C=10, max_iter=300).fit(seen, [row.target for row in task.train])
    return float(model.score(vectoriser.transform(keys(task.test)), [row.target for row in task.test]))


def test_words_alone_help_but_do_not_settle_the_tasks(tasks: dict[str, Task]) -> None:
    score = {name: bag_of_words(task) for name, task in tasks.items()}
    above = {name: score[name] - 1 / len(task.labels) for name, task in tasks.items()}
    assert sum(gain > 0.25 for gain in above.values()) >= 8, score
    assert sum(value < 0.97 for value in score.values()) >= 8, score
    # Only the order of the words tells which of two events came first.
    assert score["order"] < 0.6, score


def features(picture: Any) -> list[float]:
    """Distances from the border's colour, and edges in four directions: enough for a nearest centroid."""
    grey = picture.mean(axis=2)
    grey = abs(grey - np.median(grey))
    grey = grey / (grey.max() + 1)
    edges = (
        abs(grey[1:] - grey[:-1]),
        abs(grey[:, 1:] - grey[:, :-1]),
        abs(grey[1:, 1:] - grey[:-1, :-1]),
        abs(grey[1:, :-1] - grey[:-1, 1:]),
    )
    means = [float((edge**2).mean()) for edge in edges]
    return [float(grey.mean()) * 2, *(mean / (sum(means) + 1e-6) * 4 for mean in means), sum(means) * 4]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_can_be_told_apart(pictures: dict[str, Task], name: str) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    task = pictures[name]
    seen = np.array([features(row.input) for row in task.train])
    asked = np.array([features(row.input) for row in task.test])
    centre, spread = seen.mean(0), seen.std(0) + 1e-6
    model = linear.LogisticRegression(max_iter=500).fit((seen - centre) / spread, [row.target for row in task.train])
    score = model.score((asked - centre) / spread, [row.target for row in task.test])
    assert score > 1 / 3 + 0.12


def test_unknown_tasks_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="did you mean 'reviews'"):
        builtin(tasks=["review"])
    with pytest.raises(DataError, match="no task 'news'; known: counts"):
        builtin_images(tasks=["news"])
    with pytest.raises(DataError, match=r"write \['news'\]"):
        builtin(tasks="news")
    with pytest.raises(DataError, match="0 train rows; give at least 1"):
        builtin(train=0)
    with pytest.raises(DataError, match="twice"):
        builtin(tasks=["news", "news"], train=5, dev=0, test=5)


def test_a_grammar_that_runs_dry_says_so() -> None:
    from everlora.benchmarks.synthetic.spec import Spec

    spec = Spec(
        name="dry", labels=("a",), instruction="", draw=lambda dice, label: "one two three four five six seven eight"
    )
    with pytest.raises(DataError, match="no more distinct 'a' rows after 1"):
        spec.task(seed=0, train=2, dev=0, test=1)


def test_grammar() -> None:
    assert tidy("a apple and a hour. a one-way street, a union") == "An apple and an hour. A one-way street, a union"
    writer = Writer(Dice(0), lexicon(thing="box|{colour} bag", colour="red"), who="Ann")
    assert {writer.one("thing"), writer.one("thing")} == {"box", "red bag"}
    assert writer.fill("{who} and {what}", what="it") == "Ann and it"


def test_rows_are_examples(tasks: dict[str, Task]) -> None:
    assert all(isinstance(row, Example) for row in tasks["news"].train)


def test_the_number_of_test_rows_leaves_the_training_rows_as_they_are() -> None:
    few, many = (builtin(train=60, dev=n, test=n).tasks for n in (10, 300))
    assert [list(task.train) for task in few] == [list(task.train) for task in many]
