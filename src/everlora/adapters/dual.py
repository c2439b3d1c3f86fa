"""Two adapters per layer, of low and of high rank, weighed by gates that look at the input of a group of blocks.

Gates are computed where a group of blocks is entered, from the prompt alone: where the answer stands beside it in one
sequence, as in training, what is behind the prompt is left out, and while an answer grows on a cache the gates of the
prompt are kept. So teacher forcing and decoding are one function, and no answer looks ahead.
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

from everlora.adapters.hooked import HookedBackend
from everlora.core.errors import ModelError
from everlora.core.updates import Updates, Weights
from everlora.data.task import Task

SIDES = ("low", "high")
POOLS = ("K", "A", "W")


class Dual(Protocol):
    """What the form carries: `everlora.parts.forms_dual`."""

    low: int
    high: int
    components: int
    blocks: int

    def weigh(self, h: Tensor, mask: Tensor, pools: Mapping[str, Tensor]) -> Tensor: ...

    def grow(self, name: str, old: Tensor | None, width: int, draw: torch.Generator) -> Tensor: ...


@dataclass
class Stack:
    """A row of numbered blocks, and how the present call reaches it.

    Attributes:
        first: only the first position counts: a decoder beside an encoder starts from nothing else.
        mask: real positions of the present call, (b, s); None if all are.
        cached: the call goes on behind a prompt that is cached.
    """

    first: bool
    mask: Tensor | None = None
    cached: bool = False


@dataclass
class Gates:
    """The two gates of one group of blocks, by side.

    Attributes:
        width: of the hidden states.
        frozen: pools of earlier tasks, by side and name, (n, e).
        live: those of the task that is learned, (p, e).
        now: gates of the present batch, by side, (b,).
    """

    width: int
    frozen: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    live: dict[str, nn.ParameterDict] = field(default_factory=dict)
    now: dict[str, Tensor] = field(default_factory=dict)

    def pools(self, side: str) -> dict[str, Tensor]:
        return {k: torch.cat([self.frozen[side][k], self.live[side][k]]) for k in POOLS}


class DualBackend(HookedBackend):
    """Carries `Dual` adapters and their gates."""

    forms = ("dual",)
    file = "dual.safetensors"
    files = (file,)

    @property
    def form(self) -> Dual:
        return cast(Dual, self.adapter)

    def build(self, seed: int, start: Updates | None, tasks: Sequence[Task]) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.pairs: dict[str, nn.ParameterDict] = {}
        self.gates: dict[str, Gates] = {}
        stacks: dict[str, Stack] = {}
        for name, layer in self.layers.items():
            stack, block = place(name)
            if stack not in stacks:
                stacks[stack] = self._stack(stack)
            group = f"gates.{stack}.{block // self.form.blocks}"
            if group not in self.gates:
                self._gate(group, stack, stacks[stack], draw, start, grow=bool(tasks))
            self.pairs[name] = self.add_parameters(name, self._fresh(layer, draw))
            self.add_hook(layer, self._adding(name, self.gates[group]))
        if start is not None:
            if start.keys() != self.extract().keys():
                raise ModelError("what is stored was made for other modules than those adapted now")
            self.set_values({name: start[name] for name in self.layers})

    def _fresh(self, layer: nn.Linear, draw: torch.Generator) -> dict[str, Tensor]:
        """Down-projections N(0, 1/r⁴), up-projections 0."""
        out, into, where = layer.out_features, layer.in_features, layer.weight.device
        made = {}
        for side, r in zip(SIDES, (self.form.low, self.form.high), strict=True):
            made[f"A_{side}"] = (torch.randn(r, into, generator=draw) / r**2).to(where)
            made[f"B_{side}"] = torch.zeros(out, r, device=where)
        return made

    def _stack(self, name: str) -> Stack:
        beside = bool(getattr(self.model.config, "is_encoder_decoder", False)) and "decoder" in name
        stack, parts = Stack(first=beside), name.split(".")[:-1]
        for k in range(len(parts) + 1):
            above = self.model.get_submodule(".".join(parts[:k]))
            self.add_hook(above, _listening(stack, inspect.signature(above.forward)), before=True)
        return stack

    def _gate(
        self, group: str, stack: str, call: Stack, draw: torch.Generator, start: Updates | None, *, grow: bool
    ) -> None:
        config = self.model.config
        width = int(getattr(config, "d_model", None) or config.hidden_size)
        gates = self.gates[group] = Gates(width)
        where = next(self.model.parameters()).device
        p = self.form.components
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
                    frozen[pool], live[pool] = old[:-p].to(where), old[-p:].to(where)
            gates.frozen[side], gates.live[side] = frozen, self.add_parameters(name, live)
        number = int(group.rsplit(".", 1)[-1]) * self.form.blocks
        self.add_hook(self.model.get_submodule(f"{stack}.{number}"), self._entering(gates, call), before=True)

    def _entering(self, gates: Gates, call: Stack) -> Any:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if call.cached and gates.now:
                return
            h = args[0] if args else kwargs["hidden_states"]
            mask = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
            prompt = self.base.family.prompt_mask
            if call.first:
                mask[:, 1:] = False
            elif call.mask is not None and call.mask.shape == mask.shape:
                mask = call.mask.bool()
                if prompt is not None and prompt.shape == mask.shape:
                    mask = mask & prompt
            gates.now = {side: self.form.weigh(h, mask, gates.pools(side)) for side in SIDES}

        return enter

    def _adding(self, name: str, gates: Gates) -> Any:
        p = float(self.lora.get("lora_dropout", 0.0))

        def add(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            pair = self.pairs[name]
            x = dropout(args[0].to(pair["A_low"].dtype), p, layer.training)
            whole = torch.zeros_like(out, dtype=x.dtype)
            for side in SIDES:
                gate = gates.now[side].to(x.dtype)
                gate = gate.repeat_interleave(len(x) // len(gate), 0).view(-1, *[1] * (x.ndim - 1))
                whole = whole + gate * linear(linear(x, pair[f"A_{side}"]), pair[f"B_{side}"])
            return (out + whole).to(out.dtype)

        return add

    def trainable(self) -> dict[str, Weights]:
        pairs = {name: Weights(dict(pair.items())) for name, pair in self.pairs.items()}
        pools = {f"{n}.{s}": Weights(dict(g.live[s].items())) for n, g in self.gates.items() for s in SIDES}
        return {**pairs, **pools}

    def extract(self) -> dict[str, Any]:
        """A copy of what is learned: the pools with the components of earlier tasks, oldest first."""
        whole = {f"{n}.{s}": Weights(g.pools(s)) for n, g in self.gates.items() for s in SIDES}
        return {n: s.map(lambda p: p.detach().cpu().float().clone()) for n, s in {**self.trainable(), **whole}.items()}


def place(name: str) -> tuple[str, int]:
    """Where a module stands: the row of blocks, and the number of its block in it.

    Raises:
        ModelError: it stands in no numbered block.
    """
    found = re.match(r"(.+?)\.(\d+)\.", name)
    if found is None:
        raise ModelError(f"target {name!r} stands in no numbered block, which gates need; adapt layers of blocks only")
    return found[1], int(found[2])


def _listening(stack: Stack, signature: inspect.Signature) -> Any:
    """Note, where a module above the blocks is called, what is padding and whether a cache is gone on with."""

    def listen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = signature.bind_partial(*args, **kwargs).arguments
        given = {**given.get("kwargs", {}), **given}
        if "attention_mask" in signature.parameters:
            mask = given.get("attention_mask")
            if mask is None or mask.ndim == 2:  # inner modules may get it broadcast to four dimensions
                stack.mask = mask
        if "past_key_values" in signature.parameters:
            cache = given.get("past_key_values")
            stack.cached = cache is not None and int(cache.get_seq_length()) > 0

    return listen
