"""Inputs that were read wrongly once, or still are: the smallest of each kind that was found, and the hostile ones.

What still fails is marked; whoever mends one takes the mark away.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.harness import judged
from fuzz.hostile import CASES
from fuzz.targets import TARGETS, Rows

HOSTILE: dict[str, str] = {}
"""Hostile inputs that are read wrongly today, and how."""

DEAR = {"rows/png-bomb", "rows/gzip-under-another-name", "name/many-labels", "record/matrix-huge", "rows/long-label"}
"""Hostile inputs that take seconds, read or refused, and so run in ``make test-all`` only."""

LONG = "x" * 3000

SMALL: dict[str, tuple[str, Any, str]] = {
    "recipe-date": ("recipe", b"seed: 2023-02-30\n", ""),
    "recipe-int": ("recipe", b"seed: !!int x\n", ""),
    "recipe-bool": ("recipe", b"seed: !!bool x\n", ""),
    "recipe-timestamp": ("recipe", b"seed: !!timestamp x\n", ""),
    "recipe-itself": ("recipe", b"train: &a {b: *a}\n", ""),
    "recipe-surrogate": ("recipe", b'model: tiny-llama\nlora: {target_modules: "\\ud800"}\n', ""),
    "recipe-long-word": ("recipe", b"metric: " + LONG.encode(), ""),
    "recipe-unknown-argument": ("recipe", b"train: {news: 1}\n", ""),
    "protocol-date": ("protocol", b"title: t\nsettings: 2023-02-30\n", ""),
    "protocol-bool": ("protocol", b"title: !!bool x\nsettings: {}\n", ""),
    "protocol-timestamp": ("protocol", b"title: !!timestamp x\nsettings: {}\n", ""),
    "protocol-long-key": ("protocol", f"title: t\npublished: {{model: {{? {LONG} : 1}}}}\nsettings: {{}}\n".encode(), ""),
    "option-c1": ("options", ("--dtype", "K\x9a"), ""),
    "option-long": ("options", ("--metric", LONG), ""),
    "option-surrogate": ("options", ("--lora-target-modules", "\ud800"), ""),
    "tasks-date": ("tasks", b"tasks: 2023-02-30\n", ""),
    "tasks-int": ("tasks", b"tasks: !!int x\n", ""),
    "tasks-bool": ("tasks", b"tasks: !!bool x\n", ""),
    "tasks-timestamp": ("tasks", b"tasks: !!timestamp x\n", ""),
    "tasks-map-of-text": ("tasks", b"tasks: !!map x\n", ""),
    "tasks-set": ("tasks", b"tasks: !!set {a, b}\n", ""),
    "tasks-long-key": ("tasks", f"? {LONG}\n: 1\n".encode(), ""),
    "tasks-file-is-nul": ("tasks", b'tasks: [{name: a, train: "\\0", test: b.jsonl, labels: [good, bad]}]\n', ""),
    "tasks-file-has-nul": ("tasks", b'tasks: [{name: a, train: "a\\0.jsonl", test: b.jsonl}]\n', ""),
    "tasks-escape-in-label": ("tasks", b'tasks: [{name: a, train: a.jsonl, test: b.jsonl, labels: [good, "\\e[31m"]}]\n', ""),
    "tasks-long-label": ("tasks", f"tasks: [{{name: a, train: a.jsonl, test: b.jsonl, labels: [good, {LONG}]}}]\n".encode(), ""),
    "tasks-equal-long-labels": ("tasks", f"tasks: [{{name: a, train: a.jsonl, test: b.jsonl, labels: [{LONG}, {LONG}]}}]\n".encode(), ""),
    "rows-escape-in-column": ("rows", Rows("csv", b"te\x1bxt,label\na,b\n"), ""),
    "rows-escape-in-other-column": ("rows", Rows("csv", b"text,\x1b\na,b\n", (("text_column", "text"), ("label_column", "label"))), ""),
    "rows-escape-in-label": ("rows", Rows("jsonl", b'{"text": "a", "label": "\\u001b"}\n'), ""),
    "rows-escape-in-prompt": ("rows", Rows("csv", b"p\x13ompt,answer\nsay,it\n", (("text_column", "text"),)), ""),
    "rows-escape-in-conversation": ("rows", Rows("json", b'[{"conversations": 1, "\\u0083": 1}]'), ""),
    "rows-role-is-a-list": ("rows", Rows("json", b'[{"conversations": [{"from": ["human"], "value": ""}]}]'), ""),
    "rows-long-column": ("rows", Rows("tsv", f"{LONG}\tb\n1\t2\n".encode()), ""),
    "rows-one-long-column": ("rows", Rows("tsv", f"{LONG}\n1\n".encode()), ""),
    "rows-long-conversation": ("rows", Rows("csv", f"conversations,{LONG}\n1,2\n".encode()), ""),
    "expression-long": ("expression", f"{LONG}(", ""),
    "expression-long-name": ("expression", LONG, ""),
    "expression-long-option": ("expression", f"ella({LONG})", ""),
    "folder-escape-in-column": ("folders", ("trace", "t/test.json", b'[{"answer": "d", "\\u001b": {}}]'), ""),
    "folder-escape-in-first-column": ("folders", ("trace", "t/train.json", b'[{"answer": "b", "\\u001b": "a"}]'), ""),
    "folder-escape-in-options": ("folders", ("info", "dataset_options.json", b'{"c": {"options": ["good", "\\u009b"]}}'), ""),
    "folder-nul-in-names": ("folders", ("info", "dataset_info.json", b'{"\\u0000": {}}'), ""),
    "record-row-without-its-task": ("records", ("tasks/02-news/evaluation-1/predictions.jsonl",
        b'{"task": "reviews", "row": 0, "target": "a", "prediction": "b", "correct": false}\n'
        b'{"task": "news", "row": 0, "target": "a", "prediction": "b", "correct": false}\n'
        b'{"task": "news", "row": 1, "target": "a", "prediction": "b", "correct": false}\n', "compare"), ""),
    "record-tag": ("records", ("run.yaml", b"schema: !!int x\n", "status"), ""),
    "record-date": ("records", ("run.yaml", b"id: 2023-02-30\n", "config"), ""),
    "model-no-end": ("model", ("tokenizer_config.json", b'{"pad_token": "<pad>", "bos_token": "<s>"}'), ""),
    "model-new-pad": ("model", ("tokenizer_config.json", b'{"pad_token": "<new>", "eos_token": "</s>", "bos_token": "<s>"}'), ""),
    "model-length-is-text": ("model", ("tokenizer_config.json", b'{"eos_token": "</s>", "model_max_length": "abc"}'), ""),
    "model-length-is-an-object": ("model", ("tokenizer_config.json", b'{"eos_token": "</s>", "model_max_length": {}}'), ""),
    "model-length-is-negative": ("model", ("tokenizer_config.json", b'{"eos_token": "</s>", "model_max_length": -1}'), ""),
    "model-no-bos": ("model", ("tokenizer_config.json", b'{"eos_token": "</s>"}'), ""),
    "model-begin-is-a-list": ("model", ("generation_config.json", b'{"bos_token_id": [{}], "eos_token_id": null}'), ""),
}  # fmt: skip
"""Small inputs: the door, the input, and how it is read wrongly today, empty where it is mended."""


def hostile() -> list[Any]:
    found = []
    for name in CASES:
        marks = [pytest.mark.full] if name in DEAR else []
        marks += [pytest.mark.xfail(strict=True, reason=HOSTILE[name])] if name in HOSTILE else []
        found.append(pytest.param(name, marks=marks, id=name))
    return found


def small() -> list[Any]:
    return [
        pytest.param(door, value, marks=[pytest.mark.xfail(strict=True, reason=why)] if why else [], id=name)
        for name, (door, value, why) in SMALL.items()
    ]


@pytest.fixture(scope="module")
def read(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a process of its own says of the hostile inputs that are wanted."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = [item.callspec.params["hostile_input"] for item in here if "hostile_input" in item.callspec.params]
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run([sys.executable, str(script), *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("hostile_input", hostile())
def test_a_hostile_input_is_read_or_refused_in_a_line(read: dict[str, Any], hostile_input: str) -> None:
    assert read[hostile_input] is None


@pytest.mark.parametrize(("door", "value"), small())
def test_a_small_input_is_read_or_refused_in_a_line(door: str, value: Any) -> None:
    assert judged(functools.partial(TARGETS[door].read, value)) is None
