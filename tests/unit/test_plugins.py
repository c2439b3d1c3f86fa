"""Methods from outside: packages, files, and what is said when they are missing or broken."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import everlora.methods  # noqa: F401
from everlora.core import plugins, registry
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.learner.experiment import plugins_used
from everlora.settings.spec import RunSpec

OWN = """
from everlora import Method, method

@method("{name}", title="t", paper="p", stores="nothing")
def build(*, x: float = 1.0) -> Method:
    return Method(name="{name}")
"""


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registering and importing in a test leaves everything as it was."""
    monkeypatch.setattr(plugins, "_broken", {})
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with registry.isolated():
        yield


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def offer(monkeypatch: pytest.MonkeyPatch, *modules: str) -> list[str]:
    """Let an installed package offer modules; count how often we ask."""
    asked: list[str] = []

    def points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        made = [EntryPoint(module.rpartition("_")[2], module, group) for module in modules]
        return [point._for(SimpleNamespace(name="their-package", version="1.2")) for point in made]  # type: ignore[attr-defined]

    monkeypatch.setattr(plugins, "entry_points", points)
    return asked


def test_a_package_offers_a_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "offered_theirs.py", OWN.format(name="their-way"))
    monkeypatch.syspath_prepend(tmp_path)
    asked = offer(monkeypatch, "offered_theirs")
    assert parse("ella").name == "ella"
    assert asked == []  # ours are found without asking anybody
    assert parse("TheirWay(x=2)").name == "their-way"
    assert "their-way" in [known.name for known in registry.entries()]
    assert asked == ["everlora.methods"]  # once


BENCHMARK_AND_METRIC = """
from everlora import benchmark, load_known, metric

@benchmark("their-two", title="t", orders={1: "agnews imdb"})
def their_two(request):
    return load_known(request)

@metric("their_score", formula="f", source="s")
def their_score(answer):
    return 0.0
"""


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"), [("benchmark", "standard", "TheirTwo"), ("metric", "rouge-l", "their-score")]
)
def test_a_package_offers_a_benchmark_or_a_metric(
    kind: str, ours: str, theirs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "offered_more.py", BENCHMARK_AND_METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    asked = offer(monkeypatch, "offered_more")
    known = registry.KINDS[kind]
    assert known.find(ours) is not None
    assert asked == []
    assert known.find(theirs) is not None
    assert asked == [f"everlora.{kind}s"]
    assert known.origin(theirs) is not None  # the package is not installed here: its file stands for it


def test_the_package_that_defines_a_task_is_recorded_whoever_names_the_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = "tasks={'their-task': {'source': 's', 'licence': 'l', 'labels': ['a', 'b']}}"
    file = write(tmp_path / "offered_tasks.py", BENCHMARK_AND_METRIC.replace("title=", f"{facts}, title="))
    mine = write(tmp_path / "mine.yaml", "title: Mine\norders: {1: imdb their-task}\n")
    monkeypatch.syspath_prepend(tmp_path)
    offer(monkeypatch, "offered_tasks")
    spec = RunSpec(model="tiny-llama", benchmark=str(mine))
    found = [(one.get("benchmark"), one.get("file")) for one in plugins_used(spec, parse("ella"))]
    assert found[0] == ("their-two", str(file))
    assert (str(mine), str(mine)) in found


def test_a_broken_plug_in_is_one_line_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "offered_bad.py", "import a_module_that_is_not_there\n")
    write(tmp_path / "offered_good.py", OWN.format(name="good-way"))
    write(tmp_path / "offered_worse.py", OWN.format(name="ella"))
    monkeypatch.syspath_prepend(tmp_path)
    offer(monkeypatch, "offered_bad", "offered_good", "offered_worse")
    before = parse("ella")
    assert parse("good-way").name == "good-way"
    assert parse("ella") == before
    bad, worse = caplog.messages
    assert bad == (
        "everlora: the plug-in 'bad' of the package their-package 1.2 (offered_bad) could not be loaded and is left "
        "out: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    )
    assert "'worse'" in worse
    assert "the method name 'ella' is taken" in worse
    with pytest.raises(ConfigError, match=r"unknown method 'bad-way'.*the plug-in 'bad' of the package their-package"):
        parse("bad-way")


def test_a_file_is_run_once(tmp_path: Path) -> None:
    count = "import sys\nsys.modules.setdefault('counted', []).append(1)\n"
    file = write(tmp_path / "mine.py", OWN.format(name="my-way") + count)
    for _ in range(2):
        plugins.load(file)
    assert sys.modules["counted"] == [1]
    assert parse("my-way").name == "my-way"
    (where,) = registry.origins(method=["my-way", "my-way"])
    assert where == {"method": "my-way", "file": str(file), "sha256": plugins._sha(file)}
    assert registry.origins(method=["ella", "o-lora"], metric=["bleu"], benchmark=["trace"]) == []


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        plugins.load(write(tmp_path / folder / "mine.py", OWN.format(name=f"way-{folder}")))
    assert parse("way-a") != parse("way-b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise ValueError('no')\n", "mine.py could not be run: ValueError: no, line 2"),
        ("import sys\nsys.exit(0)\n", "mine.py could not be run: it ends the process (sys.exit), line 2"),
        ("raise SystemExit\n", "mine.py could not be run: it ends the process (sys.exit), line 1"),
        ("raise KeyboardInterrupt\n", "mine.py could not be run: KeyboardInterrupt, line 1"),
        ("def f(:\n", "mine.py could not be run: SyntaxError"),
        (OWN.format(name="ella"), "mine.py could not be run: the method name 'ella' is taken by 'ella'"),
        (
            OWN.format(name="mine").replace(" = 1.0", ""),
            "mine.py could not be run: the method 'mine' is listed",
        ),
    ],
)
def test_a_file_that_does_not_run_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "mine.py", text)
    for _ in range(2):  # and is not taken for done the second time
        with pytest.raises(ConfigError) as caught:
            plugins.load(file)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_package_that_ends_the_process_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "offered_gone.py", "import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    offer(monkeypatch, "offered_gone")
    with pytest.raises(ConfigError, match="unknown method 'nowhere'"):
        parse("nowhere")
    assert "(offered_gone) could not be loaded and is left out: it ends the process (sys.exit)" in caplog.text


