"""Model families behind one contract."""

from everlora.models.families.base import Batch, Family, Features, Limits, Scoring
from everlora.models.families.causal import Causal
from everlora.models.families.classifier import Classifier, ImageClassifier, TextClassifier
from everlora.models.families.seq2seq import Seq2Seq

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
