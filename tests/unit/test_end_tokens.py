"""Which tokens end an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from everlora.core.errors import ModelError
from everlora.models.tokenizer import end_tokens

TOKENIZER = SimpleNamespace(
    added_tokens_decoder={k: SimpleNamespace(special=k != 7) for k in (0, 1, 2, 5, 7)},
    unk_token_id=0,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    chat_template=None,
)


def model(eos: Any) -> Any:
    return SimpleNamespace(generation_config=None, config=SimpleNamespace(eos_token_id=eos))


def test_special_tokens_that_the_model_names_end_an_answer_behind_the_tokenizers_own() -> None:
    assert end_tokens(model(None), TOKENIZER) == (2,)
    assert end_tokens(model(5), TOKENIZER) == (2, 5)
    assert end_tokens(model([5, 2, 7, 1, 99]), TOKENIZER) == (2, 5)  # words, bos and what the tokenizer lacks do not


@pytest.mark.parametrize("eos", [[{}], {}, "2", [5, "x"]])
def test_an_end_token_that_is_no_number_is_one_line(eos: Any) -> None:
    with pytest.raises(ModelError, match="which is no number; mend eos_token_id"):
        end_tokens(model(eos), TOKENIZER)
