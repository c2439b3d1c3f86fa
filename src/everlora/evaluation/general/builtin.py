"""Measures perplexity of held-out text, and a small zero-shot probe, without any download.

    perplexity = exp(−(1/N) Σ log p(token | passage so far)), over the N tokens of the second halves of all passages
    probe      = percent of questions whose right answer is the most likely of four, log p(answer | question)

An encoder-decoder reads the first half, or the question, in its encoder. Ties share: a model that gives all four
answers the same probability has 25 %. No end of text is scored, since when to stop is what tuning changes first. Every
question is a batch of its own, whatever the batch size of the run. Perplexity is per token of the model's own
tokenizer: compare it with the same model's, not with another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from everlora.evaluation.general.passages import PASSAGES
from everlora.evaluation.general.questions import QUESTIONS
from everlora.models.families import Family
from everlora.models.families.base import IGNORE


@torch.no_grad()
def likelihoods(model: nn.Module, family: Family, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, list[int]]:
    """Return log p(text | before) of pairs of before and text.

    Returns:
        The log-probabilities (n,) in nats, and the number of tokens of each text.
    """
    rows = []
    for before, text in pairs:
        row = family.continuation(before, text)
        assert row is not None
        rows.append(row)
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in family.collate(rows).items()}
    logits, targets = family.logits(model, batch)
    each = -cross_entropy(logits.float(), targets, reduction="none")
    sizes = [sum(target != IGNORE for target in row["labels"]) for row in rows]
    parts = torch.split(each.double(), sizes)
    return torch.stack([part.sum() for part in parts]).cpu(), sizes


def measure(model: nn.Module, family: Family) -> dict[str, float]:
    """Measure perplexity, and the probe in percent, of a model that writes text.

    >>> from everlora.models.loading import load
    >>> base = load("tiny-llama")
    >>> sorted(measure(base.model, base.family))
    ['perplexity', 'probe']
    """
    was_training = model.training
    model.eval()
    # One by one: what a batch changes in the last bits would be taken for a change of ability.
    found = [likelihoods(model, family, [pair]) for pair in PASSAGES]
    total, tokens = sum(float(value) for value, _ in found), sum(sizes[0] for _, sizes in found)
    hits = 0.0
    for question, options in QUESTIONS:
        scores, _ = likelihoods(model, family, [(f"Question: {question}\nAnswer:", option) for option in options])
        hits += credit(scores.tolist())
    model.train(was_training)
    return {"perplexity": float(torch.tensor(-total / tokens).exp()), "probe": 100.0 * hits / len(QUESTIONS)}


def credit(scores: Sequence[float]) -> float:
    """Return 1 if the first score is the only highest, its share if others are as high, else 0.

    >>> credit([2.0, 1.0]), credit([1.0, 1.0, 0.0]), credit([0.0, 1.0])
    (1.0, 0.5, 0.0)
    """
    # A model that gives all options one score knows none of them, and gets what guessing would.
    best = max(scores)
    return 1.0 / scores.count(best) if scores[0] == best else 0.0
