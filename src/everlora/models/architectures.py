"""Tells by a model's configuration which family it belongs to, and which class of transformers loads it."""

from __future__ import annotations

from typing import Any, Literal

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from everlora.core.errors import ModelError
from everlora.models.families import Causal, Family, ImageClassifier, Seq2Seq, TextClassifier

FamilyName = Literal["decoder", "encoder-decoder", "encoder", "image-classifier"]

FAMILIES: dict[str, tuple[Any, type[Family]]] = {
    "decoder": (AutoModelForCausalLM, Causal),
    "encoder-decoder": (AutoModelForSeq2SeqLM, Seq2Seq),
    "encoder": (AutoModelForSequenceClassification, TextClassifier),
    "image-classifier": (AutoModelForImageClassification, ImageClassifier),
}
"""By family, the class of transformers that loads its models, and how they are read."""


def family_of(config: PretrainedConfig) -> FamilyName:
    """Return the family that a model's configuration belongs to.

    >>> from transformers import T5Config
    >>> family_of(T5Config())
    'encoder-decoder'

    Raises:
        ModelError: no family fits.
    """
    kind, heads = config.model_type, config.architectures or []
    reads_both_ways = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder:
        return "encoder-decoder"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        not reads_both_ways or any("CausalLM" in head or "LMHead" in head for head in heads)
    ):
        return "decoder"
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and reads_both_ways:
        return "encoder"
    if kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return "image-classifier"
    raise ModelError(f"models of type {kind!r} are not supported; known families: {', '.join(FAMILIES)}")