def test_a_line_number_is_given_of_a_plug_in_file_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line of the user's own file, not of the library that it calls; of a package's module no line is known."""
    called = write(tmp_path / "mine.py", "import json\n\njson.loads('{')\n")
    with pytest.raises(ConfigError, match=r"JSONDecodeError: .*, line 3$"):
        plugins.load(called)
    (tmp_path / "null.py").write_bytes(b"x = 1\n\x00\n")
    with pytest.raises(ConfigError, match=r"null bytes$"):
        plugins.load(tmp_path / "null.py")
    write(tmp_path / "offered_unread.py", "def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    offer(monkeypatch, "offered_unread")
    (line,) = plugins.offered("everlora.methods")
    assert line.endswith("SyntaxError: invalid syntax (offered_unread.py, line 1)")


def test_whether_a_package_may_offer_something_is_seen_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "a_module_that_is_not_there")
    assert plugins.may_offer("everlora.methods") is True
    offer(monkeypatch)
    assert plugins.may_offer("everlora.methods") is False


@pytest.mark.parametrize("name", ["absent.py", "notes.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "notes.txt", "x")
    with pytest.raises(ConfigError, match="name a Python file"):
        plugins.load(tmp_path / name)


def test_the_files_that_were_run_are_recorded_while_they_are_there(tmp_path: Path) -> None:
    here = write(tmp_path / "here.py", OWN.format(name="way-here"))
    gone = write(tmp_path / "gone.py", OWN.format(name="way-gone"))
    lost = write(tmp_path / "lost.py", OWN.format(name="way-lost"))
    before = plugins.files()
    for file in (here, gone, lost):
        plugins.load(file)
    gone.unlink()
    (name,) = (name for name, path in plugins.ran.items() if path == lost)
    del sys.modules[name]
    recorded = {"plugin": "here.py", "file": str(here), "sha256": hashlib.sha256(here.read_bytes()).hexdigest()}
    assert plugins.files() == [*before, recorded]


def test_a_module_without_a_file_is_recorded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "packages_distributions", dict)
    assert plugins.origin("never_imported.anywhere") == {"module": "never_imported.anywhere"}
    sys.modules["typed_at_a_prompt"] = ModuleType("typed_at_a_prompt")
    assert plugins.origin("typed_at_a_prompt") == {"module": "typed_at_a_prompt"}
    gone = ModuleType("its_file_is_gone")
    gone.__file__ = str(tmp_path / "gone.py")
    sys.modules["its_file_is_gone"] = gone
    assert plugins.origin("its_file_is_gone") == {"module": "its_file_is_gone"}
    assert plugins.origin("everlora") is None


def test_what_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", OWN.format(name="my-way"))
    where = {"method": "my-way", "file": str(file), "sha256": plugins._sha(file)}
    assert "pass --plugin" in plugins.missing([where])
    plugins.load(file)
    assert plugins.missing([where]) == ""
    write(file, OWN.format(name="my-way") + "\n")
    assert "has changed since" in plugins.missing([where])
    file.unlink()
    assert "which is not there" in plugins.missing([where])
    package = {"method": "m", "package": "no-such-package", "version": "1"}
    assert "from the package no-such-package 1, which is not installed here" in plugins.missing([package])
    old = {"method": "m", "package": "pytest", "version": "0.1"}
    assert f"{pytest.__version__} is installed here" in plugins.missing([old])
    assert plugins.missing([{**old, "version": pytest.__version__}]) == ""
    assert plugins.missing([]) == ""


def test_what_is_missing_is_named_with_its_kind_and_cure(tmp_path: Path) -> None:
    file, sheet = write(tmp_path / "mine.py", "x = 1\n"), write(tmp_path / "mine.yaml", "title: Mine\n")
    code = {"metric": "my-score", "file": str(file), "sha256": hashlib.sha256(b"x = 1\n").hexdigest()}
    data = {"benchmark": "mine", "file": str(sheet), "sha256": hashlib.sha256(b"title: Mine\n").hexdigest()}
    ran = f"the metric 'my-score' is from the file {file}; pass --plugin {file} (that runs its code)"
    assert plugins.missing([code]) == ran
    assert plugins.missing([data]) == "", "a file of facts is read, and needs no option"
    file.unlink()
    sheet.unlink()
    assert plugins.missing([code, data]) == (
        f"the metric 'my-score' is from the file {file}, which is not there; pass --plugin FILE; "
        f"the benchmark 'mine' is from the file {sheet}, which is not there"
    )
    typed = {"plugin": "p", "module": "__main__"}
    assert plugins.missing([typed]) == "the plugin 'p' was made in the module __main__"


def test_a_method_of_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "packages_distributions", lambda: {"theirs": ["pytest"]})

    assert plugins.origin("theirs.methods") == {"package": "pytest", "version": pytest.__version__}


def test_what_is_missing_names_the_kind_and_what_to_do(tmp_path: Path) -> None:
    """A benchmark may be a file that is only read, which no --plugin runs."""
    lost = {"file": str(tmp_path / "mine.py"), "sha256": "0"}
    read = {"file": str(tmp_path / "mine.yaml"), "sha256": "0"}
    assert plugins.missing([{"metric": "mine", **lost}]) == (
        f"the metric 'mine' is from the file {tmp_path / 'mine.py'}, which is not there; pass --plugin FILE"
    )
    assert plugins.missing([{"benchmark": "three", **read}]) == (
        f"the benchmark 'three' is from the file {tmp_path / 'mine.yaml'}, which is not there"
    )
    write(tmp_path / "mine.yaml", "title: t\n")
    here = plugins.file_origin("benchmark", "three", tmp_path / "mine.yaml")
    assert plugins.missing([here]) == ""
    assert plugins.missing([{"plugin": "mine.py", "module": "typed"}, {"module": "typed"}]) == (
        "the plugin 'mine.py' was made in the module typed; the method '?' was made in the module typed"
    )


def test_the_files_that_were_run_and_are_still_there(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.py" for name in ("first", "second", "third"))
    for file in (first, second, third):
        plugins.load(write(file, OWN.format(name=f"way-{file.stem}")))
    del sys.modules[next(name for name, path in plugins.ran.items() if path == second)]
    third.unlink()
    mine = [one for one in plugins.files() if Path(one["file"]).parent == tmp_path]
    assert mine == [{"plugin": "first.py", "file": str(first), "sha256": plugins._sha(first)}]


def test_where_a_module_is_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a package, of a file, or typed at a prompt, where no file holds it."""
    made = write(tmp_path / "made_up.py", "x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("made_up")
    assert plugins.origin("made_up") == {"file": str(made), "sha256": plugins._sha(made)}
    made.unlink()
    assert plugins.origin("made_up") == {"module": "made_up"}
    assert plugins.origin("never_imported") == {"module": "never_imported"}
    monkeypatch.setitem(sys.modules, "typed", ModuleType("typed"))
    assert plugins.origin("typed") == {"module": "typed"}
    assert (plugins.origin("everlora.methods.ella"), plugins.is_ours("everlora_more.ella")) == (None, False)


def test_an_error_names_the_last_line_of_the_file_that_it_came_through(tmp_path: Path) -> None:
    text = "import json\n\ndef read():\n    json.loads('{')\n\nread()\n"
    with pytest.raises(ConfigError, match=r"JSONDecodeError: .*, line 4$"):
        plugins.load(write(tmp_path / "mine.py", text))
    with pytest.raises(ConfigError, match=r"AssertionError, line 1$"):
        plugins.load(write(tmp_path / "bare.py", "assert 0\n"))
    with pytest.raises(ConfigError, match=r"SyntaxError: .*, line 2$"):
        plugins.load(write(tmp_path / "torn.py", "x = 1\ndef f(:\n"))


def test_the_line_of_a_torn_package_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "offered_torn.py", "x = 1\ndef f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    offer(monkeypatch, "offered_torn")
    (line,) = plugins.offered("everlora.methods")
    assert line.endswith("SyntaxError: invalid syntax (offered_torn.py, line 2)")
