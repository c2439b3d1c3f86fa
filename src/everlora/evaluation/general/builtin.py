"""Perplexity of held-out text, and a zero-shot probe: small, without any download, the same for every run.

    perplexity = exp(−(1/N) Σ log p(token | passage so far)), over the N tokens of the second halves of all passages
    probe      = percent of questions whose right answer is the most likely of four, log p(answer | question)

An encoder-decoder reads the first half, or the question, in its encoder. Ties share: a model that says the same of
all four answers has 25 %. No end of text is asked for, since when to stop is what tuning changes first. Every question
is a batch of its own, whatever batch size the run answers with. Perplexity is per token of the model's own tokenizer:
compare it with the same model's, not with another's.
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
    """Log p(text | before) of pairs of before and text, in nats, (n,); and the tokens of each text."""
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
    """Perplexity and probe of a model that writes text."""
    was_training = model.training
    model.eval()
    found = [likelihoods(model, family, [pair]) for pair in PASSAGES]
    total, tokens = sum(float(value) for value, _ in found), sum(sizes[0] for _, sizes in found)
    hits = 0.0
    for question, options in QUESTIONS:
        scores, _ = likelihoods(model, family, [(f"Question: {question}\nAnswer:", option) for option in options])
        hits += credit(scores.tolist())
    model.train(was_training)
    return {"perplexity": float(torch.tensor(-total / tokens).exp()), "probe": 100.0 * hits / len(QUESTIONS)}


def credit(scores: Sequence[float]) -> float:
    """1 if the first score is the highest alone, its share if others are as high, else 0."""
    best = max(scores)
    return 1.0 / scores.count(best) if scores[0] == best else 0.0
