"""Which rows are kept, how they are written down, and in which order rows are shown."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlora import Example, Task, parse
from everlora.core.errors import ConfigError, FolderError
from everlora.core.roles import BlockStep, plan
from everlora.parts.replay import Replay, balanced, share
from everlora.training import rehearsal
from everlora.training.order import Blocks, EqualShares
from everlora.training.stages import Stage


@pytest.mark.parametrize(
    ("rows", "kept"),
    [(14_000, 280), (10_000, 200), (5_000, 100), (4_000, 80), (3_000, 60), (2_000, 40), (400, 8), (250, 5), (49, 0)],
)
def test_sizes_of_two_percent(rows, kept):
    assert share(0.02, rows) == kept == len(Replay().choose(["x"] * rows, random.Random(0)))


def test_a_share_is_exact():
    assert int(0.29 * 100) == 28  # in floating point
    assert share(0.29, 100) == 29
    assert share(1.0, 7) == 7
    assert share(1e-5, 10**5) == 1


CLASSES = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60)


@given(CLASSES, st.integers(0, 60), st.integers(0, 99))
def test_a_balanced_choice(classes, size, seed):
    size = min(size, len(classes))
    chosen = balanced(classes, size, random.Random(seed))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(len(classes)))
    there, got = Counter(classes), Counter(classes[k] for k in chosen)
    quota = max(1, size // len(there))
    assert all(got[name] >= min(quota, count) for name, count in there.items())
    assert len(chosen) == max(size, len(there))
    assert chosen == balanced(classes, size, random.Random(seed))


def test_balance_evens_out():
    classes = ["common"] * 90 + ["rare"] * 10
    got = Counter(classes[k] for k in Replay(ratio=0.1, balanced=True).choose(classes, random.Random(0)))
    assert got == {"common": 5, "rare": 5}


@given(CLASSES, st.floats(0, 1), st.integers(0, 99))
def test_an_unbalanced_choice(classes, ratio, seed):
    part = Replay(ratio=ratio)
    chosen = part.choose(classes, random.Random(seed))
    assert len(set(chosen)) == len(chosen) == share(ratio, len(classes))
    assert chosen == part.choose(classes, random.Random(seed))


def test_nothing_is_kept_at_ratio_zero():
    for even in (False, True):
        assert Replay(ratio=0.0, balanced=even).choose(["a", "b"], random.Random(0)) == []


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("replay(ratio=1.5)", "from 0 to 1"),
        ("replay(ratio=-0.1)", "from 0 to 1"),
        ("replay(ratio=nan)", "from 0 to 1"),
        ("replay(resample=sometimes)", "resample"),
        ("mtl+replay", "'replay' and 'mtl'|exclude|task after task"),
        ("mtl(mixing=random)", "mixing"),
        ("seqlora-replay+replay(ratio=0.1)", "exclude one another"),
        ("kif(inner=0)", "at least one inner step"),
        ("kif(outer=0)", "at least one outer step"),
        ("kif(quantile=1)", "quantile"),
        ("kif(beta1=1)", "beta1"),
        ("kif(temperature=0)", "temperature"),
        ("kif+inclora", "exclude one another"),
    ],
)
def test_what_is_refused(expression, says):
    with pytest.raises(ConfigError, match=says):
        parse(expression)


def test_replay_goes_with_any_host():
    for host in ("seqlora", "ella", "o-lora", "lb-cl", "ps-lora", "per-task"):
        rehearsed_only, both = parse(host), parse(f"{host}+replay(ratio=0.1)")
        assert both.rehearsal == Replay(ratio=0.1)
        assert (both.adapter, both.consolidator, both.penalties) == (
            rehearsed_only.adapter,
            rehearsed_only.consolidator,
            rehearsed_only.penalties,
        )
    assert parse("replay").adapter == parse("seqlora").adapter
    assert parse("seqlora-replay").named("x") == parse("seqlora+replay").named("x") == parse("replay").named("x")
    assert "rehearsal" not in parse("seqlora").describe().plain()
    assert "mixing" not in parse("mtl").describe().plain()
    assert parse("mtl(mixing=equal)").describe().plain()["mixing"] == "equal"


AWKWARD = ["plain", "how many pixels?", "a\u2028b\x85c\nd", "\ud800 lone", "", "汉字 ü"]


def text_task(name="words", labels=("yes", "no"), form="labelled", inputs=AWKWARD):
    rows = [Example(one, (labels or ("free",))[k % len(labels or "x")]) for k, one in enumerate(inputs)]
    test = [Example("a test row" if form != "chat" else [], rows[0].target)]
    return Task(name=name, train=rows, test=test, dev=test, labels=labels, form=form, instruction="Say it.")


def image_task():
    draw = np.random.default_rng(0)
    shapes = [(4, 4, 3), (4, 4), (5, 3, 3)]
    pixels = [draw.integers(0, 256, size=shape).astype(np.uint8) for shape in shapes]
    pixels.append(np.asfortranarray(pixels[0][::-1]))
    rows = [Example(one, "ab"[k % 2]) for k, one in enumerate(pixels)]
    return Task(name="seen", train=rows, test=rows[:1], labels=("a", "b"), form="image")


CHAT = [[{"role": "user", "content": f"hello {k}\u2029"}] for k in range(3)]


@pytest.mark.parametrize(
    "task", [text_task(), text_task("open", (), "prompted"), text_task("talk", (), "chat", CHAT), image_task()]
)
def test_rows_come_back_as_they_were(task, tmp_path):
    part = Replay(ratio=1.0)
    held, lacking = rehearsal.select_rows(part, [task], seed=3)
    rehearsal.write(tmp_path, part, held)
    (back,) = rehearsal.read(tmp_path, part, [task])
    assert not lacking
    assert len(back.test) == 1, "a task has a test row, and of what is rehearsed it is answered by nobody"
    assert (back.name, back.labels, back.instruction, back.form) == (
        task.name,
        task.labels,
        task.instruction,
        task.form,
    )
    assert [row.target for row in back.train] == [row.target for row in task.train]
    for mine, theirs in zip(back.train, task.train, strict=True):
        if task.form == "image":
            assert np.array_equal(mine.input, theirs.input)
            assert mine.input.dtype == np.uint8
            assert mine.input.flags.writeable
        else:
            assert mine.input == theirs.input


@pytest.mark.parametrize("facts", [{}, {"shared_labels": False, "prompt_limit": 40}, {"shared_labels": True}])
def test_what_a_task_says_of_its_labels_and_prompts_comes_back(facts, tmp_path):
    task = replace(text_task(), **facts)
    rehearsal.write(tmp_path, Replay(), [task])
    (back,) = rehearsal.read(tmp_path, Replay(), [])
    assert (back.shared_labels, back.prompt_limit) == (task.shared_labels, task.prompt_limit)
    first = json.loads((tmp_path / rehearsal.FILE).read_text().splitlines()[0])
    assert {*first["task"]} == {"name", "labels", "instruction", "form", *facts}


def test_what_draws_anew_writes_no_rows_and_reads_the_tasks_that_it_is_given(tmp_path):
    anew, task = Replay(resample="each-task"), text_task()
    rehearsal.write(tmp_path, anew, [task])
    rehearsal.write(tmp_path, Replay(), [])
    assert not (tmp_path / rehearsal.FILE).exists()
    assert rehearsal.read(tmp_path, anew, [task]) == [task]
    assert rehearsal.read(tmp_path, Replay(), [task]) == []


def test_without_a_part_nothing_is_stored_and_all_is_trained():
    stage = Stage(1, "x", (text_task(),), 0)
    assert rehearsal.select_rows(None, stage.tasks, 0) == ([], [])
    assert rehearsal.draw_rows(None, stage.tasks, 0, 2) == list(stage.tasks)
    assert rehearsal.stage_to_train(None, stage, 0) is stage
    assert rehearsal.stage_to_train(Replay(ratio=0.4), stage, 0) is stage
    assert not rehearsal.draws_for_every_task(None)


def test_rows_are_counted_in_bytes():
    task = Task(name="t", train=[Example("é", "no"), Example("ab", "yes")], test=[Example("", "no")])
    assert (rehearsal.count([task]), rehearsal.size([task])) == (2, 2 + 2 + 2 + 3)
    assert rehearsal.size([image_task()]) == 48 + 16 + 45 + 48 + 4
    chat = Task(name="c", train=[Example([{"role": "user", "content": "é"}], "é")], test=[Example("", "é")])
    assert rehearsal.size([chat]) == len('[{"role": "user", "content": "é"}]') + 1 + 2
    assert (rehearsal.count([]), rehearsal.size([])) == (0, 0)


def test_test_rows_are_never_kept():
    task = text_task()
    for seed in range(5):
        for part in (Replay(ratio=0.5), Replay(ratio=0.5, balanced=True), Replay(ratio=0.5, resample="each-task")):
            held, _ = rehearsal.select_rows(part, [task], seed)
            for rows in rehearsal.draw_rows(part, held, seed, stage=2):
                assert (len(rows.test), len(rows.dev)) == (1, 0)
                assert all(any(row is one for one in task.train) for row in rows.train)
                assert "a test row" not in [row.input for row in (*rows.train, *rows.test, *rows.dev)]


def test_free_text_has_no_classes():
    task = text_task("open", (), "prompted", [f"question {k}" for k in range(20)])
    task = Task(
        name="open", train=[Example(row.input, f"answer {k}") for k, row in enumerate(task.train)], test=task.test
    )
    (rows,), _ = rehearsal.select_rows(Replay(ratio=0.1, balanced=True), [task], 0)
    assert len(rows.train) == 2


def test_rows_are_drawn_anew_for_each_task_and_from_everything():
    task = text_task(inputs=[f"text {k}" for k in range(40)])
    fixed, anew = Replay(ratio=0.1), Replay(ratio=0.1, resample="each-task")
    (once,), _ = rehearsal.select_rows(fixed, [task], 0)
    assert len(once.train) == 4
    assert rehearsal.draw_rows(fixed, [once], 0, 2) == rehearsal.draw_rows(fixed, [once], 0, 3) == [once]
    held, _ = rehearsal.select_rows(anew, [task], 0)
    assert held == [task]
    seen = [[row.input for row in rehearsal.draw_rows(anew, held, 0, stage)[0].train] for stage in (2, 3, 4, 2)]
    assert seen[0] == seen[3]
    assert len({tuple(rows) for rows in seen}) == 3
    assert all(len(rows) == 4 for rows in seen)


def test_a_task_of_which_nothing_is_kept_is_told():
    held, lacking = rehearsal.select_rows(Replay(), [text_task()], 0)
    assert held == []
    assert lacking == ["no row of 'words' is kept to be rehearsed"]


def test_a_buffer_without_rows_cannot_be_learned():
    stage = Stage(1, "mtl-buffer", (text_task(),), 0)
    with pytest.raises(ConfigError, match="keeps no row"):
        rehearsal.stage_to_train(Replay(rehearsed_only=True), stage, 0)
    (rows,) = rehearsal.stage_to_train(Replay(ratio=0.4, rehearsed_only=True), stage, 0).tasks
    assert [rows] == rehearsal.select_rows(Replay(ratio=0.4), stage.tasks, 0)[0]  # those that replay keeps


@pytest.mark.parametrize("content", ["{", '{"input": "x", "target": "y"}', '{"task": {}}\n', "\xff", "[]"])
def test_a_damaged_file(content, tmp_path):
    (tmp_path / rehearsal.FILE).write_text(content, encoding="latin-1")
    with pytest.raises(FolderError, match="damaged"):
        rehearsal.read(tmp_path, Replay(), [])


def test_a_plan_by_hand():
    new, old = BlockStep(rehearsed=False), BlockStep(rehearsed=True)
    first, turn = BlockStep(rehearsed=False, opens=True), BlockStep(rehearsed=True, turns=True)
    last, only = BlockStep(rehearsed=True, closes=True), BlockStep(rehearsed=True, turns=True, closes=True)
    assert plan(5, 3, 2) == (first, new, new, turn, last, first, new, turn, last)
    assert plan(1, 8, 3) == (first, turn, old, last)
    assert plan(2, 1, 1) == (first, only, first, only)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4))
def test_blocks_show_each_row_as_often_as_any_other(fresh, kept, batch, inner, outer):
    order = Blocks(fresh, kept, batch=batch, inner=inner, outer=outer, seed=7)
    rows = list(order)
    assert len(rows) == len(order) == batch * len(order.turns)
    new, old = [], []
    for turn, k in zip(order.turns, range(0, len(rows), batch), strict=True):
        (old if turn.rehearsed else new).extend(rows[k : k + batch])
    assert set(new) == set(range(fresh))  # an epoch is a pass over the new rows
    assert set(old) <= set(range(fresh, fresh + kept))
    for counts, of in ((Counter(new), fresh), (Counter(old), kept)):
        assert max(counts.values()) - (min(counts.values()) if len(counts) == of else 0) <= 1
    assert list(order) == rows
    order.set_epoch(1)
    assert Counter(k < fresh for k in order) == Counter(k < fresh for k in rows)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_equal_mixing_shows_every_task_equally_often(sizes):
    order = EqualShares(sizes, seed=1)
    rows, tasks = list(order), [k for k, size in enumerate(sizes) for _ in range(size)]
    assert len(rows) == len(order) == len(sizes) * max(sizes)
    assert set(rows) == set(range(sum(sizes)))
    for k in range(0, len(rows), len(sizes)):
        assert sorted(tasks[row] for row in rows[k : k + len(sizes)]) == list(range(len(sizes)))
    counts = Counter(rows)
    for task in range(len(sizes)):
        mine = [counts[row] for row in range(sum(sizes)) if tasks[row] == task]
        assert max(mine) - min(mine) <= 1


def test_orders_differ_from_epoch_to_epoch_and_by_seed():
    for make in (
        lambda seed: EqualShares([20, 20], seed),
        lambda seed: Blocks(40, 9, batch=4, inner=2, outer=1, seed=seed),
    ):
        one, other = make(1), make(2)
        first = list(one)
        assert first != list(other)
        one.set_epoch(1)
        assert list(one) != first
