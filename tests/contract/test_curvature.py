"""The measured Kronecker factors against gradients of single rows that are held as whole matrices."""

from __future__ import annotations

import pytest
import torch

from everlora import load
from everlora.data.task import Example, Task
from everlora.models.families import Family
from everlora.testing import tiny_runs
from everlora.training.curvature import curvature
from everlora.training.evidence_rows import to_batch

TASK = Task(
    name="mood",
    instruction="How is it?",
    labels=("good", "bad"),
    train=(
        Example("a fine day", "good"),
        Example("rain again, and no umbrella at hand", "bad"),
        Example("sun", "good"),
    ),
    test=(Example("a day", "good"),),
)
PICTURES = tiny_runs.image_task("mood", ("good", "bad"), seed=0, train=3)


def base_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Return the query projections, and what an encoder-decoder, BERT or ViT calls so."""
    ends = ("q_proj", "query", "SelfAttention.q", "EncDecAttention.q")
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.endswith(ends)}


def by_rows(
    model: torch.nn.Module, family: Family, task: Task, drawn: list[torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """∂L/∂W of every row by autograd, for the answers that were drawn."""
    layers = base_layers(model)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    for row, targets in zip(task.train, drawn, strict=True):
        model.zero_grad()
        logits, _ = family.logits(model, to_batch(model, family, [(row, task)]))
        torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").backward()
        for name, layer in layers.items():
            found[name].append(layer.weight.grad.clone())
    for layer in layers.values():
        layer.weight.requires_grad_(False)
    return found


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5", "tiny-bert", "tiny-vit"])
def test_both_factors_are_those_of_the_rows_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, task = load(name), PICTURES if name == "tiny-vit" else TASK
    base.family.prepare(base.model, [task], torch.Generator().manual_seed(0))
    rows = [(row, task) for row in task.train]
    drawn: list[torch.Tensor] = []
    answers = [base.family.logits(base.model, to_batch(base.model, base.family, [row])) for row in rows]
    sizes, draw = [targets.numel() for _, targets in answers], torch.multinomial
    predicted = torch.cat([logits.detach() for logits, _ in answers]).exp()
    predicted = predicted / predicted.sum(-1, keepdim=True)

    def note(probabilities: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
        assert n == 1, "one answer at every place"
        torch.testing.assert_close(probabilities, predicted, rtol=1e-4, atol=1e-6)
        found = draw(probabilities, n, generator=generator)
        drawn.extend(found[:, 0].split(sizes))
        return found

    monkeypatch.setattr(torch, "multinomial", note)
    found = curvature(base.model, base.family, base_layers(base.model), rows, torch.Generator().manual_seed(0))
    for layer, gradients in by_rows(base.model, base.family, task, drawn).items():
        left = torch.stack([G @ G.mT for G in gradients]).mean(0)
        right = torch.stack([G.mT @ G for G in gradients]).mean(0)
        torch.testing.assert_close(found[layer].left, left, rtol=1e-3, atol=1e-7 + 1e-4 * float(left.abs().max()))
        torch.testing.assert_close(found[layer].right, right, rtol=1e-3, atol=1e-7 + 1e-4 * float(right.abs().max()))


def test_answers_are_drawn_from_the_model_and_the_model_stays_as_it_was() -> None:
    base = load("tiny-bert")
    base.family.prepare(base.model, [TASK], torch.Generator().manual_seed(0))
    base.model.train()
    rows, layers = [(row, TASK) for row in TASK.train], base_layers(base.model)
    one, same, other = (
        curvature(base.model, base.family, layers, rows, torch.Generator().manual_seed(seed)) for seed in (0, 0, 3)
    )
    name = next(iter(layers))
    assert torch.equal(one[name].left, same[name].left)
    assert not torch.equal(one[name].left, other[name].left)
    assert base.model.training
    assert all(p.grad is None for p in base.model.parameters())
