"""Tests what is held of texts: the tokens of each are made once, and are those of the tokenizer."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from everlora import Example, Task, load
from everlora.core.errors import DataError
from everlora.models.families.store import TokenStore

TOKENIZER: PreTrainedTokenizerBase = load("tiny-bert").family.processor


@given(text=st.text(max_size=80), special=st.booleans(), length=st.sampled_from([None, 4, 9]))
def test_tokens_are_those_of_the_tokenizer_at_first_and_afterwards(text: str, special: bool, length: int | None):
    cut = {} if length is None else {"truncation": True, "max_length": length}
    expected = TOKENIZER(text, add_special_tokens=special, **cut).input_ids
    store = TokenStore()
    assert [store.tokens(TOKENIZER, text, special=special, length=length) for _ in range(2)] == [expected] * 2


class Counting:
    """Stands for a tokenizer that counts the texts it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str, **_: object) -> object:
        self.texts.append(text)
        return TOKENIZER(text)


def test_each_text_is_tokenised_once_by_all_copies_of_a_model():
    store, counting = TokenStore(), Counting()
    for _ in range(3):
        store.tokens(counting, "fine film", special=True)  # type: ignore[arg-type]
        copy.deepcopy(store).tokens(counting, "poor film", special=True)  # type: ignore[arg-type]
    assert counting.texts == ["fine film", "poor film"]


def test_a_list_that_is_changed_by_its_reader_is_not_what_the_next_one_gets():
    store = TokenStore()
    first = store.tokens(TOKENIZER, "fine film", special=True)
    first.clear()
    assert store.tokens(TOKENIZER, "fine film", special=True) == TOKENIZER("fine film").input_ids


def test_what_was_used_longest_ago_is_dropped_within_the_limit():
    store, counting = TokenStore(limit=4 * len(TOKENIZER("fine film").input_ids)), Counting()
    for text in ("fine film", "poor film", "poor film", "fine film"):
        store.tokens(counting, text, special=True)  # type: ignore[arg-type]
    assert counting.texts == ["fine film", "poor film", "fine film"]


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
@pytest.mark.parametrize("text", ["\ud800 film", "\ud800 film" * 4000])
def test_half_a_character_in_a_row_is_refused_in_a_line(model: str, text: str):
    rows = [Example("fine film", "yes"), Example(text, "no")]
    task = Task(name="t", train=rows, test=rows[:1], labels=("yes", "no"))
    with pytest.raises(DataError, match=r"half a character .* \(train row 2, which begins '\\ud800 film"):
        load(model).family.check(task)
