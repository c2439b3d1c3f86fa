"""Writes prompts in tokens, for families that answer in text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from string import ascii_letters
from typing import Any

from transformers import PreTrainedTokenizerBase

from everlora.core.errors import DataError
from everlora.data.task import Example, Task
from everlora.models.families.base import Limits
from everlora.models.families.store import TokenStore

MARK = "\u2402text\u2403"
"""Stands for a row's text while the chat template is written around it; no text has it."""
MIN_PROMPT = 8
"""Tokens below which a prompt that is cut says nothing."""
CHAT_DATE = date(2025, 1, 1)
"""The day that chat templates are given, whenever a run is made: the same command writes the same prompts."""


def asks_for_date(template: str) -> bool:
    """Return whether a chat template asks for today's date, in whatever spelling.

    >>> asks_for_date("{{ strftime_now ('%Y') }}"), asks_for_date("{# no strftime_now #}{{ 'strftime_now' }}")
    (True, False)
    """
    if "strftime_now" not in template:
        return False
    from jinja2 import Environment

    return any(kind == "name" and word == "strftime_now" for _, kind, word in Environment().lex(template))


def dated(template: str) -> str:
    """Return a chat template in which ``strftime_now`` writes `CHAT_DATE`, however the template uses it.

    A macro of that name goes before the function that reads the clock; transformers takes no function instead.
    """
    # All that strftime knows here, since a template may ask in any form.
    codes = [f"%{flag}{letter}" for letter in ascii_letters for flag in ("", "-", "_", "^", "#")]
    parts = {code: text for code in codes if (text := CHAT_DATE.strftime(code)) != code}
    macro = (
        "{%- macro strftime_now(format) -%}{%- for piece in format.split('%%') -%}"
        "{%- set date = namespace(text=piece) -%}{%- for code, part in " + repr(parts) + ".items() -%}"
        "{%- set date.text = date.text.replace(code, part) -%}{%- endfor -%}"
        "{{ '' if loop.first else '%' }}{{ date.text }}{%- endfor -%}{%- endmacro %}"
    )
    return f"{macro}\n{template}"  # the line break goes with the tag; the template still begins a line


