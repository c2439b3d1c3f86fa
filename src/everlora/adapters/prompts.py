"""Defines the base class of soft prompts, which hooks on the model's modules insert in the stock forward pass.

The hooks adjust what a longer sequence needs: embeddings, attention mask and positions (counted by the mask, so that
padding changes nothing), in a cached step the mask alone; and in an encoder-decoder the mask of cross-attention. The
outputs at the prompts' positions are dropped, so that labels stay aligned. PEFT's prompt tuning is not used: it puts
prompts in front of padding on the left and drops position ids, so that an answer would depend on its neighbours in the
batch.

    decoder             [pad …, P, text]     or behind the question: [pad …, question, P, answer]
    encoder-decoder     encoder [P, text, pad …]     or [text, P, pad …]
    encoder             [CLS, P, text, pad …]: the head reads what it always read
    image-classifier    [CLS, P, patches], behind the embeddings and their positions
"""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from everlora.adapters.base import AdapterBackend, ForwardKeywords, LoraInput, PastAs
from everlora.adapters.splice import insert_positions, remove_positions, text_start
from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError, ModelError
from everlora.core.updates import ModuleUpdate, Updates, Weights
from everlora.data.task import Task
from everlora.models.families.base import positions
from everlora.models.loading import Loaded
from everlora.runtime.seeds import seeded

PLACE = "prompts"
"""Key of the trained tensors, and name of the submodule that holds them while attached."""


class PromptParameters(nn.Module):
    """Holds tensors as parameters; as a submodule of the model the Trainer finds them."""

    def __init__(self, **values: Tensor) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value))


