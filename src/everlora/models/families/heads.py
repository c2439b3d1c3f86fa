"""Unwraps models, and finds their last layer and what stands before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel


def unwrap_model(model: nn.Module) -> Any:
    """Return the transformers model inside wrappers (DDP, PEFT), adapters included."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def find_head(model: PreTrainedModel) -> str | None:
    """Return the name of the layer with one row per label: the last linear one outside a model's body; None without.

    What stands before it (a pooler, a dense layer of RoBERTa's ``classifier``) belongs to the model.

    >>> from everlora import load
    >>> find_head(load("tiny-bert").model), find_head(load("tiny-llama").model)
    ('classifier', None)
    """
    body, rows = f"{model.base_model_prefix}.", model.config.num_labels
    outside = {name: layer for name, layer in model.named_modules() if not name.startswith(body)}
    linear = [n for n, layer in outside.items() if isinstance(layer, nn.Linear) and layer.out_features == rows]
    return linear[-1] if linear else None


def modules_of_head(model: nn.Module, head: str, fresh: Iterable[str]) -> tuple[str, ...]:
    """Return the modules without which a trained head answers otherwise, so that they are written with it.

    They are the head with the layers that stand in one module with it, and those that the checkpoint has no weights
    for. None lies inside another. peft finds a module by the end of its name, so that what ends like one (DistilBERT's
    ``pre_classifier``) is among them.

    Args:
        model: the model.
        head: the name of its head.
        fresh: names of tensors that the checkpoint has no weights for.
    """
    own = head.partition(".")[0]
    owners = {name.rpartition(".")[0] for name in fresh}
    found = [n for n, _ in model.named_modules() if n in owners or n.endswith(own)]
    return tuple(name for name in found if not any(name.startswith(f"{other}.") for other in found))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block, and each of its modules back into its own mode behind it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def select_positions(layer: nn.Module, where: Tensor) -> Iterator[None]:
    """Let ``layer`` compute only the positions ``where`` (b, s) is true, for as long as the block runs.

    Logits over a vocabulary of 50 000 are the largest tensor of a step, and few positions have a loss. Selecting these
    gives the layer a two-dimensional input (n, h): half the cost, and it avoids the copy of the weight per sample that
    a sliced three-dimensional input costs in bf16.

    >>> import torch
    >>> layer = nn.Linear(4, 3)
    >>> with select_positions(layer, torch.tensor([[True, False], [True, True]])):
    ...     layer(torch.zeros(2, 2, 4)).shape
    torch.Size([3, 3])
    """
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0][where], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def contiguous_head(model: nn.Module) -> Iterator[None]:
    """Give a model's head its input in one piece of memory, for as long as the block runs.

    Where few positions of a batch are kept, the head is given a slice, for which torch copies the whole bf16 matrix
    once for each row.
    """
    head = unwrap_model(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def neutral_generation(model: nn.Module) -> Iterator[Any]:
    """Give the bare model without generation settings of its own, for as long as the block runs.

    `generate` fills what a call leaves open from the model's ``generation_config.json``: beams, penalties, bans and
    minimum lengths of a checkpoint would change answers that are recorded as greedy.

    >>> from everlora import load
    >>> model = load("tiny-llama").model
    >>> model.generation_config.num_beams = 4
    >>> with neutral_generation(model) as bare:
    ...     print(bare.generation_config.num_beams)
    None
    >>> model.generation_config.num_beams
    4
    """
    bare = unwrap_model(model)
    before, bare.generation_config = bare.generation_config, GenerationConfig()
    try:
        yield bare
    finally:
        bare.generation_config = before
