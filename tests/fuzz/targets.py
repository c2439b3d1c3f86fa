"""The doors through which files and words of others come in, each with the inputs to try on it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from hypothesis import strategies as st

import everlora
from fuzz.harness import command
from fuzz.inputs import as_json, as_yaml, damaged, mutated, spliced, texts, values, written
from sealing import edit

Read = Callable[[Any, Path], None]


@dataclass(frozen=True)
class Target:
    """A door.

    Attributes:
        inputs: what is tried.
        read: reads one of them, in an empty folder.
        cost: how dear one execution is, about, in hundredths of a second.
        ready: makes what all inputs are made from, once.
    """

    inputs: st.SearchStrategy[Any]
    read: Read
    cost: int = 1
    ready: Callable[[], object] = bool


ROWS: list[Any] = [{"text": f"row {k} of it", "label": ("good", "bad")[k % 2]} for k in range(4)]
OTHER: list[Any] = [{"text": f"another {k}", "label": ("good", "bad")[k % 2]} for k in range(4)]
TASKS: dict[str, Any] = {
    "name": "desk",
    "tasks": [
        {"name": "a", "train": "a.jsonl", "test": "b.jsonl", "labels": ["good", "bad"], "instruction": "Judge."},
        {"name": "b", "train": "a.jsonl", "test_fraction": 0.5, "metric": "rouge_l", "overlap": "drop"},
        {"name": "c", "source": {"kind": "dataset-info", "path": "info", "name": "c"}},
    ],
}
RECIPE: dict[str, Any] = {
    "model": "tiny-llama",
    "method": "ella(lam=0.1)+replay",
    "benchmark": "builtin",
    "tasks": ["reviews", "news"],
    "order": 1,
    "dtype": "float32",
    "prompt": "{instruction}\n{text}\n",
    "lora": {"r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj"]},
    "train": {"learning_rate": 1e-3, "max_steps": 2, "optim": "adamw_torch", "lr_scheduler_type": "constant"},
    "train_of": {"news": {"max_steps": 3}},
    "evaluation": {"schedule": "full", "scoring": "labels", "batch_size": 4, "general": "off"},
    "max_train_samples": 8,
    "seed": 1,
}
PROTOCOL = {"title": "t", "source": "s", "published": {"model": "m"}, "remarks": ["r"], "settings": {"max_steps": 2}}
PROTOCOL["settings"] = {"max_train_samples": 8, "train": {"max_steps": 2}, "evaluation": {"scoring": "labels"}}


def lines(rows: Any) -> bytes:
    return b"\n".join(as_json(row) for row in rows) + b"\n" if isinstance(rows, list) else as_json(rows)


def write(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)


# Recipes and protocols


def read_recipe(content: bytes, folder: Path) -> None:
    write(folder, r__yaml=content)
    command("run", "--config", str(folder / "r.yaml"), "--dry-run")


def read_protocol(content: bytes, folder: Path) -> None:
    write(folder, p__yaml=content)
    command("run", "--protocol", str(folder / "p.yaml"), "--dry-run")


def read_words(words: tuple[str, str], folder: Path) -> None:
    """A setting as it is typed after ``--set`` or as an option."""
    name, value = words
    option = ["--set", f"{name}={value}"] if not name.startswith("--") else [name, value]
    command("run", "--model", "tiny-llama", *option, "--dry-run")


OPTIONS = (
    "--method",
    "--order",
    "--tasks",
    "--prompt",
    "--dtype",
    "--metric",
    "--lora-target-modules",
    "--protocol",
    "--general",
    "--eval-schedule",
    "learning_rate",
    "optim",
    "max_steps",
    "lr_scheduler_type",
    "deepspeed",
    "fp16",
    "warmup_ratio",
    "fsdp",
    "label_names",
    "output_dir",
    "accelerator_config",
    "",
)


# Files of tasks, and rows


def read_tasks(content: bytes, folder: Path) -> None:
    write(folder, t__yaml=content, a__jsonl=lines(ROWS), b__jsonl=lines(OTHER))
    (folder / "info").mkdir()
    info = {
        "c_train": {"file_name": "../a.jsonl", "columns": {"prompt": "text", "response": "label"}},
        "c_test": {"file_name": "../b.jsonl", "columns": {"prompt": "text", "response": "label"}},
    }
    write(folder / "info", dataset_info__json=as_json(info))
    everlora.open_stream(folder / "t.yaml")


@dataclass(frozen=True)
class Rows:
    """A training file: its ending, its bytes, and what the YAML file says of it."""

    ending: str
    content: bytes
    about: tuple[tuple[str, Any], ...] = ()


def read_rows(rows: Rows, folder: Path) -> None:
    (folder / f"a.{rows.ending}").write_bytes(rows.content)
    write(folder, b__jsonl=lines(OTHER))
    entry = {"name": "a", "train": f"a.{rows.ending}", "test": "b.jsonl", **dict(rows.about)}
    write(folder, t__yaml=as_yaml({"tasks": [entry]}))
    everlora.open_stream(folder / "t.yaml")


SHAPES: tuple[Any, ...] = (
    ROWS,
    [{"prompt": "say it", "completion": "it"}, {"prompt": "say that", "completion": "that"}],
    [{"prompt": "say it", "answer": ["it", "this"]}],
    [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
    [{"instruction": "do", "input": "it", "output": "done", "history": [["a", "b"]], "system": "s"}],
    [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
    [{"text": "one", "label": 0}, {"text": "two", "label": 1}],
    [{"input": "a", "output": ["b", "c"]}],
)


def as_csv(rows: Any, between: str = ",") -> bytes:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return repr(rows).encode("utf-8", "backslashreplace")
    head = list(rows[0])
    cells = [head, *([row.get(name, "") for name in head] for row in rows)]
    text = "\n".join(between.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in cells)
    return text.encode("utf-8", "backslashreplace") + b"\n"


@cache
def parquet(shape: int) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(SHAPES[shape]), out)
    return out.getvalue()


def odd_parquet(rows: Any) -> bytes:
    out = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    except Exception:  # no table can hold these rows; then they are no input either
        return parquet(0)
    return out.getvalue()


some_rows = mutated(SHAPES)
abouts = st.sampled_from(
    (
        (),
        (("labels", ["good", "bad"]),),
        (("text_column", "text"), ("label_column", "label")),
        (("metric", "rouge_l"),),
        (("overlap", "drop"),),
        (("labels", ["0", "1"]),),
    )
)
row_files = st.one_of(
    st.builds(Rows, st.just("jsonl"), some_rows.map(lines), abouts),
    st.builds(Rows, st.just("json"), some_rows.map(as_json), abouts),
    st.builds(Rows, st.just("csv"), some_rows.map(as_csv), abouts),
    st.builds(Rows, st.just("tsv"), some_rows.map(lambda rows: as_csv(rows, "\t")), abouts),
    st.builds(
        Rows, st.sampled_from(("jsonl", "json", "csv", "tsv")), damaged(st.sampled_from(SHAPES).map(lines)), abouts
    ),
    st.builds(Rows, st.sampled_from(("csv", "tsv")), damaged(st.sampled_from(SHAPES).map(as_csv)), abouts),
    st.builds(Rows, st.just("jsonl.gz"), damaged(st.just(gzip.compress(lines(ROWS), mtime=0))), abouts),
    st.builds(Rows, st.just("parquet"), st.integers(0, 6).map(parquet).flatmap(damaged), abouts),
    st.builds(Rows, st.just("parquet"), some_rows.map(odd_parquet), abouts),
    st.builds(
        Rows, st.sampled_from(("jsonl", "csv", "json", "xlsx", "parquet", "zip")), st.binary(max_size=60), abouts
    ),
)


# Expressions of methods


def read_expression(words: str, folder: Path) -> None:
    everlora.parse(words).describe()
    command("methods", words.replace("\0", "")) if not words.startswith("-") else None


NAMES = ("ella", "o-lora", "seqlora", "ps-lora", "lb-cl", "replay", "ties", "migu", "ewc", "zero-shot", "data", "osf")
GIVEN = (
    "lam=0.1",
    "lam=auto",
    "rho=1e9",
    "lam=-1",
    "lam=nan",
    "ratio=2",
    "policy=new",
    "store=svd",
    "x=1",
    "lam",
    "=",
    "lam=1,lam=2",
    "top_layers=99999999999",
    "size=-1",
    "density=inf",
    "tau=0",
    "energy=max",
    "infer=merged",
)
terms = st.builds(
    lambda name, given, closed: f"{name}({given}" + ")" * closed if given else name,
    st.one_of(st.sampled_from(NAMES), texts),
    st.one_of(st.none(), st.sampled_from(GIVEN), texts),
    st.booleans(),
)
expressions = st.one_of(st.lists(terms, min_size=1, max_size=3).map("+".join), texts)


# Records of a run


@cache
def finished() -> Path:
    """The folder of a finished run of two tasks."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-run")) / "run"
    command(
        *("run", "--model", "tiny-llama", "--benchmark", "builtin", "--tasks", "reviews,news", "--max-steps", "1"),
        *("--max-train-samples", "4", "--max-eval-samples", "2", "--max-new-tokens", "2", "--method", "ella+replay"),
        *("--out", str(folder)),
    )
    return folder