class PromptBackend(AdapterBackend):
    """Is the base of forms whose parameters are soft prompts; a subclass says which prompts a text gets.

    Attributes:
        settings: the form and its settings.
    """

    files = ("prompts.json", "prompts.safetensors")
    behind: ClassVar[bool] = False
    """Whether prompts are put behind the text instead of in front of it."""

    def __init__(
        self, base: Loaded, lora: LoraInput, past_as: PastAs = "auto", adapter: Adapter | None = None
    ) -> None:
        super().__init__(base, lora, past_as, adapter)
        self.settings: Any = self.adapter
        self._hooks: list[Any] = []
        self._at: Tensor | None = None  # first position of the prompts in the latest forward pass, (b,)
        # Texts are cut to what the context leaves, so the prompts' room is set aside before any text is encoded.
        base.family.reserve(self.tokens())

    @abstractmethod
    def tokens(self) -> int:
        """Return how many vectors are added to an example's sequence."""

    def trained_vectors(self) -> int:
        """Return how many vectors are trained; more than `tokens` where texts choose among them."""
        return self.tokens()

    @abstractmethod
    def initialise(self, start: Updates | None, tasks: Sequence[Task]) -> nn.Module:
        """Return a module with the parameters, at their initial values or in the shapes of ``start``."""

    @abstractmethod
    def prompts(self, embeds: Tensor, real: Tensor) -> Tensor:
        """Return the prompts (b, m, e) of embedded texts (b, s, e), whose positions are ``real`` (b, s)."""

    @property
    def holder(self) -> Any:
        """Return the module with the trained parameters."""
        return self.base.model.get_submodule(PLACE)

    def attach(self, *, seed: int, start: Updates | None = None, tasks: Sequence[Task] = ()) -> nn.Module:
        if self.model is not None:
            raise RuntimeError("a prompt is attached already; detach it first")
        model: Any = self.base.model
        vectors, words = self.trained_vectors(), model.get_input_embeddings()
        width = words.weight.shape[-1] if isinstance(words, nn.Embedding) else int(model.config.hidden_size)
        self.check_fits(vectors * width, f"prompts of {vectors} vectors", "what makes them so many")
        # Embeddings are drawn from torch's global generator, seeded here so that no other draw shifts them.
        with seeded(seed):
            holder = self.initialise(start, tasks)
        model.add_module(PLACE, holder.to(model.device))
        self.train_head()
        self._hook(model)
        self.model = model
        if start is not None:
            self.set_values(start)
        return self.base.model

    def trainable(self) -> dict[str, ModuleUpdate]:
        return {PLACE: Weights(dict(self.holder.named_parameters()))}

    def set_values(self, start: Updates) -> None:
        own, given = self.trainable()[PLACE].tensors, start[PLACE].tensors if PLACE in start else {}
        if {k: t.shape for k, t in own.items()} != {k: t.shape for k, t in given.items()}:
            raise ModelError("the stored prompts are of another form or size than those of this method")
        with torch.no_grad():
            for name, value in given.items():
                own[name].copy_(value)

    def save(self, folder: Path) -> None:
        tensors = {f"{PLACE}.{k}": t for k, t in self.extract()[PLACE].tensors.items()} | self.copy_head()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / self.files[1])
        facts = {"form": self.adapter.form, "base_model": self.base.name, "behind": self.behind}
        facts |= {k: v for k, v in vars(self.settings).items() if k not in ("form", "unit", "fixed")}
        (folder / self.files[0]).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> tuple[dict[str, ModuleUpdate], dict[str, Tensor]]:
        try:
            tensors = load_file(folder / self.files[1])
        except (OSError, SafetensorError) as error:
            raise FolderError(f"the prompts in {folder} cannot be read: {error}") from error
        own = {k.removeprefix(f"{PLACE}."): t for k, t in tensors.items() if k.startswith(f"{PLACE}.")}
        if not own:
            raise FolderError(f"{folder / self.files[1]} holds no prompts")
        return {PLACE: Weights(own)}, {k: t for k, t in tensors.items() if not k.startswith(f"{PLACE}.")}

    def detach(self) -> None:
        if self.model is None:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        delattr(self.base.model, PLACE)
        self.base.model.requires_grad_(False)
        self.model = self._at = None

    def vocabulary(self) -> Tensor | None:
        """Return the model's token embeddings (v, e); None for images."""
        if self.base.family.modality == "image":
            return None
        weight = self.base.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight.detach().float().cpu()

    def sample_embeddings(self, *shape: int) -> Tensor:
        """Return embeddings of random tokens, (*shape, e); for images values uniform in [-1, 1]."""
        words = self.vocabulary()
        if words is None:
            return torch.rand(*shape, int(self.base.model.config.hidden_size)) * 2 - 1
        return words[torch.randint(len(words), shape)]

    def _hook(self, model: Any) -> None:
        """Register the hooks that the model's family needs.

        Raises:
            ModelError: an image model without a module of embeddings.
        """
        name = self.base.family.name
        if name == "image-classifier":
            # Patches are embedded inside, and no mask is given: prompts can only join behind that.
            body = model.base_model
            if not hasattr(body, "embeddings"):
                raise ModelError(f"{self.base.name!r} has no module of embeddings behind which prompts could be put")
            self._hooks.append(body.embeddings.register_forward_hook(self._patches))
            self._hooks.append(body.register_forward_hook(self._out))
        elif name == "encoder-decoder":
            # The decoder reads the encoder's states, those of the prompts too: they stay, and its mask grows with
            # them.
            self._hooks.append(model.get_encoder().register_forward_pre_hook(self._in, with_kwargs=True))
            self._hooks.append(model.get_decoder().register_forward_pre_hook(self._across, with_kwargs=True))
        else:
            # The head, and the loss, go by position, so that the outputs of the prompts are taken out again.
            self._hooks.append(model.base_model.register_forward_pre_hook(self._in, with_kwargs=True))
            self._hooks.append(model.base_model.register_forward_hook(self._out))

    def _in(self, body: Any, args: tuple[Any, ...], kwargs: ForwardKeywords) -> tuple[tuple[()], ForwardKeywords]:
        """Insert the prompts into the embeddings, the mask and the positions; in a cached step into the mask alone."""
        known = list(inspect.signature(body.forward).parameters)
        call: ForwardKeywords = {**dict(zip(known, args, strict=False)), **kwargs}
        ids, embeds, mask, cache = (
            call.get(key) for key in ("input_ids", "inputs_embeds", "attention_mask", "past_key_values")
        )
        shown = ids if ids is not None else embeds
        assert shown is not None
        cached = int(cache.get_seq_length()) if cache is not None else 0
        if mask is not None and mask.ndim != 2:
            raise ModelError("soft prompts need attention masks of shape (batch, length); use a dynamic cache")
        if mask is None:
            # Without a mask nothing is padded; the cache holds the prompts' positions, which the mask must not count.
            before = cached - self.tokens() if cached else 0
            mask = torch.ones(shown.shape[0], before + shown.shape[1], dtype=torch.long, device=shown.device)
        decoder = self.base.family.name == "decoder"
        if cached and decoder:
            # Every position behind the padding is attended to, so it does not matter where the prompts' ones are put.
            extended = insert_positions(mask, mask.new_ones(len(mask), self.tokens()), text_start(mask))
            self._at = None
            shifted = {"position_ids": positions(extended)[:, -shown.shape[1] :]}
            return (), {**call, "attention_mask": extended, **shifted}
        if embeds is None:
            embeds = body.get_input_embeddings()(ids)
        question = self.base.family.prompt_mask
        real = mask.bool() if question is None or not decoder else mask.bool() & question
        new = self.prompts(embeds, real).to(embeds.dtype)
        at = text_start(mask) + int(self.base.family.head is not None)  # behind [CLS], which the head reads
        if self.behind:
            at = text_start(mask) + real.sum(-1)
        self._at = at
        extended = insert_positions(mask, mask.new_ones(new.shape[:2]), at)
        call |= {"input_ids": None, "inputs_embeds": insert_positions(embeds, new, at), "attention_mask": extended}
        if decoder:
            call["position_ids"] = positions(extended)
        # An encoder counts its positions itself where none are given; those given are too few by now.
        elif call.get("position_ids") is not None:
            call["position_ids"] = None
        if call.get("token_type_ids") is not None:
            kinds = call["token_type_ids"]
            call["token_type_ids"] = insert_positions(kinds, kinds.new_zeros(new.shape[:2]), at)
        return (), call

    def _out(self, _: nn.Module, args: Any, out: Any) -> Any:
        """Drop the outputs at the prompts' positions."""
        if self._at is not None:
            out.last_hidden_state = remove_positions(out.last_hidden_state, self.tokens(), self._at, last=self.behind)
        return out

    def _across(self, body: Any, args: tuple[Any, ...], kwargs: ForwardKeywords) -> tuple[Any, ForwardKeywords]:
        """Extend the mask of cross-attention by the prompts, whose states the decoder reads too."""
        states, mask = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
        if states is None or mask is None or mask.shape[1] == states.shape[1]:
            return args, kwargs
        at = text_start(mask) + (mask.sum(-1) if self.behind else 0)
        return args, {
            **kwargs,
            "encoder_attention_mask": insert_positions(mask, mask.new_ones(len(mask), self.tokens()), at),
        }

    def _patches(self, _: nn.Module, args: Any, out: Tensor) -> Tensor:
        """Insert the prompts behind [CLS] among embedded patches, to which positions are added already."""
        patches = out[:, 1:]
        new = self.prompts(patches, torch.ones(patches.shape[:2], dtype=torch.bool, device=out.device))
        self._at = torch.ones(len(out), dtype=torch.long, device=out.device)
        return insert_positions(out, new.to(out.dtype), self._at)
