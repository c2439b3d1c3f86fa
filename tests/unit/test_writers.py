"""Answers in text: where they end, what decoding keeps, how long they may be, and what a tokenizer cannot write."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from everlora import Example, Task, load
from everlora.core.errors import DataError, ModelError
from everlora.models.environment import fingerprint
from everlora.models.families import Causal, Limits, Seq2Seq, Writer
from everlora.models.loading import Loaded
from everlora.models.tokenizer import end_tokens

TURNS = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def task(*targets: str, labels: tuple[str, ...] = (), metric: str = "exact_match", prompt: str = "say it") -> Task:
    rows = [Example(f"{prompt} {k}", target) for k, target in enumerate(targets)]
    form: Any = "labelled" if labels else "prompted"
    return Task(name="t", train=rows, test=rows, labels=labels, form=form, metric=metric)


def chat(*turns: tuple[str, str]) -> Task:
    rows = [Example([{"role": role, "content": text} for role, text in turns], "good")]
    return Task(name="t", train=rows, test=rows, form="chat", source="a.jsonl")


@pytest.fixture(params=["tiny-llama", "tiny-t5"])
def base(request: pytest.FixtureRequest) -> Loaded:
    return load(request.param)


def reader(base: Loaded, **limits: Any) -> Any:
    return type(base.family)(base.family.processor, Limits(**{"context": 128, **limits}))


# --- where answers end -----------------------------------------------------------------------------------------------


def with_turns(base: Loaded) -> Any:
    words = base.family.processor
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<tool_call>"]})
    words.chat_template = TURNS
    return words


def test_ends_are_those_of_tokenizer_model_and_chat_template(base: Loaded) -> None:
    words = base.family.processor
    base.model.generation_config.eos_token_id = base.model.config.eos_token_id = words.eos_token_id
    assert end_tokens(base.model, words) == (words.eos_token_id,)
    words = with_turns(base)
    turn = words.convert_tokens_to_ids("<|im_end|>")
    assert end_tokens(base.model, words) == (words.eos_token_id, turn)
    words.chat_template = None
    assert end_tokens(base.model, words) == (words.eos_token_id,)
    base.model.generation_config.eos_token_id = [words.eos_token_id, turn]
    assert end_tokens(base.model, words) == (words.eos_token_id, turn)
    ordinary = words.convert_tokens_to_ids("a")
    base.model.generation_config.eos_token_id = ordinary  # what a configuration says by default may be a word here
    assert end_tokens(base.model, words) == (words.eos_token_id,)


def test_a_family_generates_up_to_any_end_and_its_fingerprint_names_them(base: Loaded) -> None:
    family: Writer = base.family  # type: ignore[assignment]
    words, end = family.processor, family.processor.eos_token_id
    other = words.convert_tokens_to_ids("a")
    family.ends = (end, other)
    inside = [*family.prompter.tokens("b c"), other, *family.prompter.tokens("b")]
    assert [text.strip() for text in family.decode([inside], task("x"))] == ["b c"]
    assert family.generation(task("x"), {"do_sample": False}).eos_token_id == [end, other]
    record = fingerprint(base, "generate", None).model_dump()
    assert record["end_tokens"] == [end, other]
    assert ("decoder_start_token" in record) == isinstance(family, Seq2Seq)


def test_generation_stops_at_the_end_of_a_turn(base: Loaded) -> None:
    """Whatever the model says first is made an end: nothing is left of the answer."""
    family: Writer = base.family  # type: ignore[assignment]
    one = task("x")
    before = family.predict(base.model, one, one.test, "generate")[0]
    first = family.prompter.tokens(before)
    with torch.no_grad():
        batch = family.collate([{**family.features(one.test[0], one)}])
        said = int(family.logits(base.model, batch)[0][0].argmax())
    family.ends = (*family.ends, said)
    assert first
    assert family.predict(base.model, one, one.test, "generate") == [""]


# --- what decoding keeps ---------------------------------------------------------------------------------------------


def test_special_tokens_that_were_learned_come_back(base: Loaded) -> None:
    with_turns(base)
    family = reader(base)
    learned, other = task("<tool_call>good", "bad"), task("good")
    rows = [family.answer("<tool_call>good", learned), family.answer("<|im_start|>good", learned)]
    assert [text.strip() for text in family.decode(rows, learned)] == ["<tool_call>good", "good"]
    assert [text.strip() for text in family.decode(rows, other)] == ["good", "good"]
    assert not family.remarks(learned)


def test_the_text_of_an_end_token_inside_an_answer_is_told_before_training(base: Loaded) -> None:
    end = base.family.processor.eos_token
    remarks = base.family.remarks(task(f"yes {end} no", "yes"))
    assert len(remarks) == 1
    assert remarks[0].startswith("1 of 2 different answers")
    assert f"{f'yes {end} no'!r} is read back as 'yes'" in remarks[0]
    assert not base.family.remarks(task("yes", "no"))


def test_answers_of_several_lines_under_a_metric_of_the_first_are_told_before_training(base: Loaded) -> None:
    targets = ("one line", "a\nb")
    assert not base.family.remarks(task(*targets))
    (remark,) = base.family.remarks(task(*targets, metric="exact_match_first_line"))
    assert "exact_match_first_line counts 1 of 2 different right answers as wrong, word for word" in remark
    assert remark.endswith("such as 'a\\nb'; use exact_match")


def test_labels_with_equal_tokens_are_refused(base: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    family: Writer = base.family  # type: ignore[assignment]
    plain = family.prompter.tokens
    unknown = lambda text: plain("".join(letter if letter.isascii() else "?" for letter in text))  # noqa: E731
    monkeypatch.setattr(family.prompter, "tokens", unknown)
    with pytest.raises(DataError, match="'支持' and '反对' have the same tokens"):
        family.check(task("支持", "反对", labels=("支持", "反对")))
    family.check(task("支持", "no", labels=("支持", "no")))
    assert "'支持' is read back as '??'" in family.remarks(task("支持", "no", labels=("支持", "no")))[0]


# --- how long answers may be -----------------------------------------------------------------------------------------


def test_the_length_of_answers_follows_the_targets_unless_it_is_given(base: Loaded) -> None:
    long, short = task("good " * 60), task("good")
    free, given = reader(base, context=512, follow_targets=True), reader(base, context=512, answer=7)
    tokens = len(free.answer(long.train[0].target, long))
    assert tokens > 50
    assert free.targets(long).longest == tokens + max(4, tokens // 10)
    assert free.targets(short).longest == 50
    assert given.targets(long).longest == given.targets(short).longest == 7
    labels = task("good", "bad", labels=("good", "bad"))
    assert free.targets(labels).longest == max(len(free.answer(label, labels)) for label in labels.labels) + 4


def test_an_answer_never_grows_beyond_the_context() -> None:
    base = load("tiny-llama")
    long = task("good " * 60, prompt="tell me " * 5)
    tokens = len(reader(base).answer(long.train[0].target, long))
    prompt = len(base.family.prompter.prompt(long.train[0], long, room=1)[0])  # type: ignore[attr-defined]
    family = reader(base, context=tokens + prompt + 2, follow_targets=True)
    assert family.targets(long).longest == tokens + 2


@pytest.mark.parametrize("source", [None, 64])
@pytest.mark.parametrize("spare", [-2, 0, 1])
def test_an_answer_that_leaves_no_room_is_refused(source: int | None, spare: int) -> None:
    base = load("tiny-llama")
    long = task("good " * 60, prompt="tell me " * 5)
    tokens = len(reader(base).answer(long.train[0].target, long))
    family = reader(base, context=tokens + spare, source=source)
    with pytest.raises(DataError, match=r"no room for its prompt|longer than the 1 that"):
        family.check(long)


def test_an_encoder_decoder_refuses_an_answer_beyond_its_context() -> None:
    long = task("good " * 60)
    family = reader(load("tiny-t5"))
    tokens = len(family.answer(long.train[0].target, long))
    reader(load("tiny-t5"), context=tokens).check(long)
    with pytest.raises(DataError, match=f"an answer of {tokens} tokens is longer than the model's context"):
        reader(load("tiny-t5"), context=tokens - 1).check(long)


# --- chat templates --------------------------------------------------------------------------------------------------


def test_the_day_does_not_reach_a_prompt() -> None:
    base = load("tiny-llama")
    words = with_turns(base)
    words.chat_template = "Today: {{ strftime_now('%d %b %Y') }}\n" + TURNS
    family = Causal(words, Limits(context=512))
    text = family.prompter.raw(chat(("user", "x")).train[0], chat(("user", "x")))
    assert text.startswith("Today: 01 Jan 2025\n")
    assert datetime.now().strftime("%d %b %Y") not in text
    assert family.answering()["chat_date"] == "2025-01-01"
    assert "chat_date" not in load("tiny-llama").family.answering()


@pytest.mark.parametrize(
    ("asking", "day"),
    [
        ("{{ strftime_now ('%Y') }}", "2025"),
        ("{% set n = strftime_now %}{{ n('%d %B') }}", "01 January"),
        ('{% set f = "%Y" %}{{ strftime_now(format=f + "-%m") }}', "2025-01"),
        ("{% macro day() %}{{ strftime_now('%A') }}{% endmacro %}{{ day() }}", "Wednesday"),
        ("{% if strftime_now is defined %}{% for n in [strftime_now] %}{{ n('%j') }}{% endfor %}{% endif %}.", "001."),
        ("{{ strftime_now('%%d %-d/%-m %H:%M') }}", "%d 1/1 00:00"),
        ({"default": "{{ strftime_now('%y') }}", "tool_use": ""}, "25"),
    ],
)
def test_the_day_is_the_same_in_every_spelling(asking: str | dict[str, str], day: str) -> None:
    words = with_turns(load("tiny-llama"))
    asking = asking if isinstance(asking, str) else {name: f"{text}\n{TURNS}" for name, text in asking.items()}
    words.chat_template = f"{asking}\n{TURNS}" if isinstance(asking, str) else asking
    family = Causal(words, Limits(context=512))
    task = chat(("user", "x"))
    written = family.prompter.raw(task.train[0], task)
    words.chat_template = f"{day}\n{TURNS}"
    assert written == Causal(words, Limits(context=512)).prompter.raw(task.train[0], task)
    assert family.answering()["chat_date"] == "2025-01-01"


def test_a_date_used_as_a_filter_is_refused_and_one_that_is_not_used_is_not_recorded() -> None:
    words = with_turns(load("tiny-llama"))
    words.chat_template = "{{ '%d'|strftime_now }}" + TURNS
    with pytest.raises(DataError, match=r"chat template refuses messages .* No filter named 'strftime_now'"):
        Causal(words, Limits(context=512)).prompter.raw(chat(("user", "x")).train[0], chat(("user", "x")))
    words.chat_template = "{# strftime_now('%Y') #}{{ 'strftime_now' }}" + TURNS
    assert "chat_date" not in Causal(words, Limits(context=512)).answering()


def test_a_template_that_refuses_a_row_is_named_with_its_row_and_roles() -> None:
    base = load("tiny-llama")
    words = with_turns(base)
    words.chat_template = "{{ raise_exception('Roles must alternate') }}"
    refused = r"task 't' of a.jsonl: .* roles user, user, in this order: Roles must alternate; .*\(train row 1\)"
    with pytest.raises(DataError, match=refused):
        Causal(words, Limits(context=512)).check(chat(("user", "a"), ("user", "b")))


# --- model folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_base_folder_with_an_adapter_in_it_is_refused(left: str, tmp_path: Path) -> None:
    base = load("tiny-llama")
    base.model.save_pretrained(tmp_path)
    base.family.processor.save_pretrained(tmp_path)
    assert load(str(tmp_path)).family.name == "decoder"
    (tmp_path / left).write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match="holds an adapter"):
        load(str(tmp_path))
