"""Trains the form ``dual`` (DATA): an adapter of low and one of high rank per layer, weighted by gates.

Gates are computed at the entry of a group of blocks, from the prompt alone: in training, where the answer follows it
in the same sequence, positions behind the prompt are masked, and in cached decoding the gates of the prompt are
reused. So teacher forcing and decoding compute one function, and no position depends on later ones.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D

from everlora.adapters.base import ForwardKeywords
from everlora.adapters.hooked import HookedBackend
from everlora.core.errors import ModelError
from everlora.core.updates import ModuleUpdate, Updates, Weights
from everlora.data.task import Task
from everlora.models.layers import shape_of

SIDES = ("low", "high")
POOLS = ("K", "A", "W")


class DualForm(Protocol):
    """Declares what the backend needs of the form, see `everlora.parts.forms_dual`."""

    low: int
    high: int
    components: int
    blocks: int

    def weigh(self, h: Tensor, mask: Tensor, pools: Mapping[str, Tensor]) -> Tensor:
        """Return the gates (b,) of hidden states (b, s, e), given the positions of the prompt and the pools."""
        ...

    def grow(self, name: str, old: Tensor | None, width: int, draw: torch.Generator) -> Tensor:
        """Return the new components (p, e) of a pool whose earlier ones are ``old`` (n, e)."""
        ...


@dataclass
class Stack:
    """Holds a stack of numbered blocks (``model.layers``, say), and what the present forward pass gave it.

    Attributes:
        first: whether only the first position counts, as in the decoder of an encoder-decoder, whose prompt it is.
        mask: positions that are no padding, (b, s); None if all are.
        cached: whether the pass continues behind cached positions.
    """

    first: bool
    mask: Tensor | None = None
    cached: bool = False


@dataclass
class Gates:
    """Holds the two gates of one group of blocks, ``low`` and ``high``.

    Attributes:
        width: width e of the hidden states.
        frozen: pools of earlier tasks by side and name, (n, e).
        live: trainable pools of the present task, (p, e).
        now: gates of the present batch by side, (b,).
    """

    width: int
    frozen: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    live: dict[str, nn.ParameterDict] = field(default_factory=dict)
    now: dict[str, Tensor] = field(default_factory=dict)

    def pools(self, side: str) -> dict[str, Tensor]:
        """Return the pools of one side, earlier components first, (n + p, e)."""
        return {k: torch.cat([self.frozen[side][k], self.live[side][k]]) for k in POOLS}


class DualBackend(HookedBackend):
    """Trains pairs of adapters, whose shares of the output are set by gates."""

    forms = ("dual",)
    file = "dual.safetensors"
    files = (file,)

    @property
    def form(self) -> DualForm:
        """Return the settings and the mathematics of the gates."""
        return cast(DualForm, self.adapter)

    def build(self, seed: int, start: Updates | None, tasks: Sequence[Task]) -> None:
        self.check_rank(self.form.low + self.form.high, "the ranks low and high")
        draw = torch.Generator().manual_seed(seed)
        self.base.family.whole_prompts = True
        self.pairs: dict[str, nn.ParameterDict] = {}
        self.gates: dict[str, Gates] = {}
        stacks: dict[str, Stack] = {}
        for name, layer in self.layers.items():
            stack, block = stack_and_block(name)
            if stack not in stacks:
                stacks[stack] = self._stack(stack)
            group = f"gates.{stack}.{block // self.form.blocks}"
            # The gates of a group before its pairs: in which order numbers are drawn is part of what a seed means.
            if group not in self.gates:
                self._gate(group, stack, stacks[stack], draw, start, grow=bool(tasks))
            self.pairs[name] = self.add_parameters(name, self._fresh(layer, draw))
            self.add_hook(layer, self._add_pairs(name, self.gates[group]))
        if start is not None:
            if start.keys() != self.extract().keys():
                raise ModelError("what is stored was made for other modules than those adapted now")
            self.set_values({name: start[name] for name in self.layers})

    def _fresh(self, layer: nn.Linear | Conv1D, draw: torch.Generator) -> dict[str, Tensor]:
        """Return fresh pairs of one layer: A from N(0, 1/r⁴), B = 0."""
        (out, into), where = shape_of(layer), layer.weight.device
        tensors = {}
        for side, r in zip(SIDES, (self.form.low, self.form.high), strict=True):
            tensors[f"A_{side}"] = (torch.randn(r, into, generator=draw) / r**2).to(where)
            tensors[f"B_{side}"] = torch.zeros(out, r, device=where)
        return tensors

    def _stack(self, name: str) -> Stack:
        """Register hooks above a stack of blocks, where alone the attention mask and the cache arrive."""
        decoder = bool(getattr(self.model.config, "is_encoder_decoder", False)) and "decoder" in name
        stack, parts = Stack(first=decoder), name.split(".")[:-1]
        for k in range(len(parts) + 1):
            above = self.model.get_submodule(".".join(parts[:k]))
            self.add_hook(above, _read_arguments(stack, inspect.signature(above.forward)), before=True)
        return stack

    def _gate(
        self, group: str, stack: str, call: Stack, draw: torch.Generator, start: Updates | None, *, grow: bool
    ) -> None:
        """Create the pools of one group of blocks, and the hook that computes its gates at its first block.

        Args:
            group: name of the group, ``gates.<stack>.<number>``.
            stack: name of the stack of blocks.
            call: what is known of the present forward pass through the stack.
            draw: source of the new components.
            start: an update to start from; None for fresh pools.
            grow: whether a task is about to be learned, which adds components of its own.
        """
        config = self.model.config
        width = int(getattr(config, "d_model", None) or config.hidden_size)
        gates = self.gates[group] = Gates(width)
        where = next(self.model.parameters()).device
        p = self.form.components
        self.check_fits(p * width * len(SIDES) * len(POOLS), f"gates of {p} components", "the number of components")
        for side in SIDES:
            name, frozen, live = f"{group}.{side}", {}, {}
            known = start.get(name) if start else None
            if start and known is None:
                raise ModelError("what is stored was made for other modules than those adapted now")
            for pool in POOLS:
                old = known.tensors[pool] if known else None
                if known is None or grow:
                    live[pool] = self.form.grow(pool, old, width, draw).to(where)
                    frozen[pool] = torch.empty(0, width, device=where) if old is None else old.to(where)
                else:
                    assert old is not None
                    # Nothing is about to be learned: the newest components are those of the last task, trained or not.
                    frozen[pool], live[pool] = old[:-p].to(where), old[-p:].to(where)
            gates.frozen[side], gates.live[side] = frozen, self.add_parameters(name, live)
        # At the entry of the group's first block, so that all its layers read one gate.
        number = int(group.rsplit(".", 1)[-1]) * self.form.blocks
        self.add_hook(self.model.get_submodule(f"{stack}.{number}"), self._compute_gates(gates, call), before=True)

    def _compute_gates(self, gates: Gates, call: Stack) -> Any:
        """Return the hook that computes the gates of a batch from what enters a group of blocks."""

        def compute(_: nn.Module, args: tuple[Any, ...], kwargs: ForwardKeywords) -> None:
            if call.cached and gates.now:
                return  # the positions of the prompt are in the cache, and its gates are those of the whole answer
            h = args[0] if args else kwargs["hidden_states"]
            mask = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
            prompt = self.base.family.prompt_mask
            if call.first:
                # Later positions are the answer's own tokens, which a model that writes does not know yet.
                mask[:, 1:] = False
            elif call.mask is not None and call.mask.shape == mask.shape:
                mask = call.mask.bool()
                if prompt is not None and prompt.shape == mask.shape:
                    mask = mask & prompt
            gates.now = {side: self.form.weigh(h, mask, gates.pools(side)) for side in SIDES}

        return compute

    def _add_pairs(self, name: str, gates: Gates) -> Any:
        """Return the forward hook that adds both gated adapters to the output of one layer."""
        p = float(self.lora.get("lora_dropout", 0.0))

        def add(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            pair = self.pairs[name]
            x = dropout(args[0].to(pair["A_low"].dtype), p, layer.training)
            update = torch.zeros_like(out, dtype=x.dtype)
            for side in SIDES:
                gate = gates.now[side].to(x.dtype)
                # Scoring labels behind a cached prompt repeats each row for which a gate was computed.
                gate = gate.repeat_interleave(len(x) // len(gate), 0).view(-1, *[1] * (x.ndim - 1))
                update = update + gate * linear(linear(x, pair[f"A_{side}"]), pair[f"B_{side}"])
            return (out + update).to(out.dtype)

        return add

    def trainable(self) -> dict[str, Weights]:
        pairs = {name: Weights(dict(pair.items())) for name, pair in self.pairs.items()}
        pools = {f"{n}.{s}": Weights(dict(g.live[s].items())) for n, g in self.gates.items() for s in SIDES}
        return {**pairs, **pools}

    def extract(self) -> dict[str, ModuleUpdate]:
        """Return a copy of the pairs, and of the pools with the components of all tasks, oldest first."""
        pools = {f"{n}.{s}": Weights(g.pools(s)) for n, g in self.gates.items() for s in SIDES}
        return {n: s.map(lambda p: p.detach().cpu().float().clone()) for n, s in {**self.trainable(), **pools}.items()}


def stack_and_block(name: str) -> tuple[str, int]:
    """Return the stack of blocks that a module belongs to, and the number of its block there.

    >>> stack_and_block("model.layers.11.self_attn.q_proj")
    ('model.layers', 11)

    Raises:
        ModelError: the module is in no numbered block.
    """
    found = re.match(r"(.+?)\.(\d+)\.", name)
    if found is None:
        raise ModelError(f"target {name!r} stands in no numbered block, which gates need; adapt layers of blocks only")
    return found[1], int(found[2])


def _read_arguments(stack: Stack, signature: inspect.Signature) -> Any:
    """Return the hook that reads mask and cache from the arguments of a module above the blocks."""

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: ForwardKeywords) -> None:
        given = signature.bind_partial(*args, **kwargs).arguments
        given = {**given.get("kwargs", {}), **given}
        if "attention_mask" in signature.parameters:
            mask = given.get("attention_mask")
            if mask is None or mask.ndim == 2:  # inner modules may get it broadcast to four dimensions
                stack.mask = mask
        if "past_key_values" in signature.parameters:
            cache = given.get("past_key_values")
            stack.cached = cache is not None and int(cache.get_seq_length()) > 0

    return read