RECORDS = (
    "run.yaml",
    "MANIFEST",
    "matrix.json",
    "environment.json",
    "adapter_config.json",
    "tasks/01-reviews/COMMIT",
    "tasks/02-news/COMMIT",
    "tasks/02-news/evaluation-1/COMMIT",
    "tasks/02-news/evaluation-1/predictions.jsonl",
    "tasks/02-news/training.jsonl",
    "tasks/02-news/modules.jsonl",
    "tasks/02-news/adapter_config.json",
    "tasks/02-news/adapter_model.safetensors",
)


@st.composite
def records(draw: st.DrawFn) -> tuple[str, bytes, str]:
    """A file of the run, what it holds now, and the command that looks at it."""
    name = draw(st.sampled_from(RECORDS))
    content = (finished() / name).read_bytes()
    if name.endswith("yaml"):
        valid, dump = yaml.safe_load(content), as_yaml
    elif name.endswith(".jsonl"):
        valid, dump = [json.loads(line) for line in content.splitlines()], lines
    elif name.endswith("safetensors"):
        valid = None
    else:
        valid, dump = json.loads(content), as_json
    whole = valid is not None and draw(st.integers(0, 3))
    odd = written if name.endswith("yaml") else values
    new = draw(mutated(valid, odd).map(dump)) if whole else draw(damaged(content))
    if name.endswith("yaml") and draw(st.booleans()):
        new = draw(spliced(valid))
    return name, new, draw(st.sampled_from(("status", "compare", "inspect", "resume", "single", "config")))


