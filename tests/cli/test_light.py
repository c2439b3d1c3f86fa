"""Commands that look something up answer at once: what they import is listed here. Ctrl-C is one line at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import everlora as face
from everlora.cli import completion

from .conftest import ScoredRun

OPTIONS = {"annotated_doc", "annotated_types", "pydantic", "pydantic_core", "shellingham", "typer",
           "typing_extensions", "typing_inspection"}  # fmt: skip
"""Typer to read options, pydantic to define them, and what these two import."""
YAML = OPTIONS | {"yaml", "_yaml"}
TABLES = YAML | {"rich"}
STATISTICS = YAML | {"numpy", "scipy", "charset_normalizer"}  # numpy.f2py asks for the latter
TORCH = TABLES | {"numpy", "torch", "torchgen", "tqdm", "dill"}  # torch takes the last two along where they are there
COMMANDS = {
    "": OPTIONS,
    "--help": OPTIONS,
    "--version": OPTIONS,
    "run --help": OPTIONS,
    "sweep --help": OPTIONS,
    "run --no-such-option": OPTIONS,
    "no-such-command": OPTIONS,
    "run": YAML,
    "run --config gone.yaml --out r": YAML,
    "run --protocol gone --out r": YAML,
    "benchmarks": TABLES,
    "benchmarks standard": TABLES,
    "metrics": TABLES,
    "protocols": TABLES,
    "protocols small-cpu": YAML,
    "status gone": TABLES,
    "status RUN": TABLES,
    "inspect gone": YAML,
    "export gone --out e": YAML,
    "compare gone": STATISTICS,
    "report gone": STATISTICS,
    "figures --json": STATISTICS,
    "compare RUN": STATISTICS,
    "methods": TORCH,
    "methods ella --json": TORCH,
}
REFUSED = {
    "run --learning-rate abc -o r": ("Invalid value for '--learning-rate'", OPTIONS),
    "run --batch-size -3 -o r": ("No such option: --batch-size", OPTIONS),
    "run --per-device-train-batch-size -3 -o r": ("'per_device_train_batch_size' must be above zero", YAML),
    "run --learning-rate=-1 -o r": ("'learning_rate' must not be negative", YAML),
    "run --lora-r 0 -o r": ("setting 'lora.r': Input should be greater than or equal to 1", YAML),
    "run --lora-layers x -o r": ("layers are top:2", YAML),
    "run --eval-split x -o r": ("Input should be 'test' or 'dev'", YAML),
    "run --prompt {x} -o r": ("unknown field {x}", YAML),
    "run --dtype flot32 -o r": ("unknown dtype 'flot32'; did you mean 'float32'", YAML),
    "run --method nope -o r": ("unknown method 'nope'; known: b-cl, base", YAML),
    "run --method ela -o r": ("unknown method 'ela'; did you mean 'ella'", YAML),
    "run --method ella( -o r": ("brackets do not match", YAML),
    "run --metric nope -o r": ("unknown metric 'nope'", YAML),
    "run --benchmark nope -o r": ("unknown benchmark 'nope'", YAML),
    "sweep --methods ella --benchmark long --orders 4,5 --tasks mnli,cb -o r": (
        "leave out --orders, or --tasks",
        YAML,
    ),
    "run --order 99 -o r": ("builtin has no order 99", YAML),
    "run --tasks news,reviws -o r": ("no task 'reviws'; did you mean 'reviews'", YAML),
    "run --model ./nowhere -o r": ("model folder './nowhere' does not exist", YAML),
    "run --model tiny-lama -o r": ("unknown tiny model 'tiny-lama'; did you mean 'tiny-llama'", YAML),
    "run --config typo.yaml -o r": ("unknown setting 'evaluation.shedule'; did you mean 'schedule'", YAML),
    "sweep --methods ella,nope -o r": ("unknown method 'nope'", YAML),
    "sweep --methods ella --seeds x -o r": ("cannot read --seeds 'x'", YAML),
    "sweep --methods ella --orders 9 -o r": ("builtin has no order 9", YAML),
    "sweep --methods ella --lora-dropout 2 -o r": ("setting 'lora.lora_dropout': Input should be less than 1", YAML),
    "study-layers --config empty.yaml --tasks news -o r": ("about two tasks, and 1 are given", YAML),
    "tune --methods nope -o r": ("unknown method 'nope'", YAML),
}
"""What is wrong with a command, and what it may import to see that: neither torch nor transformers."""
SHARED = """
import contextlib, io, json, os, sys
from everlora.cli.main import main
known = {*sys.stdlib_module_names, "everlora", "__main__", "__mp_main__", "sitecustomize", "usercustomize"}
for words, env in json.loads(sys.argv[1]):
    os.environ.update(env)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main(words)
    for name in env:
        del os.environ[name]
    names = {name.partition(".")[0] for name in sys.modules} - known
    print(json.dumps([sorted(names), out.getvalue(), err.getvalue()]), file=sys.__stdout__)
