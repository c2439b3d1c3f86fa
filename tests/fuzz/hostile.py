"""Inputs that nobody writes by mistake, read in a process of its own with little memory and little time.

``python hostile.py NAME ...`` prints one line of JSON a case: null where it was read or refused as it should be.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import select
import shutil
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow
import pyarrow.parquet

import everlora
from fuzz import targets
from fuzz.harness import bounded_memory, command, judged
from fuzz.targets import OTHER, RECIPE, ROWS, TASKS, Rows, as_json, as_yaml, lines, read_rows

Case = Callable[[Path], None]
CASES: dict[str, Case] = {}
PATIENCE = 60
"""Seconds on the clock, for a reader that waits and so uses no processor time."""


def case(name: str) -> Callable[[Case], Case]:
    def keep(read: Case) -> Case:
        CASES[name] = read
        return read

    return keep


# YAML, at each of the doors that read it

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)
MERGES = "a0: &a0 {k: x}\n" + "".join(
    f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}\n" for k in range(1, 10)
)
YAMLS = {
    "laughs": LAUGHS,
    "laughs-in-a-setting": LAUGHS + "model: tiny-llama\ntrain: {optim: *a9}\n",
    "laughs-in-a-name": "name: &n [1]\n" + LAUGHS + "tasks: *a9\n",
    "mapping-bomb": MERGES,
    "mapping-bomb-in-a-setting": MERGES + "model: tiny-llama\ntrain: *a9\n",
    "deep": "a: " + "[" * 100_000,
    "deep-block": "".join(f"{' ' * k}a:\n" for k in range(3000)),
    "recursive": "&a {tasks: *a, train: *a, settings: *a}",
    "recursive-list": "tasks: &a [*a]\n",
    "date": "model: 2023-02-30\nseed: 2023-02-30\n",
    "tag": "model: !!int x\nname: !!int x\n",
    "timestamp": "model: !!timestamp x\n",
    "binary": "model: !!binary x\n",
    "python": "model: !!python/object/apply:os.system [ls]\n",
    "many-keys": "".join(f"k{n}: 1\n" for n in range(20_000)),
    "long-number": "seed: " + "9" * 10_000 + "\n",
    "repeated-keys": "train:\n" + "  a: 1\n" * 20_000,
    "sexagesimal": "seed: 1:99:99\n",
    "nul": "model: \0\n",
    "utf-16": "\ufeffmodel: x\n",
    "unhashable-key": "{[a]: b}\n",
    "escapes-in-a-key": '"\\e[31m": 1\n',
    "equals": "{=: x}\n",
}
YAML_DOORS: dict[str, Callable[[bytes, Path], None]] = {
    "recipe": targets.read_recipe,
    "protocol": targets.read_protocol,
    "tasks": targets.read_tasks,
}
for _door, _read in YAML_DOORS.items():
    for _name, _text in YAMLS.items():
        _code = "utf-16" if _name == "utf-16" else "utf-8"
        CASES[f"{_door}/{_name}"] = lambda folder, read=_read, data=_text.encode(_code): read(data, folder)  # type: ignore[misc]


@case("run.yaml/laughs")
def _(folder: Path) -> None:
    targets.read_records(("run.yaml", LAUGHS.encode(), "status"), folder)


@case("run.yaml/date")
def _(folder: Path) -> None:
    targets.read_records(("run.yaml", b"id: 2023-02-30\n", "status"), folder)


@case("run.yaml/deep")
def _(folder: Path) -> None:
    targets.read_records(("run.yaml", b"id: " + b"[" * 100_000, "status"), folder)


@case("run.yaml/deep-resume")
def _(folder: Path) -> None:
    targets.read_records(("run.yaml", b"id: " + b"[" * 100_000, "resume"), folder)


# Rows


def rows(ending: str, content: bytes, **about: object) -> Case:
    return lambda folder: read_rows(Rows(ending, content, tuple(about.items())), folder)


DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b', "label": "a"}\n'
CASES |= {
    "rows/deep-jsonl": rows("jsonl", DEEP),
    "rows/deep-json": rows("json", b"[" + DEEP + b"]"),
    "rows/deep-objects": rows("jsonl", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "rows/million-columns-csv": rows(
        "csv", b",".join(b"c%d" % k for k in range(10**6)) + b"\n" + b"," * (10**6 - 1) + b"\n"
    ),
    "rows/million-equal-columns-csv": rows("csv", b",".join([b"c"] * 10**6) + b"\n" + b"," * (10**6 - 1) + b"\n"),
    "rows/hundred-thousand-columns-tsv": rows("tsv", b"\t".join(b"c%d" % k for k in range(10**5)) + b"\n1\n"),
    "rows/repeated-keys": rows("jsonl", b"{" + b",".join(b'"k%d": 1' % (k // 2) for k in range(10**5)) + b"}\n"),
    "rows/repeated-key": rows("jsonl", b"{" + b",".join([b'"k": 1'] * 10**5) + b"}\n"),
    "rows/many-keys": rows("jsonl", b"{" + b",".join(b'"k%d": 1' % k for k in range(10**5)) + b"}\n"),
    "rows/long-number": rows("jsonl", b'{"text": "a", "label": ' + b"9" * 100_000 + b"}\n"),
    "rows/long-label": rows("jsonl", lines([{"text": "t", "label": "x" * 1_000_000}, *ROWS])),
    "rows/long-text-in-two-splits": rows(
        "jsonl", lines([{"text": OTHER[0]["text"], "label": "x" * 1_000_000}, *ROWS])
    ),
    "rows/long-label-not-in-set": rows(
        "jsonl", lines([{"text": "t", "label": "x" * 1_000_000}]), labels=["good", "bad"]
    ),
    "rows/many-labels": rows("jsonl", lines([{"text": f"t{k}", "label": f"l{k:05d}x"} for k in range(20_000)])),
    "rows/alike-labels": rows(
        "jsonl", lines([{"text": f"t{k}", "label": "abcdefghij"[: 1 + k % 10] * 200} for k in range(9_000)])
    ),
    "rows/one-long-line-csv": rows("csv", b'text,label\n"' + b"x" * 5_000_000 + b'",a\n'),
    "rows/open-quote-csv": rows("csv", b'text,label\n"' + b"x\n" * 300_000),
    "rows/nul-csv": rows("csv", b"text,label\na\0b,c\n"),
    "rows/not-utf-8-json": rows("json", b"[" + b'{"a": 1},' * 50_000 + b"\xff]"),
    "rows/not-utf-8-nested-json": rows("json", b"[" * 50_000 + b"\xff"),
    "rows/escape-in-column": rows("csv", b"te\x1b[31mxt,label\na,b\n"),
    "rows/escape-in-label": rows("jsonl", lines([{"text": "a", "label": "\x1b]0;x\x07"}]), labels=["good"]),
    "rows/escape-in-text": rows(
        "jsonl", lines([{"text": "a", "label": "\x9b31m"}, {"text": "b", "label": "\x9b31m "}])
    ),
    "rows/gzip-bomb": rows("jsonl.gz", gzip.compress(bytes(1 << 24), mtime=0) * 256),
    "rows/gzip-in-gzip": rows("jsonl.gz", gzip.compress(gzip.compress(lines(ROWS), mtime=0), mtime=0)),
    "rows/gzip-under-another-name": rows("csv", gzip.compress(bytes(1 << 24), mtime=0) * 256),
}


@case("rows/parquet-bomb")
def _(folder: Path) -> None:
    """A column of one long text, which the dictionary holds once: 4 GB of text in a few kilobytes."""
    index = pyarrow.array(np.zeros(400_000, dtype=np.int32))
    column = pyarrow.DictionaryArray.from_arrays(index, pyarrow.array(["x" * 10_000]))
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": column, "label": index}), out, compression="zstd")
    read_rows(Rows("parquet", out.getvalue()), folder)


@case("rows/parquet-nested")
def _(folder: Path) -> None:
    kind: pyarrow.DataType = pyarrow.int32()
    for _ in range(200):
        kind = pyarrow.list_(kind)
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([None], type=kind)}), out)
    read_rows(Rows("parquet", out.getvalue()), folder)


def png(side: int) -> bytes:
    """A white picture that is small as a file and large as bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    line = bytes(1 + side * 3)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pictures(side: int) -> Case:
    def read(folder: Path) -> None:
        data = png(side)
        for name in ("a.png", "b.png", "c.png"):
            (folder / name).write_bytes(data)
        (folder / "train.jsonl").write_bytes(
            lines([{"image": "a.png", "label": "x"}, {"image": "b.png", "label": "y"}])
        )
        (folder / "test.jsonl").write_bytes(lines([{"image": "c.png", "label": "x"}]))
        (folder / "t.yaml").write_bytes(
            as_yaml({"tasks": [{"name": "p", "train": "train.jsonl", "test": "test.jsonl"}]})
        )
        everlora.open_stream(folder / "t.yaml")

    return read