def cut_middle(ids: list[int], length: int) -> list[int]:
    """Return tokens without their middle: instruction and cue stand at the two ends of a prompt.

    >>> cut_middle([1, 2, 3, 4, 5], 3)
    [1, 2, 5]
    """
    tail = length // 2
    return [*ids[: length - tail], *ids[len(ids) - tail :]]


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the chat template that a tokenizer uses of its own accord, of several the one called default."""
    several = tokenizer.chat_template
    found = several.get("default") if isinstance(several, Mapping) else several
    return found if isinstance(found, str) else None


class Prompter:
    """Writes prompts by a template; only the text may be cut, or the middle of a prompt that is given as a whole.

    The default template shows instruction, options, text and a cue, and no name of a task: no task id reaches the
    model.

    >>> from everlora import Example, Task, load
    >>> rows = [Example("fine film", "good")]
    >>> task = Task(name="reviews", train=rows, test=rows, labels=("good", "bad"), instruction="Rate the text.")
    >>> prompter = load("tiny-llama").family.prompter
    >>> tokens, cut = prompter.prompt(rows[0], task, room=4)
    >>> print(prompter.tokenizer.decode(tokens))
    Rate the text.
    Options: good, bad
    fine film
    Answer:
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        self.tokenizer = tokenizer
        self.limits = limits
        self.known_tokens = TokenStore()
        # Seen from what it writes: whether a tokenizer begins with its bos token stands in no one setting.
        first = tokenizer("a").input_ids[:1]
        self.date: str | None = None
        """What a chat template that asks for the date is given; None where it does not ask."""
        self._template = _default_template(tokenizer)
        if self._template and asks_for_date(self._template):
            self._template, self.date = dated(self._template), CHAT_DATE.isoformat()
        self.start = first if first and first[0] == tokenizer.bos_token_id else []

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a piece of text, without special tokens."""
        return self.known_tokens.tokens(self.tokenizer, text, special=False)

    def answer(self, target: str, task: Task, *, spaced: bool = True) -> list[int]:
        """Return the tokens of an answer with the end-of-sequence token, which has to be learned like the rest.

        After the template's cue a decoder writes a blank first; a prompt that is given as a whole is continued as it
        is.
        """
        return [
            *self.tokens(f" {target}" if spaced and task.form == "labelled" and not self.limits.chat else target),
            int(self.tokenizer.eos_token_id),
        ]

    def prompt(self, example: Example, task: Task, room: int) -> tuple[list[int], int]:
        """Return the tokens of the prompt and how many tokens of the text were cut to fit.

        Args:
            example: the row.
            task: gives instruction and options.
            room: tokens that the answer needs within the context.

        Raises:
            DataError: the prompt does not fit and may not be cut.
        """
        limit = self.limits.context - room
        if limit < 1:
            raise self._no_room(task, room)
        if task.form == "labelled":
            head, cue = self._around(task)
            # Piece by piece, so that instruction and cue have the same tokens whatever the text is, and only the text
            # is cut.
            before, after = self.tokens(head), self.tokens(cue)
            text = self.tokens(example.input)
            start = [] if self.limits.chat else self.start
            space = min(limit, self.limits.source or limit) - len(start) - len(before) - len(after)
            if space < 1:
                raise DataError(
                    f"task {task.name!r}: instruction and options alone take {len(before) + len(after)} tokens, more "
                    f"than the prompt may have; raise --max-source-length or choose a model with a longer context"
                )
            if len(text) > space and self.limits.source is None:
                published = task.prompt_limit
                if published is None:
                    raise self._too_long(task, len(start) + len(before) + len(text) + len(after), limit)
                kept = cut_middle(text, max(1, space - max(0, limit - published)))
                return [*start, *before, *kept, *after], len(text) - len(kept)
            return [*start, *before, *text[:space], *after], max(0, len(text) - space)
        start = [] if task.form == "chat" or self.limits.chat else self.start  # chat templates write their own
        ids = [*start, *self.tokens(self.raw(example, task))]
        # What a benchmark's authors cut is cut only where it would not fit; a limit that the user sets always holds.
        most = self.limits.source or (task.prompt_limit if len(ids) > limit else None)
        if task.form == "prompted" and most is not None and len(ids) > (space := min(limit, most)):
            if space < MIN_PROMPT:
                raise self._no_room(task, room)
            return cut_middle(ids, space), len(ids) - space
        if len(ids) > limit:
            raise self._too_long(task, len(ids), limit)
        return ids, 0

    def _around(self, task: Task) -> tuple[str, str]:
        """Return what stands before a row's text and what behind it, with the chat template's own where it is used."""
        head, cue = self.limits.template.around(task.name, task.instruction, task.labels)
        if not self.limits.chat:
            return head, cue
        # A mark in the place of the text: tokens before and behind it are then the same whatever the text is.
        message = Example([{"role": "user", "content": f"{head}{MARK}{cue}"}], "")
        before, mark, after = self._rendered(message, task).partition(MARK)
        if not mark:
            raise DataError(
                f"task {task.name!r}: the model's chat template does not show a user's message as it is; pass "
                f"--prompt-style plain"
            )
        return before, after

    def raw(self, example: Example, task: Task) -> str:
        """Return a prompt that is given as a whole: as it is, or through the tokenizer's chat template.

        Raises:
            DataError: chat messages, and a tokenizer without a chat template.
        """
        if task.form != "chat":
            message = Example([{"role": "user", "content": str(example.input)}], "")
            return self._rendered(message, task) if self.limits.chat else str(example.input)
        return self._rendered(example, task)

    def _rendered(self, example: Example, task: Task) -> str:
        """Return chat messages through the tokenizer's chat template; see `raw`."""
        if not self.tokenizer.chat_template:
            raise DataError(
                f"task {task.name!r} holds chat messages, but the model's tokenizer has no chat template; "
                f"give prompt/completion columns or an instruct model"
            )
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                example.input, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template raises what it likes
            roles = ", ".join(str(message.get("role")) for message in example.input)
            why = " ".join(str(error).split())[:200]
            raise DataError(
                f"task {task.name!r} of {task.source or 'memory'}: the model's chat template refuses messages with "
                f"the roles {roles}, in this order: {why}; leave out what it does not know, or choose another model"
            ) from error
        return str(rendered)

    def _no_room(self, task: Task, room: int) -> DataError:
        """Return the error of an answer that leaves no prompt before it."""
        return DataError(
            f"task {task.name!r}: the {room} tokens of an answer leave no room for its prompt in a context of "
            f"{self.limits.context}; shorten the answer (or --max-new-tokens), or choose a model with a longer context"
        )

    def _too_long(self, task: Task, found: int, limit: int) -> DataError:
        """Return the error of a prompt that does not fit and may not be cut."""
        cure = {
            "labelled": "set --max-source-length to cut texts",
            "prompted": "set --max-source-length to cut prompts in the middle",
        }.get(task.form, "shorten the prompt")
        reserved = self.limits.reserved
        soft = f" and the {reserved} tokens of the method's soft prompts" if reserved else ""
        return DataError(
            f"task {task.name!r}: a prompt of {found} tokens is longer than the {limit} that the model's context "
            f"leaves beside the answer{soft}; {cure}, {'shorten these, ' if soft else ''}or choose a model with a "
            f"longer context"
        )
