"""Writes the lines of a card by which a model answers with transformers and PEFT alone."""

from __future__ import annotations

from collections.abc import Mapping

from everlora.archive.commits import TaskCard
from everlora.data.template import DEFAULT, IN_CHAT, Template

AUTO = {
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModelForSequenceClassification",
    "image-classifier": "AutoModelForImageClassification",
}
WRITE = ("decoder", "encoder-decoder")
"""Families that write text."""


def answering_lines(
    family: str,
    base: str,
    cards: Mapping[str, TaskCard],
    *,
    adapter: bool,
    revision: str | None = None,
    template: str | None = None,
    chat: bool = False,
    tokens: int = 50,
) -> str:
    """Return a section with a few lines of Python that put a text to the newest task; empty where no text is written.

    Args:
        family: of the model.
        base: what others call the base model.
        cards: of the tasks, in the order of learning.
        adapter: whether an adapter is put on the base, or the model is whole.
        revision: of the base model.
        template: of prompts, if it is the user's own.
        chat: whether prompts go through the model's chat template.
        tokens: the longest answer.
    """
    if family not in WRITE or not cards:
        return ""
    name, card = list(cards.items())[-1]
    at = f", revision={revision!r}" if revision else ""
    load = f'{AUTO[family]}.from_pretrained({base!r}{at}, dtype="float32")'
    imported, put_on = ("from peft import PeftModel\n", 'PeftModel.from_pretrained(model, ".")')
    lines = [
        f"{imported if adapter else ''}from transformers import {AUTO[family]}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        f"model = {load}" if adapter else f'model = {AUTO[family]}.from_pretrained(".", dtype="float32")',
        *([f"model = {put_on}"] if adapter else []),
        f"text = {_example(card)}",
        f"inputs = {_inputs(name, card, template, chat)}",
        f"written = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)[0]",
        f"print(tokenizer.decode({_answer(family)}, skip_special_tokens=True).strip())",
    ]
    code = "\n".join(lines)
    return f"\nA text put as a row of task {name} is answered without everlora by:\n\n```python\n{code}\n```\n"


def _example(card: TaskCard) -> str:
    return repr([{"role": "user", "content": "…"}] if card.form == "chat" else "…")


def _inputs(name: str, card: TaskCard, template: str | None, chat: bool) -> str:
    """Return the expression that makes tokens of ``text``."""
    content = "text"
    if card.form == "labelled":
        written = Template(template if template is not None else IN_CHAT if chat else DEFAULT)
        before, after = written.around(name, card.instruction, tuple(card.labels))
        content = " + ".join(filter(None, (repr(before) if before else "", "text", repr(after) if after else "")))
    if card.form != "chat" and not chat:
        return f'tokenizer({content}, return_tensors="pt")'
    messages = "text" if card.form == "chat" else f'[{{"role": "user", "content": {content}}}]'
    given = 'add_generation_prompt=True, return_tensors="pt", return_dict=True'
    return f"tokenizer.apply_chat_template({messages}, {given})"


def _answer(family: str) -> str:
    """Return the expression of the tokens that were written, which a decoder puts behind the prompt."""
    return 'written[inputs["input_ids"].shape[1] :]' if family == "decoder" else "written"