CASES["rows/png-bomb"] = pictures(16_000)


# Names


def named(**changes: object) -> Case:
    entry = {**TASKS["tasks"][0], **changes}
    return lambda folder: targets.read_tasks(as_yaml({"tasks": [entry]}), folder)


CASES |= {
    "name/too-long": named(name="x" * 10_000),
    "name/too-long-for-a-file-system": named(name="x" * 250),
    "name/path": named(name="../../x"),
    "name/escape": named(name="\x1b[31mx"),
    "name/letters-of-eight-bytes": named(name="\U0001d54f" * 100),
    "name/file-escape": named(train="\x1b[31m.jsonl"),
    "name/file-markup": named(train="[bold]x[/].jsonl"),
    "name/file-nul": named(train="a\0.jsonl"),
    "name/file-too-long": named(train="x" * 5_000 + ".jsonl"),
    "name/file-is-a-device": named(train="/dev/zero", test="/dev/zero"),
    "name/metric-escape": named(metric="\x1b[31m"),
    "name/many-labels": named(labels=[f"l{k}" for k in range(50_000)]),
    "name/lone-surrogate": lambda folder: targets.read_tasks(
        b'tasks: [{name: "\\ud800", train: a.jsonl, test: b.jsonl}]', folder
    ),
}


@case("name/device")
def _(folder: Path) -> None:
    (folder / "t.yaml").write_bytes(as_yaml({"tasks": [{**TASKS["tasks"][0], "train": "a.jsonl"}]}))
    (folder / "a.jsonl").symlink_to("/dev/zero")
    (folder / "b.jsonl").write_bytes(lines(OTHER))
    everlora.open_stream(folder / "t.yaml")


