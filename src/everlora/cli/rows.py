"""Reads rows and questions that are named on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everlora.cli import options
from everlora.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from everlora.archive.commits import TestFile
    from everlora.data.task import Task


class TaskData:
    """Reads the rows of a task that is named on the command line."""

    def __init__(
        self,
        name: str,
        data: str,
        test: str | None,
        fraction: float | None,
        labels: str | None,
        instruction: str,
        metric: str | None,
        column: list[str],
        learn_turns: str = "last",
    ) -> None:
        if test is not None and fraction is not None:
            raise ConfigError("give either --test or --test-fraction")
        self.columns = columns_of(column)
        self.test = test
        self.settings: dict[str, Any] = {
            "name": name,
            "train": data,
            "test": test,
            "test_fraction": None if test is not None else 0.1 if fraction is None else fraction,
            "labels": [label.strip() for label in labels.split(",")] if labels else None,
            "instruction": instruction,
            "metric": metric,
            "learn_turns": learn_turns,
            **self.columns,
        }

    def load(self) -> Task:
        """Load the task.

        Raises:
            EverloraError: a file or row, or what is said of them, cannot be used.
        """
        from everlora.data.files import load_task
        from everlora.data.test_rows import entry_of

        try:
            entry = entry_of(**self.settings)
        except DataError as error:
            raise DataError(f"--{error}") from None
        return load_task(entry, Path.cwd() / "the command line")

    def test_file(self) -> TestFile | None:
        """Return where the test rows can be read again; None where they are no file of their own."""
        from everlora.archive.commits import TestFile
        from everlora.archive.root import sha256

        if self.test is None or not Path(self.test).is_file():
            return None
        place = Path(self.test).resolve()
        return TestFile(path=str(place), sha256=sha256(place), columns=self.columns)


def columns_of(column: list[str] | None) -> dict[str, str]:
    """Return what ``--column`` says, as names of settings of a task's entry."""
    return {f"{role}_column": of for role, of in options.pairs(column, "--column").items()}


def read_questions(file: str) -> list[Any]:
    """Read questions, a line each; a line of JSON is an object with ``text``, ``prompt`` or ``messages``, or a text.

    Raises:
        DataError: the file cannot be read, or a line is none of these.
    """
    try:
        # What Python takes from stdin in place of bytes that are no text is bytes again, and refused as of a file.
        raw = sys.stdin.read().encode("utf-8", "surrogateescape") if file == "-" else Path(file).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {file}: {error}") from None
    lines = text.replace("\r\n", "\n").split("\n")  # and not at other separators
    found = (question_in(line, file, number) for number, line in enumerate(lines, start=1))
    return [question for question in found if question is not None]


def coming_questions() -> Iterator[Any]:
    """Read questions from stdin, each as soon as its line is there; see `read_questions`.

    Raises:
        DataError: a line is none.
    """
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"cannot read -, line {number}: {error}") from None
        question = question_in(line.rstrip("\r\n"), "-", number)
        if question is not None:
            yield question


def question_in(line: str, file: str, number: int) -> Any:
    """Return the question in a line, which is an object with ``text``, ``prompt`` or ``messages``, or a text.

    >>> question_in('{"text": "hello"}', "-", 1), question_in("hello", "-", 2), question_in("  ", "-", 3)
    ('hello', 'hello', None)

    Raises:
        DataError: it is none of these.
    """
    if not line.strip():
        return None
    begins = line.lstrip()[0]
    if begins not in '{"':
        return line
    try:
        content = json.loads(line)
    except ValueError as error:
        if begins == "{":
            raise DataError(f"{file}, line {number}: no sound JSON ({error}); mend or remove it") from None
        return line
    keys = [key for key in ("text", "prompt", "messages") if isinstance(content, dict) and key in content]
    if not isinstance(content, str) and not keys:
        raise DataError(f"{file}, line {number}: an object must have text, prompt or messages")
    return content[keys[0]] if keys else content
