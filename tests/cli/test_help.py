"""What ``--help`` shows, and the habits that all commands share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from everlora.cli.app import app
from everlora.settings.setting import SECTIONS, settings_of
from everlora.settings.spec import RunSpec

from .conftest import Everlora

TWO_SCREENS = {"run": 80, "sweep": 92, "tune": 92}
"""Lines of help; a sweep has a dozen options more than a run."""


@pytest.fixture
def wide(everlora: Everlora, monkeypatch: pytest.MonkeyPatch) -> Everlora:
    monkeypatch.setenv("COLUMNS", "100")
    return everlora


def sections(text: str) -> dict[str, str]:
    found = re.split(r"^(\w+):$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", TWO_SCREENS)
def test_help_stands_in_sections_on_two_screens(
    everlora: Everlora, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = everlora(command, "--help").out
    assert len(text.splitlines()) <= TWO_SCREENS[command]
    options = text.partition("  example:")[0]  # an example is one line, to be copied
    assert max(map(len, options.splitlines())) <= columns
    assert list(sections(text)) == list(SECTIONS)
    assert text.count("example:") == 1
    assert f"everlora {command} " in text.rpartition("example:")[2]


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_every_setting_is_in_its_section_with_its_default(wide: Everlora, command: str) -> None:
    found = sections(wide(command, "--help").out.partition("example:")[0])
    for one in settings_of(RunSpec):
        if not one.options or (command, one.path[0]) in {("sweep", "method"), ("sweep", "seed")}:
            continue
        option = one.options[-1]
        where = [name for name, text in found.items() if re.search(rf"(?<!\S){option}(?![\w-])", text)]
        assert where == [one.setting.section], option
        shown = " ".join(found[one.setting.section].split(option)[1].split())
        if one.default is not None and one.default is not False and not one.setting.unset:
            assert f"[{one.default}]" in shown, option


def test_no_command_shows_a_type_of_python_for_a_value(everlora: Everlora) -> None:
    group = typer.main.get_command(app)
    assert {name for name in group.commands if "<" in everlora(name, "--help").out} == set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["run", "sweep", "tune", "demo", "export", "study-layers"])
def test_an_output_folder_has_one_option_of_three_names(command: str) -> None:
    group = typer.main.get_command(app)
    flags = [one.opts for one in group.commands[command].params]  # type: ignore[attr-defined]
    assert ["-o", "--out", "--output-dir"] in flags


def test_whatever_looks_names_up_takes_plugins() -> None:
    """The demo names its methods and tasks itself; the others look nothing up, but records on disk."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = {name for name, one in commands.items() if not any("--plugin" in param.opts for param in one.params)}
    assert without == {"demo", "env", "doctor", "history", "push"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batch-size", "--per-device-train-batch-size"),
        ("--lr", "--learning-rate"),
        ("--rank", "--lora-rank"),
        ("--epochs", "--num-train-epochs"),
        ("--targets", "--lora-target-modules"),
        ("--eval-batch-size", "--per-device-eval-batch-size"),
        ("--learnig-rate", "--learning-rate"),
        ("--warmup-steps", "--set warmup_steps=…"),
        ("--hub-token", ""),
        ("--bogus", ""),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_an_unknown_option_names_the_one_that_was_meant(
    everlora: Everlora, command: str, typed: str, meant: str
) -> None:
    said = everlora(command, typed, "3")
    assert said.status == 2
    assert said.err.splitlines()[-1] == f"Error: No such option: {typed}" + (
        f" (Possible options: {meant})" if meant else ""
    )


def test_short_options(everlora: Everlora, tmp_path: Path) -> None:
    words = ("--tasks", "reviews", "--max-steps", "1", "--max-train-samples", "4", "--max-eval-samples", "2")
    said = everlora("run", "-m", "tiny-bert", *words, "-o", "r", "-q")
    assert said.status == 0
    assert said.err == ""
    assert (tmp_path / "r/run.yaml").is_file()
    assert "written to r" in said.out
    loud = everlora("run", "-m", "tiny-bert", *words, "--output-dir", "s", "-v")
    assert "1. reviews" in loud.err