def read_records(record: tuple[str, bytes, str], folder: Path) -> None:
    name, content, verb = record
    run = folder / "run"
    shutil.copytree(finished(), run)
    (run / name).write_bytes(content)
    # Whoever changes a file may change its hashes as well.
    if (run / name).suffix in (".yaml", ".json", ""):
        with contextlib.suppress(Exception):  # what cannot be read has none
            edit(run / name, lambda facts: None)
    commit = (run / name).parent / "COMMIT"
    if commit.is_file() and not name.endswith("COMMIT"):
        sha = hashlib.sha256((run / name).read_bytes()).hexdigest()
        edit(commit, lambda facts: facts["files"].update({Path(name).name: sha}))
    if name != "MANIFEST":
        (run / "MANIFEST").unlink()
    small = ("--model", "tiny-llama", "--benchmark", "builtin", "--tasks", "reviews,news", "--max-steps", "1")
    small = (*small, "--max-train-samples", "4", "--max-eval-samples", "2", "--max-new-tokens", "2")
    again = {
        "status": ("status", str(run)),
        "compare": ("compare", str(run)),
        "inspect": ("inspect", str(run)),
        "resume": ("run", *small, "--method", "ella+replay", "--out", str(run), "--resume"),
        "single": ("run", *small, "--method", "zero-shot", "--out", str(folder / "new"), "--single", str(run)),
        "config": ("run", "--config", str(run / "run.yaml"), "--dry-run"),
    }
    command(*again[verb])


# Descriptions and folders of other tools

