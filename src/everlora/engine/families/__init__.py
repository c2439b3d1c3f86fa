"""Model families behind one contract."""

from everlora.engine.families.base import Batch, Family, Features, Limits, Scoring
from everlora.engine.families.causal import Causal
from everlora.engine.families.classifier import Classifier, ImageClassifier, TextClassifier
from everlora.engine.families.seq2seq import Seq2Seq

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
]