"""
"""Commands one after another in one process: what is imported after each, and what each has printed."""
Asked = tuple[Sequence[str], dict[str, str]]
Shown = tuple[set[str], str, str]


def together(folder: Path, commands: Mapping[str, Asked], allowed: Mapping[str, set[str]]) -> dict[str, Shown]:
    """For each command the modules imported by then, what it wrote on stdout and what on stderr.

    Those that may import the least come first, and commands share a process only if what one may import the next may
    import as well: so nothing that an earlier one has brought along hides what a later one must not import.
    """
    found: dict[str, Shown] = {}
    left = sorted(commands, key=lambda name: len(allowed[name]))
    while left:
        chain: list[str] = []
        for name in left:
            if not chain or allowed[chain[-1]] <= allowed[name]:
                chain.append(name)
        left = [name for name in left if name not in chain]
        words = json.dumps([commands[name] for name in chain])
        command = [sys.executable, "-c", SHARED, words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True)
        for name, line in zip(chain, done.stdout.splitlines(), strict=True):
            names, out, err = json.loads(line)
            found[name] = {one for one in names if not one.startswith(("_", "cython_runtime"))}, out, err
    return found


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory, ran: ScoredRun) -> dict[str, Shown]:
    run = str(ran("ella"))
    commands: dict[str, Asked] = {words: (words.replace("RUN", run).split(), {}) for words in COMMANDS}
    return together(tmp_path_factory.mktemp("looked-up"), commands, COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_imports_no_more_than_it_needs(words: str, looked_up: dict[str, Shown]) -> None:
    names, _, err = looked_up[words]
    assert "Traceback" not in err
    assert names - COMMANDS[words] == set()


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    folder = tmp_path_factory.mktemp("refused")
    (folder / "typo.yaml").write_text("evaluation: {shedule: final}")
    (folder / "empty.yaml").write_text("{}")
    commands: dict[str, Asked] = {words: (words.split(), {}) for words in REFUSED}
    return together(folder, commands, {words: allowed for words, (_, allowed) in REFUSED.items()})


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_wrong_is_seen_before_anything_heavy_is_imported(words: str, refused: dict[str, Shown]) -> None:
    message, allowed = REFUSED[words]
    names, _, err = refused[words]
    assert message in err
    assert "Traceback" not in err
    assert names - allowed == set()


TYPED = {
    "ru": (["run"], OPTIONS),
    "run --lora-": (
        ["--lora-r", "--lora-rank", "--lora-alpha", "--lora-dropout", "--lora-target-modules", "--lora-layers"],
        OPTIONS,
    ),
    "run --method o-l": (["o-lora"], OPTIONS),
    "run --method ella+mig": (["ella+migu"], OPTIONS),
    "sweep --methods ella,seqf": (["ella,seqft"], OPTIONS),
    "methods lb": (["lb-cl"], OPTIONS),
    "run -m tiny-b": (["tiny-bert"], OPTIONS),
    "run --eval-schedule f": (["full", "forward", "final"], OPTIONS),
    "run --protocol sm": (["small-cpu"], YAML),
    "run --metric rouge_l_stemmed_": (["rouge_l_stemmed_first"], YAML),
    "run --benchmark supe": (["superni"], YAML),
    "benchmarks tra": (["trace"], YAML),
}


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    def typed(words: str) -> dict[str, str]:
        line = {"COMP_WORDS": f"everlora {words}", "COMP_CWORD": str(len(words.split()))}
        return {**line, "_EVERLORA_COMPLETE": "complete_bash"}

    commands: dict[str, Asked] = {words: ([], typed(words)) for words in TYPED}
    return together(
        tmp_path_factory.mktemp("completed"), commands, {words: allowed for words, (_, allowed) in TYPED.items()}
    )


@pytest.mark.parametrize("words", TYPED)
def test_the_shell_completes(words: str, completed: dict[str, Shown]) -> None:
    offered, allowed = TYPED[words]
    names, out, err = completed[words]
    assert out.split() == offered
    assert err == ""
    assert names - allowed == set()


def test_completion_can_be_installed(tmp_path: Path) -> None:
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "everlora", "--show-completion", "bash"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "_EVERLORA_COMPLETE=complete_bash" in done.stdout


def test_methods_offered_to_the_shell_are_those_that_there_are() -> None:
    """Their names are read from the source, without running it."""
    from everlora.core.expressions import declared_methods
    from everlora.core.registry import METHODS

    ours = [name for name in METHODS.all() if name not in METHODS.from_outside()]
    assert completion.methods("") == sorted(declared_methods()) == sorted(ours)
    assert declared_methods() == {name: list(METHODS.get(name).aliases) for name in ours}


def test_importing_everlora_imports_nothing_else(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import everlora; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    third = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert third == {"everlora"}


def test_every_public_name_is_there() -> None:
    assert set(face.__all__) == set(face._HOMES)
    assert set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        assert getattr(face, name) is getattr(face, name)
    with pytest.raises(AttributeError, match="has no attribute 'lerner'"):
        _ = face.lerner


MOMENTS = ("typer", "pydantic", "everlora.cli.app", "numpy", "torch.nn", "torch", "transformers", "peft")


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_while_things_are_imported_is_one_line(moment: str, tmp_path: Path) -> None:
    words = ["run", "-m", "tiny-llama", "--tasks", "reviews", "--max-steps", "1", "-o", "r"]
    run = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "everlora", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert run.stderr is not None
    for line in run.stderr:  # one line for every module, when its import has ended
        if line.rpartition("|")[2].strip() == moment:
            run.send_signal(signal.SIGINT)
            break
    rest = [line for line in run.stderr if not line.startswith("import time:")]
    assert run.wait(timeout=120) == 130
    assert len(rest) == 1, rest
    assert rest[0].startswith("everlora: interrupted")
