"""Answers of ``everlora run`` against a process that never imports everlora, architecture by architecture.

Every architecture is run by the command line in four ways and answered again by ``plain.py``: the same rows, one by
one, through a plain forward or a plain ``generate`` of transformers, after training with the adapter at the root of
the run's folder as stock peft loads it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import everlora
from oracle import models

pytestmark = pytest.mark.timeout(3600)
"""The first test waits for all that the others look at."""

Answers = Mapping[str, Any]
LABELS = (*"abcdefgh", "yes", "no", "good", "bad", "perhaps not")
"""Many and short: the best of them then changes with the text."""
MOODS = ("great", "slow", "not", "price or film")
TRAINED = ("--max-steps", "3", "--learning-rate", "1e-2", "--lora-r", "4")
TEXT_WAYS = {
    "labels": ("zero-shot", "labels"),
    "greedy": ("zero-shot", "generate"),
    "trained-labels": ("ella", "labels"),
    "trained-greedy": ("seqlora", "generate"),
}
CLASS_WAYS = {"trained-labels": ("ella", "labels"), "trained-greedy": ("seqlora", "generate")}
"""A head has no row before the first task, so that there is nothing to answer without training."""

CHEAP = {
    "decoder": ("llama", "gpt2", "mpt", "gemma2"),
    "encoder-decoder": ("t5", "bart"),
    "encoder": ("bert", "distilbert", "roberta"),
    "image": ("vit",),
}
"""Those of every run of the suite; the others are marked ``full``."""
CROSSED = ("labels", "trained-greedy")
"""Ways in which every cheap architecture answers every day: both scorings, with and without an adapter. The first of
a family answers in all ways, and so do all in ``make test-all``.
"""

TARGETS = {
    "phi3": "qkv_proj,o_proj",
    "persimmon": "query_key_value",
    "mamba": "in_proj,x_proj",
    "falcon_mamba": "in_proj,x_proj",
    "mamba2": "in_proj",
    "modernbert": "Wqkv,Wi",
    "convnext": "pwconv1,pwconv2",
}
"""Where peft knows no layers to adapt; everlora says so in a line, and these are then named."""

BROKEN: dict[tuple[str, str, str], str] = {}
"""What fails today, by family, architecture and way; each is one to mend, and leaves this list when it is."""


def cases() -> list[Any]:
    found = []
    for family, kinds in models.FAMILIES.items():
        for kind in kinds:
            text = family in ("decoder", "encoder-decoder")
            for way in TEXT_WAYS if text else CLASS_WAYS:
                everyday = kind in CHEAP[family] and (not text or kind == CHEAP[family][0] or way in CROSSED)
                marks = [] if everyday else [pytest.mark.full]
                why = BROKEN.get((family, kind, way)) or BROKEN.get((family, kind, "*"))
                marks += [pytest.mark.xfail(strict=True, reason=why)] if why else []
                found.append(pytest.param(family, kind, way, marks=marks, id=f"{family}-{kind}-{way}"))
    return found


def write_tasks(where: Path) -> dict[str, dict[str, Any]]:
    """Write the two tasks with labels and the one without; return what plain.py has to know of each."""
    dice = random.Random(0)
    words = ["good", "bad", "film", "music", "team", "great", "slow", "fast", "book", "city", "service", "price"]

    def text(k: int, mark: str) -> str:
        return f"{mark}{k} " + " ".join(dice.choices(words, k=dice.randint(1, 12)))

    def split(name: str, rows: int, columns: tuple[str, str], answers: tuple[str, ...]) -> list[str]:
        texts = [text(k, name[-2:]) for k in range(rows)]
        lines = [json.dumps({columns[0]: t, columns[1]: answers[k % len(answers)]}) for k, t in enumerate(texts)]
        (where / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        return texts

    known: dict[str, dict[str, Any]] = {}
    listed = []
    for name, labels, instruction in (("fits", LABELS, "Say which one fits."), ("mood", MOODS, "What mood is it?")):
        split(f"{name}-train", 26, ("text", "label"), labels)
        rows = split(f"{name}-test", 13, ("text", "label"), labels)
        known[name] = {"labels": labels, "instruction": instruction, "rows": rows}
        files = {"train": f"{name}-train.jsonl", "test": f"{name}-test.jsonl"}
        listed.append({"name": name, "labels": list(labels), "instruction": instruction, **files})
    split("free-train", 12, ("prompt", "completion"), ("a good film", "slow music", "the city book"))
    rows = split("free-test", 8, ("prompt", "completion"), ("a good film", "slow music"))
    known["free"] = {"labels": (), "instruction": "", "rows": rows}
    free = {"name": "free", "train": "free-train.jsonl", "test": "free-test.jsonl"}
    (where / "labelled.yaml").write_text(json.dumps({"tasks": listed}))
    (where / "all.yaml").write_text(json.dumps({"tasks": [*listed, free]}))
    return known


def images() -> dict[str, dict[str, Any]]:
    """The rows of two built-in tasks, as lists of bytes."""
    stream = everlora.open_stream("builtin", tasks=["shapes", "counts"], modality="image", max_eval_samples=12)
    return {task.name: {"labels": task.labels, "rows": [row.input.tolist() for row in task.test]} for task in stream}


def command(*argv: str) -> str:
    """Run the command line in this process; what it says on stderr if it fails, else nothing."""
    from everlora.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(argv))
        except SystemExit as end:
            return "" if not end.code else err.getvalue()[-600:] or f"exit {end.code}"
        except Exception as error:  # a traceback is the finding
            return f"{type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def overheard(thing: Any, name: str) -> Iterator[list[Any]]:
    """What a method returns, call by call."""
    seen: list[Any] = []
    inner = getattr(thing, name)

    def outer(*args: Any, **more: Any) -> Any:
        seen.append(inner(*args, **more))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thing, name, outer)
        yield seen


class Bench:
    """Runs every architecture of a session once, and plain.py once for all of them."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.failed: dict[str, str] = {}
        self.scores: dict[str, list[list[float]]] = {}
        self.recorded: dict[str, dict[str, list[str]]] = {}
        self.jobs: list[dict[str, Any]] = []
        self.tasks = write_tasks(where)

    def model(self, family: str, kind: str) -> Path:
        """The folder of an architecture."""
        base = self.where / family / kind
        return base if base.is_dir() else models.build(family, kind, self.where / family)

    def run(self, family: str, kind: str, way: str) -> None:
        """Let everlora answer, and note what plain.py shall answer."""
        base = self.model(family, kind)
        text = family in ("decoder", "encoder-decoder")
        method, scoring = (TEXT_WAYS if text else CLASS_WAYS)[way]
        known = self.tasks if family != "image" else self.pictures
        names = [name for name in known if name != "free" or (scoring == "generate" and text)]
        benchmark = ["builtin", "--tasks", "shapes,counts", "--max-train-samples", "12", "--max-eval-samples", "12"]
        if family != "image":
            benchmark = [str(self.where / ("all.yaml" if "free" in names else "labelled.yaml"))]
        key, out = f"{family}/{kind}/{way}", self.where / f"{family}-{kind}-{way}"
        wrong = command(
            *("run", "--model", str(base), "--method", method, "--out", str(out), "--dtype", "float32", *TRAINED),
            *("--device", "cpu", "--max-new-tokens", "12", "--eval-scoring", scoring, "--eval-schedule", "final"),
            *("--benchmark", *benchmark),
            *(("--lora-target-modules", TARGETS[kind]) if kind in TARGETS else ()),
            # As AutoModelForSequenceClassification reads it; other pooling has its own in test_pooled_card.py.
            *(("--pooling", "head") if family == "encoder" else ()),
        )
        if wrong:
            self.failed[key] = wrong
            return
        last = sorted(out.glob("tasks/*/evaluation-1/predictions.jsonl"))[-1]
        rows = [json.loads(line) for line in last.read_text().splitlines()]
        self.recorded[key] = {name: [row["prediction"] for row in rows if row["task"] == name] for name in names}
        if way == "labels":
            self.scores |= {f"{key}/{name}": scores for name, scores in self.scored(base, family).items()}
        job = {"family": family, "base": str(base), "scoring": scoring, "longest": 12}
        job["adapter"] = str(out) if method != "zero-shot" else None
        job["head"] = list(dict.fromkeys(label for name in names for label in known[name]["labels"]))
        self.jobs += [{**job, **known[name], "id": f"{key}/{name}"} for name in names]

    def scored(self, base: Path, kind: str) -> dict[str, list[list[float]]]:
        """Every label's score, row by row, as they are on the way to the best one."""
        loaded, found = everlora.load(str(base), dtype="float32", device="cpu"), {}
        for task in everlora.open_stream(self.where / "labelled.yaml"):
            with overheard(loaded.family, "label_scores" if kind == "decoder" else "_scores") as seen:
                loaded.family.predict(loaded.model, task, task.test, "labels")
            found[task.name] = torch.cat(seen).tolist()
        return found

    @functools.cached_property
    def pictures(self) -> dict[str, dict[str, Any]]:
        return images()

    @functools.cached_property
    def plain(self) -> Answers:
        """What transformers answers alone, in a process of its own."""
        script = Path(__file__).with_name("plain.py")
        outside = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(script)],
            input=json.dumps(self.jobs),
            capture_output=True,
            text=True,
            env=outside,
            check=False,
        )
        if done.returncode:
            return {job["id"]: {"error": done.stderr[-800:]} for job in self.jobs}
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """All that the selected tests look at."""
    found = Bench(tmp_path_factory.mktemp("oracle"))
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    for item in here:
        values = item.callspec.params
        if "way" in values:
            found.run(values["family"], values["kind"], values["way"])
    return found


