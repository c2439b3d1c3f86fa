"""Checks what a model and its tokenizer must say of each other before anything is read with them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from everlora.core.errors import ModelError

UNLIMITED = 10**9
"""From here on a tokenizer's ``model_max_length`` means that it has none."""
DEFAULT_CONTEXT = 2048


def check_tokenizer(name: str, model: PreTrainedModel, tokenizer: Any, *, writes: bool) -> None:
    """Refuse a tokenizer that a model of text cannot be used with.

    Args:
        name: of the model, for messages.
        model: what reads the tokens.
        tokenizer: what writes them.
        writes: whether answers are text, which must end.

    Raises:
        ModelError: answers have no token to end with, there is nothing to pad with, or token ids lie beyond the
            embedding.
    """
    if writes and not isinstance(tokenizer.eos_token_id, int):
        raise ModelError(
            f"the tokenizer of {name!r} has no end-of-sequence token, so that no answer could end; "
            f"set eos_token in its tokenizer_config.json"
        )
    if not writes and not isinstance(tokenizer.pad_token_id, int):
        raise ModelError(f"the tokenizer of {name!r} has no padding token; set pad_token in its tokenizer_config.json")
    # Looked at now: an id beyond the embedding is an index error in the midst of a task, or on a GPU the end of the
    # process.
    rows = model.get_input_embeddings().weight.shape[0]
    word, last = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if last >= rows:
        raise ModelError(
            f"the tokenizer of {name!r} writes the token {last} ({word!r}), and the model has {rows} embeddings; "
            f"save the model after resize_token_embeddings, or take the tokenizer that belongs to it"
        )


def context_of(name: str, model: PreTrainedModel, processor: Any) -> int:
    """Return the longest sequence that model and tokenizer take, in tokens; 2048 if neither says.

    RoBERTa, MPNet and their kin count positions from behind the one of padding, so that the first ones are not used.

    Raises:
        ModelError: one of them names something that is no number of tokens.
    """
    config = model.config
    declared = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    for table in tables:
        if isinstance(declared, int) and isinstance(table, nn.Embedding) and table.padding_idx is not None:
            declared = min(declared, table.num_embeddings - (table.padding_idx + 1))
    known = {"max_position_embeddings": declared, "model_max_length": getattr(processor, "model_max_length", None)}
    for key, value in known.items():
        if value is not None and (not isinstance(value, int | float) or not value >= 1):
            raise ModelError(f"{key} of {name!r} is {value!r}, which is no number of tokens; mend it")
    # Tokenizers that know no limit write a number of thirty digits for it.
    return min((int(n) for n in known.values() if n is not None and n < UNLIMITED), default=DEFAULT_CONTEXT)


def decoder_start(model: PreTrainedModel, otherwise: int) -> int:
    """Return the token with which `generate` lets the decoder of an encoder-decoder begin, where it looks for it."""
    places = [getattr(model, "generation_config", None), model.config]
    known = [getattr(place, key, None) for key in ("decoder_start_token_id", "bos_token_id") for place in places]
    return next((token for token in known if isinstance(token, int)), otherwise)


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens at which an answer ends: the tokenizer's own first, then the model's and the chat template's.

    Ids that a configuration has by default may be words of this tokenizer: beyond its own, only special tokens count.

    Raises:
        ModelError: an end token of the model is no number.
    """
    # Not those that may stand inside an answer or around it without ending it.
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special -= {tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}
    named: list[Any] = []
    for place in (getattr(model, "generation_config", None), model.config):
        found = getattr(place, "eos_token_id", None)
        named += found if isinstance(found, list | tuple) else [found]
    if wrong := [token for token in named if not (token is None or isinstance(token, int))]:
        raise ModelError(
            f"the model names the end token {wrong[0]!r}, which is no number; "
            f"mend eos_token_id in its generation_config.json or config.json"
        )
    named.append(_end_of_turn(tokenizer))
    own = int(tokenizer.eos_token_id)
    return (own, *sorted({token for token in named if token in special and token != own}))


def _end_of_turn(tokenizer: Any) -> int | None:
    """Return the token that a chat template writes right behind an assistant's message; None if there is none."""
    if not tokenizer.chat_template:
        return None
    marker = "everlora"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": marker}]
    try:
        written = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template that refuses this chat ends turns in a way that cannot be seen
        return None
    before, _, after = written.rpartition(marker)
    # Blanks go first: some templates break the line before they end a turn.
    tokens = tokenizer(after.lstrip(), add_special_tokens=False).input_ids if before else []
    return int(tokens[0]) if tokens else None
