"""Scores the labels of a task as the branches of one tree that stands behind the prompt.

Each token of the tree sees the prompt and its own branch. What the prompts of a batch begin with is read once.

    prompt of all rows      rest of each row       labels as a tree
    [p1 p2 p3 ...]    ->    [.. r1 r2 r3]     ->   [good, very, very good]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from everlora.models.families.heads import contiguous_head, select_positions, unwrap_model
from everlora.models.families.packed import Packing, can_pack, packed, read_prefix, repeated, shared_length


@dataclass(frozen=True)
class LabelTree:
    """Holds the answers of a task as a tree of tokens, in which answers that begin alike share their nodes.

    The last token of an answer is scored and never read, so that it is no node.

    >>> tree = LabelTree.of([[7, 9], [7, 8, 9], [5, 9]])
    >>> tree.tokens, tree.parents
    ((7, 8, 5), (-1, 0, -1))
    >>> tree.steps[1]  # the second answer: token 7 behind the prompt, 8 behind node 0, 9 behind node 1
    ((-1, 7), (0, 8), (1, 9))

    Attributes:
        tokens: of each node; parents come before their children.
        parents: of each node, -1 for the prompt.
        steps: of each answer its tokens, each with the node that it follows.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> LabelTree:
        """Build the tree of answers in tokens."""
        nodes: dict[tuple[int, ...], int] = {(): -1}
        parents = list[int]()
        for answer in answers:
            for end in range(1, len(answer)):
                branch = tuple(answer[:end])
                if branch not in nodes:
                    nodes[branch] = len(parents)
                    parents.append(nodes[branch[:-1]])
        tokens = tuple(branch[-1] for branch in nodes if branch)
        steps = tuple(tuple((nodes[tuple(a[:k])], a[k]) for k in range(len(a))) for a in answers)
        return cls(tokens, tuple(parents), steps)

    def depths(self) -> list[int]:
        """Return how many tokens stand between the prompt and each node, itself included."""
        found = list[int]()
        for parent in self.parents:
            found.append(1 if parent < 0 else found[parent] + 1)
        return found

    def sees(self) -> Tensor:
        """Return which nodes each node sees: itself and those of its branch before it, (nodes, nodes)."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def score_labels(
    model: nn.Module, prompts: Sequence[Sequence[int]], tree: LabelTree, pad: int, run: Callable[..., Any]
) -> Tensor:
    """Return the log-probability of each answer of a tree behind each prompt, (b, answers), in fp32.

    What the prompts begin with is read once, and each answer's nodes once for each prompt; on a CPU without padding.

    Args:
        model: adapted or not.
        prompts: in tokens.
        tree: of the answers.
        pad: token that pads.
        run: runs the model on packed rows, or what of it is not frozen; see `Family.run`.
    """
    if can_pack(model) and next(model.parameters()).device.type == "cpu":
        return _packed_scores(model, prompts, tree, run)
    device, nodes = next(model.parameters()).device, len(tree.tokens)
    shared = shared_length(prompts)
    rests = [list(prompt[shared:]) for prompt in prompts]
    width = max(map(len, rests))
    # Padded on the left, so that every prompt ends where the tree begins.
    fed = torch.tensor([[pad] * (width - len(rest)) + rest + list(tree.tokens) for rest in rests], device=device)
    real = torch.tensor([[0] * (width - len(rest)) + [1] * len(rest) for rest in rests], device=device)
    place = torch.cat(
        [
            shared + (real.cumsum(-1) - 1).clamp_min(0),
            torch.tensor([len(p) for p in prompts], device=device)[:, None]
            + torch.tensor([depth - 1 for depth in tree.depths()], dtype=torch.long, device=device),
        ],
        dim=1,
    )
    visible = torch.ones(len(prompts), width + nodes, shared + width + nodes, dtype=torch.bool, device=device)
    visible[:, :width, shared : shared + width] = torch.ones(width, width, device=device).tril().bool()
    visible[:, :width, shared + width :] = False
    visible[:, :, shared : shared + width] &= real.bool()[:, None, :]
    visible[:, width:, shared + width :] = tree.sees().to(device)
    bare: Any = unwrap_model(model)
    mask = torch.zeros(visible.shape, dtype=bare.dtype, device=device)
    mask.masked_fill_(~visible, torch.finfo(bare.dtype).min)
    with contiguous_head(model):
        logits = model(
            input_ids=fed,
            attention_mask=mask[:, None],
            position_ids=place,
            past_key_values=repeated(read_prefix(model, prompts[0][:shared]), len(prompts)),
            use_cache=shared > 0,
            logits_to_keep=nodes + 1,
        ).logits
    return torch.stack([_of_row(row, tree) for row in logits])


def _packed_scores(
    model: nn.Module, prompts: Sequence[Sequence[int]], tree: LabelTree, run: Callable[..., Any]
) -> Tensor:
    """Return what `score_labels` does, from one sequence without padding: of each prompt its rest and its tree."""
    shared, nodes = shared_length(prompts), len(tree.tokens)
    rests = [prompt[shared:] for prompt in prompts]
    packing = Packing.of([len(rest) + nodes for rest in rests], shared, ends=tree.sees())
    ids, places, counted = list(prompts[0][:shared]), list(range(shared)), [False] * shared
    for prompt, rest in zip(prompts, rests, strict=True):
        ids += [*rest, *tree.tokens]
        places += [*range(shared, len(prompt)), *(len(prompt) + depth - 1 for depth in tree.depths())]
        counted += [False] * (len(rest) - 1) + [True] * (1 + nodes)
    head = unwrap_model(model).get_output_embeddings()
    with packed(model, packing), select_positions(head, torch.tensor([counted])):
        inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([places])}
        logits = run(model, inputs, use_cache=False).logits
    return torch.stack([_of_row(row, tree) for row in logits.split(1 + nodes)])


def _of_row(logits: Tensor, tree: LabelTree) -> Tensor:
    """Return the log-probability of each answer from the logits of a prompt's end and of the nodes, (answers,).

    One prompt at a time: a vocabulary of 50 000 in fp32 for all of them would be the largest tensor there is.
    """
    logits = logits.float()  # (1 + nodes, v)
    whole = logits.logsumexp(-1)
    where = [[node + 1 for node, _ in steps] for steps in tree.steps]
    tokens = [[token for _, token in steps] for steps in tree.steps]
    return torch.stack([(logits[at, to] - whole[at]).sum() for at, to in zip(where, tokens, strict=True)])