@pytest.mark.parametrize(("family", "kind", "way"), cases())
def test_answers_are_those_of_plain_transformers(bench: Bench, family: str, kind: str, way: str) -> None:
    key = f"{family}/{kind}/{way}"
    if key in bench.failed:
        pytest.fail(bench.failed[key], pytrace=False)
    for task, answers in bench.recorded[key].items():
        plain = bench.plain[f"{key}/{task}"]
        assert "error" not in plain, plain
        assert answers == plain["answers"], task
        if f"{key}/{task}" in bench.scores:
            torch.testing.assert_close(
                torch.tensor(bench.scores[f"{key}/{task}"]), torch.tensor(plain["scores"]), atol=2e-4, rtol=1e-5
            )


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 4, "length_penalty": 2.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 9},
        {"repetition_penalty": 3.0, "do_sample": True, "temperature": 3.0},
        {"bos_token_id": [{}]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_a_checkpoint_do_not_change_what_is_greedy(bench: Bench, settings: dict[str, Any]) -> None:
    base, changed = bench.model("decoder", "llama"), bench.where / f"changed-{next(iter(settings))}"
    shutil.copytree(base, changed)
    (changed / "generation_config.json").write_text(json.dumps({"pad_token_id": 0, "eos_token_id": 2, **settings}))
    found = {}
    for folder in (base, changed):
        out = bench.where / f"{changed.name}-{folder.name}"
        wrong = command(
            *("run", "--model", str(folder), "--method", "zero-shot", "--out", str(out), "--dtype", "float32"),
            *("--device", "cpu", "--max-new-tokens", "12", "--benchmark", str(bench.where / "all.yaml")),
        )
        assert not wrong
        found[folder] = sorted(out.glob("tasks/*/evaluation-1/predictions.jsonl"))[-1].read_text()
    assert found[base] == found[changed]


@pytest.mark.parametrize("family", list(models.FAMILIES))
def test_the_questions_tell_answers_apart(bench: Bench, family: str) -> None:
    """Answers that are all the same would prove little."""
    several: dict[str, bool] = {}
    for key, tasks in bench.recorded.items():
        kind = key.rpartition("/")[0]
        several[kind] = several.get(kind, False) or any(len(set(answers)) > 1 for answers in tasks.values())
    assert not [kind for kind, many in several.items() if kind.startswith(f"{family}/") and not many]
