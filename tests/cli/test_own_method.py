"""A method of a user's own: named on the command line, recorded, missed when it is gone, tested in two lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from everlora.core import registry
from everlora.testing import ANSWER_CHECKS, BENCHMARK_CHECKS, CHECKS, plugin

from .conftest import Everlora, unplug

PENALTY_CHECKS = (
    "strength_zero_is_the_base_method_bit_for_bit",
    "the_gradient_of_a_penalty_is_that_of_its_value",
)
"""Checks that a method without penalties has no need of."""
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--model", "tiny-llama", "--benchmark", "builtin", "--tasks", "reviews,news", "--max-steps", "2")
SMALL = (*SMALL, "--max-train-samples", "8", "--max-eval-samples", "4", "--max-new-tokens", "4")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins and ends without methods from outside."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with registry.isolated():
        yield


LATE = """from everlora import Method, method

@method("leaves", title="t", paper="p", stores="nothing")
def build() -> Method:
    raise SystemExit(0)
"""


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: what was plugged in is gone."""
    for known in registry.KINDS.values():
        for name in known.from_outside():
            monkeypatch.delitem(sys.modules, unplug(known, name), raising=False)


def test_a_file_on_the_command_line(everlora: Everlora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text((EXAMPLES / "own_method.py").read_text(encoding="utf-8"), encoding="utf-8")
    plug = ("--plugin", str(file))
    assert "unknown method 'capped-ella'" in everlora("run", *SMALL, "--method", "capped-ella", "--out", "r").line
    said = everlora("run", *SMALL, *plug, "--method", "capped-ella(cap=3)", "--out", "r")
    assert said.status == 0, said.err
    (where,) = yaml.safe_load((tmp_path / "r/run.yaml").read_text())["origin"]
    assert (where["method"], where["file"]) == ("capped-ella", str(file))
    assert everlora("methods", "capped-ella", "--json", *plug).json["members"][0]["origin"]["file"] == str(file)

    forget(monkeypatch)
    assert everlora("status", "r").status == 0  # reads what was written down, and needs no method
    for command in (("inspect", "r"), ("export", "r", "--out", "m")):
        line = everlora(*command).line
        assert f"'capped-ella' is from the file {file}; pass --plugin {file}" in line
    assert f"pass --plugin {file}" in everlora("run", "--config", "r/run.yaml", "--out", "r", "--resume").line
    for command in (("status", "r"), ("inspect", "r"), ("run", "--config", "r/run.yaml", "--out", "r", "--resume")):
        assert everlora(*command, *plug).status == 0
        forget(monkeypatch)
    table = everlora("compare", "r", "--json").json  # figures need no method
    assert table["sections"][0]["rows"][0]["method"] == "capped-ella(cap=3)"
    # The file may move: the run stays the same run.
    moved = file.rename(tmp_path / "moved.py")
    assert "which is not there" in everlora("inspect", "r").line
    again = ("run", "--config", "r/run.yaml", "--out", "r", "--resume", "--plugin", str(moved))
    assert everlora(*again).status == 0


def test_a_plug_in_that_does_not_run_is_one_line(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1/0\n")
    line = everlora("methods", "--plugin", "bad.py").line
    assert "bad.py could not be run: ZeroDivisionError: division by zero, line 1" in line
    for text in ("import sys\nsys.exit(0)\n", "raise KeyboardInterrupt\n"):
        (tmp_path / "gone.py").write_text(text)
        said = everlora("methods", "--plugin", "gone.py")
        assert said.status == 2
        assert "gone.py could not be run: " in said.line
    help_text = " ".join(everlora("run", "--help").out.split())
    assert "Its code is run" in help_text


def test_code_that_ends_the_process_later_is_one_line(everlora: Everlora, tmp_path: Path) -> None:
    """A method that calls sys.exit(0) when it is built would look like a run that was done."""
    (tmp_path / "late.py").write_text(LATE)
    said = everlora("run", *SMALL, "--plugin", "late.py", "--method", "leaves", "--out", "r")
    assert said.status == 2
    assert "ends the process in " in said.line
    assert "late.py, line 5" in said.line


EXAMPLE_ON = {
    "own_method": ("capped_ella", "tiny-bert"),
    "mean_pull": ("mean_pull", "tiny-t5"),
    "feature_projection": ("feature_projection", "tiny-vit"),
}
"""By file: the battery in it, and one of the four families."""


def test_the_examples_are_tested_in_two_lines_and_named_methods_in_none(tmp_path: Path) -> None:
    """The examples' test files as their reader would run them, and methods named on the command line."""
    renamed = (EXAMPLES / "own_method.py").read_text(encoding="utf-8").replace("capped-ella", "capped-again")
    (tmp_path / "again.py").write_text(renamed, encoding="utf-8")
    files = [EXAMPLES / f"test_{example}.py" for example in (*EXAMPLE_ON, "my_benchmark")]
    words = (sys.executable, "-m", "pytest", "-p", "everlora.testing", "-q", "-rA", "-p", "no:cacheprovider")
    own = ("--everlora", "capped-again", "--everlora-plugin", "again.py", "--everlora", "ella(lam=0.3)+migu")
    where = ("-c", "/dev/null", "--rootdir", tmp_path, "--basetemp", tmp_path / "runs", *files)
    named = ("test_capped_again", "test_ella_lam_0_3_migu")
    wanted = [f"(test_{name} and {model})" for name, model in EXAMPLE_ON.values()] + ["test_my_three", "test_token_f1"]
    wanted += [f"({name} and tiny-bert and kept_is)" for name in named]
    done = subprocess.run(
        [*words, *own, "-k", " or ".join(wanted), *where],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^PASSED \S*::(test_\w+)\[(\S+?)\]$", done.stdout, re.MULTILINE)
    checks = {name: [c for c in CHECKS if c not in PENALTY_CHECKS] for name in ("feature_projection",)}
    checks |= {name: list(CHECKS) for name in ("capped_ella", "mean_pull")}
    expected = [(f"test_{n}", f"{model}-{check}") for n, model in EXAMPLE_ON.values() for check in checks[n]]
    expected += [("test_my_three", check) for check in BENCHMARK_CHECKS]
    expected += [("test_token_f1", check) for check in ANSWER_CHECKS]
    expected += [(name, "tiny-bert-kept_is_what_the_method_declares") for name in named]
    assert sorted(found) == sorted(expected)
    assert len((EXAMPLES / "my_benchmark.py").read_text(encoding="utf-8").splitlines()) <= 100


def configured(named: list[str], **about: Any) -> list[str]:
    """The paths in which pytest looks for tests, once the plug-in has been given the names of methods."""
    options = {"--everlora": named, "--everlora-plugin": []}
    config = SimpleNamespace(getoption=options.get, **about)
    try:
        plugin.pytest_configure(cast(pytest.Config, config))
    finally:
        plugin.named.clear()
    return config.args


def test_named_methods_are_tested_alone_of_all_that_lies_around() -> None:
    source = pytest.Config.ArgsSource
    assert configured(["ella"], args=["around"], args_source=source.INVOCATION_DIR) == [str(plugin.TESTS)]
    assert configured(["ella"], args=["around"], args_source=source.TESTPATHS) == [str(plugin.TESTS)]
    assert configured(["ella"], args=["given"], args_source=source.ARGS) == ["given", str(plugin.TESTS)]
    assert configured([], args=["around"], args_source=source.INVOCATION_DIR) == ["around"]


def test_the_plugin_refuses_a_method_that_it_does_not_know() -> None:
    with pytest.raises(pytest.UsageError, match="unknown method 'ellla'"):
        configured(["ellla"])