@case("name/pipe")
def _(folder: Path) -> None:
    """Nobody writes into it: a reader that opens it waits for ever."""
    (folder / "t.yaml").write_bytes(as_yaml({"tasks": [TASKS["tasks"][0]]}))
    os.mkfifo(folder / "a.jsonl")
    (folder / "b.jsonl").write_bytes(lines(OTHER))
    everlora.open_stream(folder / "t.yaml")


# Expressions


def expression(words: str) -> Case:
    return lambda folder: targets.read_expression(words, folder)


CASES |= {
    "expression/open": expression("(" * 100_000),
    "expression/names": expression("ella+" * 20_000 + "ella"),
    "expression/long-name": expression("e" * 1_000_000),
    "expression/long-option": expression("ella(lam=" + "1" * 100_000 + ")"),
    "expression/many-options": expression("ella(" + ",".join(f"o{k}=1" for k in range(50_000)) + ")"),
    "expression/spaces": expression("ella" + " " * 100_000 + "x"),
    "expression/escape": expression("\x1b[31m"),
    "expression/escape-in-option": expression("ella(\x1b[31m=1)"),
    "expression/escape-in-value": expression("ella(lam=\x1b[31m)"),
    "expression/huge-int": expression("lb-cl(top_layers=" + "9" * 30 + ")"),
}


