"""Makes a prompt of a row of text and label: a text with fields, which the task and the row fill."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from everlora.core.errors import ConfigError, nearest

DEFAULT = "{instruction}\nOptions: {labels}\n{text}\nAnswer:"
IN_CHAT = "{instruction}\nOptions: {labels}\n{text}"
"""The message of a user; the model's own chat template stands around it, and cues the answer."""
FIELDS = ("instruction", "labels", "task", "text")


@dataclass(frozen=True)
class Template:
    """Holds what stands around a text.

    Fields: ``{instruction}`` and ``{labels}`` (comma separated) of the task; ``{task}``, its name; ``{text}``, the
    row's, exactly once. A line whose fields are all empty is left out: a task without a label set has no line of
    options. A template that shows ``{task}`` tells the model which task a row belongs to, as O-LoRA's scripts do.

    Raises:
        ConfigError: an unknown field, one without a name, a brace that is not closed, or not one ``{text}``.
    """

    text: str = DEFAULT
    _lines: tuple[tuple[tuple[str, str | None], ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines = []
        for number, line in enumerate(self.text.split("\n"), start=1):
            try:
                pieces = [(before, name, style) for before, name, style, _ in string.Formatter().parse(line)]
            except ValueError as error:
                raise ConfigError(f"prompt, line {number}: {error}; write {{{{ for a brace of the text") from None
            for _, name, style in pieces:
                if name is not None and (name not in FIELDS or style):
                    raise ConfigError(
                        f"prompt, line {number}: unknown field {{{name}{':' if style else ''}{style or ''}}}"
                        f"{nearest(name, FIELDS)}; fields: {', '.join(FIELDS)}"
                    )
            lines.append(tuple((before, name) for before, name, _ in pieces))
        if sum(name == "text" for line in lines for _, name in line) != 1:
            raise ConfigError("a prompt must hold {text} exactly once")
        object.__setattr__(self, "_lines", tuple(lines))

    def around(self, task: str, instruction: str, labels: tuple[str, ...]) -> tuple[str, str]:
        """Return what stands before a row's text and what behind it."""
        values = {"task": task, "instruction": instruction, "labels": ", ".join(labels), "text": "\0"}
        kept = [self._filled(line, values) for line in self._lines if self._says(line, values)]
        before, after = "\n".join(kept).split("\0")
        return before, after

    @staticmethod
    def _says(line: tuple[tuple[str, str | None], ...], values: Mapping[str, str]) -> bool:
        names = [name for _, name in line if name is not None]
        return not names or any(values[name] for name in names)

    @staticmethod
    def _filled(line: tuple[tuple[str, str | None], ...], values: Mapping[str, str]) -> str:
        return "".join(before + (values[name] if name is not None else "") for before, name in line)
