"""Tiny randomly initialised model folders of many architectures, made from transformers' configurations alone.

Two layers, width 32, about 130 tokens; weights wide enough that answers differ from row to row, and margins between
two answers stand far above rounding. Nothing here knows everlora.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as pieces

CONTEXT = 512
_WORDS = """good bad film music team great slow fast book city service price yes no perhaps not the what is Options
Answer Say which one fits item number"""
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_WITH_HEAD_DIM = {**_LLAMA, "head_dim": 8}
_ALL_HEADS = {**_LLAMA, "num_key_value_heads": 4}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MAMBA: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": None},
    "mixtral": {**_LLAMA, "num_local_experts": 4},
    "qwen2": _LLAMA,
    "qwen2_moe": {**_LLAMA, **_MOE, "shared_expert_intermediate_size": 32},
    "qwen3": _WITH_HEAD_DIM,
    "qwen3_moe": {**_WITH_HEAD_DIM, **_MOE},
    "gemma": _WITH_HEAD_DIM,
    "gemma2": {**_WITH_HEAD_DIM, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_WITH_HEAD_DIM, "query_pre_attn_scalar": 8},
    "phi": _ALL_HEADS,
    "phi3": _LLAMA,
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": CONTEXT,
    },
    "gpt_neox": {**_LLAMA, "num_key_value_heads": None},
    "gptj": {**_GPT, "rotary_dim": 4},
    "codegen": {**_GPT, "rotary_dim": 4},
    "opt": {**_LLAMA, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT},
    "falcon": {**_LLAMA, "alibi": False, "new_decoder_architecture": False, "multi_query": True},
    "stablelm": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "cohere": _LLAMA,
    "cohere2": _WITH_HEAD_DIM,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "starcoder2": _LLAMA,
    "nemotron": _WITH_HEAD_DIM,
    "persimmon": _ALL_HEADS,
    "glm": {**_WITH_HEAD_DIM},
    "helium": _WITH_HEAD_DIM,
    "gpt_oss": {**_WITH_HEAD_DIM, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "lfm2": {**_LLAMA, "layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": CONTEXT},
    "biogpt": _LLAMA,
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "recurrent_gemma": {
        **_LLAMA,
        "num_key_value_heads": 1,
        "lru_width": 32,
        "block_types": ["recurrent", "attention"],
    },
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": CONTEXT,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "dropout": 0.0,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": {**_T5, "decoder_start_token_id": 0, "n_positions": CONTEXT},
    "mt5": {**_T5, "decoder_start_token_id": 0},
    "bart": _BART,
    "mbart": _BART,
    "pegasus": {**_BART, "decoder_start_token_id": 0},
    "marian": {**_BART, "decoder_start_token_id": 0},
    "m2m_100": _BART,
    "led": {
        **{k: v for k, v in _BART.items() if k != "max_position_embeddings"},
        "max_encoder_position_embeddings": CONTEXT,
        "max_decoder_position_embeddings": CONTEXT,
        "attention_window": 8,
    },
    "blenderbot-small": {**_BART, "decoder_start_token_id": 1},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _LLAMA,
    "roberta": {**_LLAMA, "max_position_embeddings": CONTEXT + 2},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": CONTEXT},
    "electra": {**_LLAMA, "embedding_size": 32},
    "deberta-v2": {**_LLAMA, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "albert": {**_LLAMA, "embedding_size": 32},
    "camembert": {**_LLAMA, "max_position_embeddings": CONTEXT + 2},
    "xlm-roberta": {**_LLAMA, "max_position_embeddings": CONTEXT + 2},
    "mpnet": {**_LLAMA, "max_position_embeddings": CONTEXT + 2},
    "modernbert": _ALL_HEADS,
}
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
IMAGE: dict[str, dict[str, Any]] = {
    "vit": _VIT,
    "deit": {**_VIT, "architectures": ["DeiTForImageClassification"]},
    "swin": {
        "image_size": 16,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 4],
        "window_size": 4,
    },
    "dinov2": _VIT,
    "beit": _VIT,
    "convnext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "image_size": 16, "patch_size": 2},
}
FAMILIES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "decoder": DECODERS,
    "encoder-decoder": SEQ2SEQ,
    "encoder": ENCODERS,
    "image": IMAGE,
}
_AUTO = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    "encoder": transformers.AutoModel,  # as the hub has them: what stands between body and labels is mostly not there
    "image": transformers.AutoModelForImageClassification,
}


def tokenizer(*, ends: bool) -> transformers.PreTrainedTokenizerFast:
    """Pieces of printable ASCII; ``ends`` puts ``<s>`` and ``</s>`` around a text, as encoders want it."""
    core = Tokenizer(pieces.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = [chr(k) for k in range(33, 127)] + ["Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(
        vocab_size=130, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    core.train_from_iterator([" " + word for word in _WORDS.split()] * 2, trainer)
    core.post_processor = (
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
        if ends
        else processors.ByteLevel(trim_offsets=False)
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build(family: str, kind: str, where: Path) -> Path:
    """Write the model folder of one architecture to ``where``/kind."""
    folder = where / kind
    settings: dict[str, Any] = {**FAMILIES[family][kind]}
    if family == "image":
        transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
        settings["num_labels"] = 4
    else:
        words = tokenizer(ends=family == "encoder")
        words.save_pretrained(folder)
        settings |= {"vocab_size": len(words), **_IDS}
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    model = _AUTO[family].from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                fan = int(np.prod(weight.shape[1:]))
                weight.copy_(torch.randn(weight.shape, generator=generator) * 1.5 / fan**0.5)
    model.save_pretrained(folder)
    return folder