@case("option/long-setting")
def _(folder: Path) -> None:
    command("run", "--model", "tiny-llama", "--set", "x" * 100_000 + "=1", "--dry-run")


@case("option/escape-in-setting")
def _(folder: Path) -> None:
    command("run", "--model", "tiny-llama", "--set", "\x1b[31m=1", "--dry-run")


@case("option/escape-in-model")
def _(folder: Path) -> None:
    command("run", "--model", "/\x1b[31mx", "--benchmark", "builtin", "--out", str(folder / "o"))


@case("option/markup-in-out")
def _(folder: Path) -> None:
    shutil.copytree(targets.finished(), folder / "[bold]run[/x]")
    command("compare", str(folder / "[bold]run[/x]"))


# Records


def record(name: str, content: bytes | Callable[[dict[str, object]], object], verb: str) -> Case:
    def read(folder: Path) -> None:
        data = content
        if callable(data):
            data = as_json(data(json.loads((targets.finished() / name).read_bytes())))
        targets.read_records((name, data, verb), folder)

    return read


CASES |= {
    "record/deep-matrix": record("matrix.json", b"[" * 100_000, "compare"),
    "record/deep-commit": record("tasks/02-news/COMMIT", b"[" * 100_000, "status"),
    "record/deep-environment": record("environment.json", b"[" * 100_000, "compare"),
    "record/deep-predictions": record("tasks/02-news/evaluation-1/predictions.jsonl", b"[" * 100_000, "compare"),
    "record/many-predictions": record(
        "tasks/02-news/evaluation-1/predictions.jsonl",
        b'{"task": "news", "row": 0, "target": "a", "prediction": "b", "correct": false}\n' * 50_000,
        "compare",
    ),
    "record/commit-outside": record(
        "tasks/02-news/COMMIT", lambda facts: {**facts, "files": {"../../../../../../etc/passwd": "x"}}, "status"
    ),
    "record/commit-device": record(
        "tasks/02-news/COMMIT", lambda facts: {**facts, "files": {"/dev/zero": "x"}}, "status"
    ),
    "record/newer-schema": record("tasks/02-news/COMMIT", lambda facts: {**facts, "schema": 99}, "status"),
    "record/number-huge": record("tasks/02-news/COMMIT", lambda facts: {**facts, "number": 10**9}, "status"),
    "record/matrix-huge": record("matrix.json", lambda facts: {**facts, "matrix": [[0.0] * 1500] * 1500}, "compare"),
    "record/name-escape": record("tasks/02-news/COMMIT", lambda facts: {**facts, "name": "\x1b[31m"}, "status"),
    "record/warning-escape": record(
        "tasks/02-news/COMMIT", lambda facts: {**facts, "warning": "\x1b]0;x\x07"}, "status"
    ),
    "record/warning-markup": record("tasks/02-news/COMMIT", lambda facts: {**facts, "warning": "[/x]"}, "status"),
    "record/trust": record(
        "run.yaml",
        b"id: x\ncomposition: {}\nsettings: {method: ella, benchmark: builtin, trust_remote_code: true}\n",
        "config",
    ),
}


# Models


def model(name: str, content: bytes | Callable[[dict[str, object]], object]) -> Case:
    def read(folder: Path) -> None:
        data = content
        if callable(data):
            data = as_json(data(json.loads((targets.base() / name).read_bytes())))
        targets.read_model((name, data), folder)

    return read


