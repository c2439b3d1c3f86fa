"""A benchmark and a metric of a user's own: named on the command line, recorded, missed when they are gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from everlora.benchmarks import find_benchmark
from everlora.core import plugins, registry
from everlora.testing import made_up_rows

from .conftest import Everlora, unplug

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--model", "tiny-llama", "--max-steps", "2", "--max-train-samples", "8", "--max-eval-samples", "4")
SMALL = (*SMALL, "--max-new-tokens", "4", "--tasks", "imdb,agnews")


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Every test begins and ends without anything from outside."""
    with registry.isolated():
        forget()
        yield
        forget()


def forget() -> None:
    """As in a new process: what was plugged in is gone."""
    plugins.ran.clear()
    for known in registry.KINDS.values():
        for name in known.from_outside():
            sys.modules.pop(unplug(known, name), None)


def test_one_file_brings_a_benchmark_and_a_metric(everlora: Everlora, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text((EXAMPLES / "my_benchmark.py").read_text(encoding="utf-8"), encoding="utf-8")
    data = ("--data-dir", str(made_up_rows(find_benchmark("long"), tmp_path / "rows")))
    wanted = ("run", *SMALL, *data, "--benchmark", "my-three", "--order", "2", "--metric", "Token-F1", "--out", "r")
    assert "unknown benchmark 'my-three'" in everlora(*wanted).line
    said = everlora(*wanted, "--plugin", str(file), "--json")
    assert said.status == 0, said.err
    assert said.json["tasks"] == ["imdb", "agnews"]
    record = yaml.safe_load((tmp_path / "r/run.yaml").read_text())
    assert (record["settings"]["metric"], record["settings"]["benchmark"]) == ("token_f1", "my-three")
    where = [(one.get("benchmark"), one.get("metric"), one["file"], len(one["sha256"])) for one in record["origin"]]
    assert where == [("my-three", None, str(file), 64), (None, "token_f1", str(file), 64)]

    forget()
    again = ("run", "--config", "r/run.yaml", "--out", "r", "--resume")
    assert f"the benchmark 'my-three' is from the file {file}; pass --plugin {file}" in everlora(*again).line
    assert everlora(*again, "--plugin", str(file)).status == 0


def test_what_is_everloras_own_is_not_recorded(everlora: Everlora, tmp_path: Path) -> None:
    said = everlora("run", *SMALL[:-2], "--tasks", "news,reviews", "--out", "r")
    assert said.status == 0, said.err
    assert "origin" not in yaml.safe_load((tmp_path / "r/run.yaml").read_text())


def test_a_yaml_file_of_known_tasks_is_followed(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("title: Mine\norders: {1: wic imdb agnews}\nmetric: macro_f1\n")
    data = ("--data-dir", str(made_up_rows(find_benchmark("long"), tmp_path / "rows")))
    said = everlora("run", *SMALL, *data, "--benchmark", "mine.yaml", "--out", "r", "--json")
    assert said.status == 0, said.err
    assert said.json["tasks"] == ["imdb", "agnews"]
    about = everlora("benchmarks", "mine.yaml", "--json").json
    assert about["orders"] == {"1": ["wic", "imdb", "agnews"]}
    assert {task["metric"] for task in about["tasks"]} == {"macro_f1"}
    file = tmp_path / "mine.yaml"
    where = {"benchmark": "mine.yaml", "file": str(file), "sha256": sha256(file.read_bytes()).hexdigest()}
    assert yaml.safe_load((tmp_path / "r/run.yaml").read_text())["origin"] == [where]
    assert everlora("run", "--config", "r/run.yaml", "--out", "r", "--resume").status == 0


def test_a_plugin_of_which_nothing_is_used_is_recorded(everlora: Everlora, tmp_path: Path) -> None:
    file = tmp_path / "unused.py"
    file.write_text("import everlora\n")
    words = ("run", *SMALL[:-2], "--tasks", "news,reviews")
    for out, more in (("plain", ()), ("plugged", ("--plugin", "unused.py"))):
        assert everlora(*words, *more, "--out", out).status == 0
    plain, plugged = (yaml.safe_load((tmp_path / out / "run.yaml").read_text()) for out in ("plain", "plugged"))
    where = {"plugin": "unused.py", "file": str(file), "sha256": sha256(file.read_bytes()).hexdigest()}
    assert plugged["origin"] == [where]
    assert "origin" not in plain
    assert plain["id"] == plugged["id"]