INFO: dict[str, Any] = {
    "c_train": {"file_name": "a.json", "formatting": "alpaca", "columns": {"prompt": "text", "response": "label"}},
    "c_test": {"file_name": "b.json", "columns": {"prompt": "text", "response": "label"}, "num_samples": 2},
}
ORDER = {"easy": {"orders": {"order1": ["c"]}}}
CHOICES = {"c": {"options": ["good", "bad"]}}
TREES: dict[str, Any] = {
    "info": {"dataset_info.json": INFO, "benchmark_info.json": ORDER, "dataset_options.json": CHOICES},
    "o-lora": {
        "NLI/MNLI/train.json": [{"sentence": "a", "label": "yes"}, {"sentence": "b", "label": "no"}],
        "NLI/MNLI/test.json": [{"sentence": "c", "label": "yes"}],
        "NLI/MNLI/labels.json": ["yes", "no"],
        "conf/MNLI/train_tasks.json": {"NLI": [{"dataset name": "MNLI", "sampling strategy": "full"}]},
        "conf/MNLI/test_tasks.json": {"NLI": [{"dataset name": "MNLI", "sampling strategy": "full"}]},
    },
    "superni": {
        "t/train.json": {"Definition": ["Do it."], "Instances": [{"input": "a", "output": ["b"]}]},
        "t/test.json": {"Definition": ["Do it."], "Instances": [{"input": "c", "output": ["d", "e"]}]},
        "t/definition.json": {"definition": "Do it."},
    },
    "trace": {
        "t/train.json": [{"prompt": "a", "answer": "b"}],
        "t/test.json": [{"prompt": "c", "answer": "d"}],
        "t/eval.json": [{"prompt": "e", "answer": "f"}],
    },
}
STREAMS: dict[str, Any] = {
    "info": {"source": {"path": "."}},
    "o-lora": {"source": {"kind": "o-lora", "path": ".", "config": "conf"}},
    "superni": {"tasks": [{"name": "t", "source": {"path": "t"}}]},
    "trace": {"tasks": [{"name": "t", "source": {"kind": "trace", "path": "t"}}]},
}


@st.composite
def trees(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A kind of folder, one of its files, and what that holds now."""
    kind = draw(st.sampled_from(sorted(TREES)))
    name = draw(st.sampled_from(sorted(TREES[kind])))
    valid = TREES[kind][name]
    return kind, name, draw(st.one_of(mutated(valid).map(as_json), damaged(as_json(valid))))


def read_tree(tree: tuple[str, str, bytes], folder: Path) -> None:
    kind, name, content = tree
    if kind == "info":
        write(folder, a__json=as_json(ROWS), b__json=as_json(OTHER))
    for other, valid in TREES[kind].items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(content if other == name else as_json(valid))
    write(folder, t__yaml=as_yaml(STREAMS[kind]))
    everlora.open_stream(folder / "t.yaml")


# Folders of models


@cache
def base() -> Path:
    """A tiny decoder with a chat template and a generation config."""
    from oracle import models

    folder = models.build("decoder", "llama", Path(tempfile.mkdtemp(prefix="fuzz-model")))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@st.composite
def model_folders(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file of the model's folder, and what it holds now."""
    name = draw(st.sampled_from(MODEL_FILES))
    content = (base() / name).read_bytes()
    if name.endswith("json") and draw(st.integers(0, 3)):
        valid = json.loads(content)
        if name == "tokenizer.json":  # its vocabulary would be nearly all that is changed
            valid["model"]["merges"] = valid["model"]["merges"][:4]
            valid["model"]["vocab"] = dict(list(valid["model"]["vocab"].items()))
        return name, draw(mutated(valid).map(as_json))
    head = content[:600] if name.endswith("safetensors") else content
    return name, draw(damaged(head)) + content[len(head) :]


def read_model(change: tuple[str, bytes], folder: Path) -> None:
    name, content = change
    shutil.copytree(base(), folder / "m")
    (folder / "m" / name).write_bytes(content)
    task = everlora.task("t", train=ROWS, test=OTHER)
    with contextlib.redirect_stderr(io.StringIO()):
        loaded = everlora.load(str(folder / "m"), device="cpu", dtype="float32")
        loaded.family.check(task)
        for scoring in ("labels", "generate"):
            loaded.family.predict(loaded.model, task, task.test[:2], scoring)  # type: ignore[arg-type]


TARGETS: dict[str, Target] = {
    "recipe": Target(
        st.one_of(mutated(RECIPE, written).map(as_yaml), damaged(as_yaml(RECIPE)), spliced(RECIPE)), read_recipe
    ),
    "protocol": Target(
        st.one_of(mutated(PROTOCOL, written).map(as_yaml), damaged(as_yaml(PROTOCOL)), spliced(PROTOCOL)),
        read_protocol,
    ),
    "options": Target(st.tuples(st.sampled_from(OPTIONS), st.one_of(texts, expressions)), read_words),
    "tasks": Target(
        st.one_of(mutated(TASKS, written).map(as_yaml), damaged(as_yaml(TASKS)), spliced(TASKS)), read_tasks
    ),
    "rows": Target(row_files, read_rows),
    "expression": Target(expressions, read_expression),
    "records": Target(records(), read_records, cost=10, ready=finished),
    "folders": Target(trees(), read_tree),
    "model": Target(model_folders(), read_model, cost=10, ready=base),
}