CASES |= {
    "model/vocabulary": model("config.json", lambda facts: {**facts, "vocab_size": 10**9}),
    "model/width": model("config.json", lambda facts: {**facts, "hidden_size": 2**20, "intermediate_size": 2**20}),
    "model/layers": model("config.json", lambda facts: {**facts, "num_hidden_layers": 10**6}),
    "model/positions": model("config.json", lambda facts: {**facts, "max_position_embeddings": 10**12}),
    "model/deep": model("config.json", b"[" * 100_000),
    "model/type": model("config.json", lambda facts: {**facts, "model_type": "\x1b[31m"}),
    "model/rope": model("config.json", lambda facts: {**facts, "rope_parameters": {"rope_type": "\x1b[31m"}}),
    "model/trust": model("config.json", lambda facts: {**facts, "auto_map": {"AutoModelForCausalLM": "x.X"}}),
    "model/generation-deep": model("generation_config.json", b"[" * 100_000),
    "model/generation-list": model("generation_config.json", b"[]"),
    "model/tokenizer-deep": model("tokenizer.json", b"[" * 100_000),
    "model/tokenizer-huge-id": model(
        "tokenizer.json",
        lambda facts: {
            **facts,
            "added_tokens": [
                {
                    "id": 10**9,
                    "content": "<x>",
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            ],
        },
    ),
    "model/length-text": model("tokenizer_config.json", lambda facts: {**facts, "model_max_length": "abc"}),
    "model/length-negative": model("tokenizer_config.json", lambda facts: {**facts, "model_max_length": -1}),
    "model/no-eos": model("tokenizer_config.json", lambda facts: {k: v for k, v in facts.items() if k != "eos_token"}),
    "model/no-pad": model("tokenizer_config.json", lambda facts: {k: v for k, v in facts.items() if k != "pad_token"}),
    "model/template-loops": model(
        "tokenizer_config.json", lambda facts: {**facts, "chat_template": "{% for a in range(10**9) %}x{% endfor %}"}
    ),
    "model/weights-header": model("model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "model/weights-short": model("model.safetensors", b"\x08"),
    "model/weights-offsets": model(
        "model.safetensors",
        struct.pack("<Q", 64)
        + json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode().ljust(64),
    ),
}


@case("model/index-names-a-pickle")
def _(folder: Path) -> None:
    import torch

    shutil.copytree(targets.base(), folder / "m")
    weights = folder / "m" / "model.safetensors"
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "evil.bin", "model.norm.weight": "evil.bin"}}
    torch.save({"lm_head.weight": torch.zeros(1)}, folder / "m" / "evil.bin")
    weights.rename(folder / "m" / "other.safetensors")
    (folder / "m" / "model.safetensors.index.json").write_bytes(as_json(index))
    everlora.load(str(folder / "m"), device="cpu", dtype="float32")
    raise AssertionError("a pickle was read for weights")


@case("model/rank")
def _(folder: Path) -> None:
    (folder / "r.yaml").write_bytes(as_yaml({**RECIPE, "method": "seqlora", "lora": {"r": 10**8}}))
    command("run", "--config", str(folder / "r.yaml"), "--out", str(folder / "o"))


def tried(name: str) -> dict[str, str] | None:
    """Read one case in a child, which may crash."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        with bounded_memory():
            fault = judged(CASES[name])
        os.write(theirs, json.dumps(fault and dataclasses.asdict(fault)).encode())
        os._exit(0)
    os.close(theirs)
    if not select.select([ours], [], [], PATIENCE)[0]:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said and os.WTERMSIG(status) == signal.SIGKILL:
        return {"kind": "waits", "where": "the process", "detail": f"for more than {PATIENCE} s, or was killed"}
    if not said:
        return {"kind": "crash", "where": "the process", "detail": f"signal {os.WTERMSIG(status)}"}
    found: dict[str, str] | None = json.loads(said)
    return found


def main() -> None:
    targets.finished(), targets.base()  # what has to be there is no part of the bound
    for name in sys.argv[1:] or CASES:
        print(json.dumps([name, tried(name)]), flush=True)


if __name__ == "__main__":
    main()
