"""Builds tiny random models with a small tokenizer, in memory and offline: for tests and smoke runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from everlora.core.errors import ModelError, nearest
from everlora.models.names import TINY
from everlora.runtime.seeds import seeded

SPECIAL = ["<pad>", "<s>", "</s>"]
CONTEXT = 512
_WORDS = """the of and to in is it you that was for on are with as his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know good movie film music
team game company market stock science study phone order service price great terrible love hate food room clean slow
fast country city book news report question answer options yes no positive negative neutral true false entailment
contradiction Answer: Options: Title: Text: Is Does What The It This A I We. , ' - \n"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most 640 tokens, which can write every text.

    >>> tokenizer().decode(tokenizer()(" good film").input_ids)
    ' good film'
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" " + word for word in _WORDS.split(" ")] * 2, trainer)
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _build(make: Callable[[int], PreTrainedModel]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return a model of a vocabulary's size with weights from a fixed seed, and its tokenizer."""
    words = tokenizer()
    with seeded(0):
        return make(len(words)), words


def _ids(vocab: int) -> dict[str, int]:
    """Return the settings that a model shares with its tokenizer."""
    return {"vocab_size": vocab, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny_llama() -> tuple[Any, Any, Any]:
    """Build a decoder of two layers and width 64, with four query heads and two key-value heads."""
    config = dict(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    return *_build(lambda v: LlamaForCausalLM(LlamaConfig(**config, **_ids(v)))), "decoder"


def tiny_t5() -> tuple[Any, Any, Any]:
    """Build an encoder-decoder of two and two layers and width 64."""
    config = dict(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0, n_positions=CONTEXT)
    ids = {"decoder_start_token_id": 0}
    return *_build(lambda v: T5ForConditionalGeneration(T5Config(**config, **ids, **_ids(v)))), "encoder-decoder"


def tiny_bert() -> tuple[Any, Any, Any]:
    """Build an encoder of two layers and width 64."""
    config = dict(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return *_build(lambda v: BertForSequenceClassification(BertConfig(**config, **_ids(v)))), "encoder"


def tiny_vit() -> tuple[Any, Any, Any]:
    """Build an image encoder of two layers and width 64, with patches of 8 x 8 on images of 32 x 32."""
    config = ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with seeded(0):
        model = ViTForImageClassification(config)
    return model, ViTImageProcessorPil(size={"height": 32, "width": 32}), "image-classifier"


BUILDERS: dict[str, Callable[[], tuple[Any, Any, Any]]] = dict(
    zip(TINY, (tiny_llama, tiny_t5, tiny_bert, tiny_vit), strict=True)
)


def build(name: str, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Build a tiny model by name with weights of a type; return model, processor and the name of its family.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in BUILDERS:
        raise ModelError(f"unknown tiny model {name!r}{nearest(name, BUILDERS)}")
    model, processor, family = BUILDERS[name]()
    return model.to(dtype), processor, family
