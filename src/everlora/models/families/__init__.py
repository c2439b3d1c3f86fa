"""Defines model families behind one contract, `Family`: how a kind of model reads examples, is trained and answers.

decoder             Causal            [prompt, answer] in one sequence, padded on the left
encoder-decoder     Seq2Seq           prompt to the encoder, answer to the decoder
encoder             TextClassifier    a head with one row per label
image-classifier    ImageClassifier   a head with one row per label
"""

from everlora.models.families.base import Batch, Family, Features, Limits, Scoring
from everlora.models.families.causal import Causal
from everlora.models.families.classifier import Classifier, TextClassifier
from everlora.models.families.images import ImageClassifier
from everlora.models.families.seq2seq import Seq2Seq
from everlora.models.families.writer import Writer

__all__ = [
    "Batch",
    "Causal",
    "Classifier",
    "Family",
    "Features",
    "ImageClassifier",
    "Limits",
    "Scoring",
    "Seq2Seq",
    "TextClassifier",
    "Writer",
]
