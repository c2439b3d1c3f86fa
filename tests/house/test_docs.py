"""What is shown is run: README's script, YAML and commands, and the method file in CONTRIBUTING."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from everlora.cli.app import app
from everlora.core import registry
from everlora.core.expressions import parse
from everlora.data.files import StreamFile

ROOT = Path(__file__).parents[2]
DOCS = list((ROOT / "docs").glob("*.md"))


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_readme_shows_the_example_that_the_tests_run() -> None:
    example = (ROOT / "examples/own_tasks.py").read_text(encoding="utf-8")
    assert example in blocks("README.md", "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12


def test_the_tour_names_every_room_and_nothing_else() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tour, _, _ = text[text.index("```\nsrc/everlora/\n") :].partition("\n```\n")
    inside, _, outside = tour.partition("\ntests/")
    shown = set(re.findall(r"(?<=  )(\w+)/(?= )", inside))
    assert shown == {found.parent.name for found in (ROOT / "src/everlora").glob("*/__init__.py")}
    for name in re.findall(r"(?:^|  )(\w+/|\w+file)(?= )", f"tests/{outside}", re.MULTILINE):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in DOCS)])
def test_links_lead_to_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_yaml_is_a_stream() -> None:
    (text,) = blocks("README.md", "yaml")
    assert [task.name for task in StreamFile.model_validate(yaml.safe_load(text)).tasks] == ["tickets", "reviews"]


def commands() -> list[list[str]]:
    text = "\n".join(blocks("README.md", "bash")).replace("\\\n", " ")
    lines = [line.partition("bin/everlora ")[2] for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_readme_commands_name_flags_that_exist(words: list[str]) -> None:
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_recipes_resolve() -> None:
    from everlora.learner import experiment
    from everlora.learner.tuned import read_tuned
    from everlora.settings.spec import RunSpec

    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    tuned = [path for path in recipes if path.stem.endswith("-tuned")]
    assert tuned
    for recipe in recipes:
        if recipe in tuned:
            assert all(parse(point.method) for point in read_tuned(recipe).values())
        else:
            parse(experiment.resolve(RunSpec, experiment.read_recipe(recipe)).method)


@pytest.fixture
def own_names() -> Iterator[None]:
    with registry.isolated():
        yield


def test_contributing_method_file_works(own_names: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, test = blocks("CONTRIBUTING.md", "python")
    assert test == (ROOT / "examples/test_own_method.py").read_text(encoding="utf-8")
    (tmp_path / "half_ella.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("half_ella")
    assert parse("half-ella(lam=1)").penalties == parse("ella(lam=0.5)").penalties
