"""What a model and its tokenizer must say of each other before anything is read with them."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

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
    rows = model.get_input_embeddings().weight.shape[0]
    word, last = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if last >= rows:
        raise ModelError(
            f"the tokenizer of {name!r} writes the token {last} ({word!r}), and the model has {rows} embeddings; "
            f"save the model after resize_token_embeddings, or take the tokenizer that belongs to it"
        )


def context_of(name: str, config: PretrainedConfig, processor: Any) -> int:
    """Return the longest sequence that model and tokenizer take, in tokens; 2048 if neither says.

    Raises:
        ModelError: one of them names something that is no number of tokens.
    """
    declared = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    known = {"max_position_embeddings": declared, "model_max_length": getattr(processor, "model_max_length", None)}
    for key, value in known.items():
        if value is not None and (not isinstance(value, int | float) or not value >= 1):
            raise ModelError(f"{key} of {name!r} is {value!r}, which is no number of tokens; mend it")
    return min((int(n) for n in known.values() if n is not None and n < UNLIMITED), default=DEFAULT_CONTEXT)


def decoder_start(model: PreTrainedModel, otherwise: int) -> int:
    """Return the token with which `generate` lets the decoder of an encoder-decoder begin, where it looks for it."""
    places = [getattr(model, "generation_config", None), model.config]
    known = [getattr(place, key, None) for key in ("decoder_start_token_id", "bos_token_id") for place in places]
    return next((token for token in known if isinstance(token, int)), otherwise)
