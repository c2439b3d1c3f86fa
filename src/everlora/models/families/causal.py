"""Defines decoders (Llama-like): the answer follows the prompt in one sequence, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from everlora.data.task import Example, Task
from everlora.models.families.base import (
    GREEDY,
    IGNORE,
    Batch,
    Features,
    GenerationInput,
    Scoring,
    left_pad,
    positions,
    right_pad,
)
from everlora.models.families.frozen import FrozenLayers
from everlora.models.families.heads import contiguous_head, neutral_generation, select_positions, unwrap_model
from everlora.models.families.label_tree import LabelTree, score_labels
from everlora.models.families.packed import (
    Packing,
    can_share,
    packed,
    read_prefix,
    repeated,
    shared_length,
    worth_packing,
)
from everlora.models.families.writer import Writer

LOGITS = 2**24
"""Logits of label trees that are held together."""
SCORED_AT_ONCE = 64
"""Pairs of prompt and label whose caches are held together."""


class Causal(Writer):
    """Is a decoder with a language-model head.

    >>> from everlora import Example, Task, load
    >>> family = load("tiny-llama").family
    >>> rows = [Example("fine film", "good")]
    >>> task = Task(name="reviews", train=rows, test=rows, labels=("good", "bad"), instruction="Rate the text.")
    >>> batch = family.collate([family.features(rows[0], task)])
    >>> family.processor.decode(batch["input_ids"][0]).splitlines()[-1]
    'Answer: good'
    >>> int((batch["labels"] != IGNORE).sum())  # the answer and the end of the sequence
    2
    """

    name: ClassVar[str] = "decoder"
    peft_task: ClassVar[str | None] = "CAUSAL_LM"
    spaced: ClassVar[bool] = True

    def features(self, example: Example, task: Task) -> Features:
        answer = self.answer(example.target, task)
        prompt, cut = self.prompter.prompt(example, task, room=max(len(answer), self._room(task)))
        self.truncated += cut > 0
        return _shifted(prompt, answer)

    def continuation(self, before: str, text: str) -> Features:
        tokens, half = self.prompter.tokens, self.limits.context // 2
        prompt = [*self.prompter.start, *tokens(before)[:half]]
        return _shifted(prompt, tokens(f" {text}")[: self.limits.context - len(prompt)])

    def collate(self, rows: Sequence[Features]) -> Batch:
        ids = left_pad([row["input_ids"] for row in rows], self.pad)
        mask = left_pad([[1] * len(row["input_ids"]) for row in rows], 0)
        labels = left_pad([row["labels"] for row in rows], IGNORE)
        # `shift_labels` is the Trainer's name for targets that are aligned already; it counts them for the loss.
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions(mask),
            "labels": labels,
            "shift_labels": labels,
        }

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "shift_labels")}
        where = batch["shift_labels"] != IGNORE
        if self.packs and self._divides_prompts:
            shared = worth_packing(batch["input_ids"], batch["attention_mask"], where)
            if shared is not None:
                return self._logits_packed(model, batch, where, shared), batch["shift_labels"][where]
        # Position j predicts token j + 1, so the prompt's last token is the first position with a loss.
        self.prompt_mask = where.cumsum(1) - where.long() == 0
        try:
            with select_positions(unwrap_model(model).get_output_embeddings(), where):
                return self.run(model, inputs, use_cache=False).logits, batch["shift_labels"][where]
        finally:
            self.prompt_mask = None

    @property
    def _divides_prompts(self) -> bool:
        """Return whether a part of a prompt may be read by itself."""
        # Soft prompts stand before a prompt's own tokens, and may differ from row to row.
        return not self.limits.reserved and not self.whole_prompts

    def _logits_packed(self, model: nn.Module, batch: Batch, where: Tensor, shared: int) -> Tensor:
        """Return the logits of `logits` without padding, the first tokens of all rows read once, gradient included."""
        begins = (batch["attention_mask"] == 0).sum(1, keepdim=True)
        column = torch.arange(where.shape[1])
        rest = column >= begins + shared
        packing = Packing.of(rest.sum(1).tolist(), shared)
        # The first row stands for all of them in the tokens that they share, none of which has a loss.
        of_all = (column >= begins[0]) & ~rest[0]

        def pack(padded: Tensor) -> Tensor:
            return torch.cat([padded[0, of_all], padded[rest]])[None]

        head = unwrap_model(model).get_output_embeddings()
        placed: dict[str, Any] = {"position_ids": pack(batch["position_ids"]), "use_cache": False}
        hidden = self._frozen_states(model, batch, where)
        with packed(model, packing), select_positions(head, pack(where)):
            if isinstance(self.frozen, FrozenLayers) and hidden is not None:
                found: Tensor = self.frozen.go_on(model, pack(hidden), **placed).logits
            else:
                found = model(input_ids=pack(batch["input_ids"]), **placed).logits
        return found

    def _frozen_states(self, model: nn.Module, batch: Batch, where: Tensor) -> Tensor | None:
        """Return what frozen layers make of a batch, (b, s, h); None where none are, or they cannot be cut off."""
        if not isinstance(self.frozen, FrozenLayers):
            return None
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        with select_positions(unwrap_model(model).get_output_embeddings(), where):
            return self.frozen.hidden(model, inputs) if self.frozen.serves(model, inputs, use_cache=False) else None

    def _room(self, task: Task) -> int:
        """Return the tokens that are reserved for an answer, the same in training and in answering."""
        return max((len(self.answer(label, task)) + 4 for label in task.labels), default=self.limits.answer)

    def _space(self, task: Task) -> int:
        room = self._room(task)
        rows = [row for split in (task.train, task.dev, task.test) for row in split]
        return self.limits.context - max(len(self.prompter.prompt(row, task, room=room)[0]) for row in rows)

    def length(self, example: Example, task: Task) -> int:
        return len(self.features(example, task)["input_ids"])

    def predict(
        self,
        model: nn.Module,
        task: Task,
        rows: Sequence[Example],
        scoring: Scoring,
        sampling: GenerationInput = GREEDY,
    ) -> list[str]:
        room = self._room(task)
        prompts = [self.prompter.prompt(row, task, room=room)[0] for row in rows]
        shares = self._divides_prompts and can_share(model)
        if scoring == "labels":
            best = self.label_scores(model, prompts, task, shares=shares).argmax(-1)
            return [task.labels[i] for i in best.tolist()]
        device = next(model.parameters()).device
        shared = shared_length(prompts) if shares and len(prompts) > 1 else 0
        rests = [prompt[shared:] for prompt in prompts]
        ids = left_pad(rests, self.pad).to(device)
        mask = left_pad([[1] * len(rest) for rest in rests], 0).to(device)
        if shared:
            ids = torch.cat([ids.new_tensor([prompts[0][:shared]]).expand(len(rows), -1), ids], dim=1)
            mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
        with neutral_generation(model) as bare, contiguous_head(model):
            out = bare.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=repeated(read_prefix(model, prompts[0][:shared]), len(rows)),
                generation_config=self.generation(task, sampling),
                streamer=self.streamer,
            )
        return self.decode(out[:, ids.shape[1] :].tolist(), task)

    @torch.no_grad()
    def label_scores(self, model: nn.Module, prompts: Sequence[list[int]], task: Task, *, shares: bool) -> Tensor:
        """Return the log-probability of each label of a task behind each prompt, (b, labels), in fp32.

        Args:
            model: adapted or not.
            prompts: in tokens.
            task: whose labels are scored, each with the end of the sequence.
            shares: whether prompts may share what they begin with, and labels their tree; else every pair of prompt
                and label passes through the model by itself.
        """
        answers = [self.answer(label, task) for label in task.labels]
        if shares:
            tree = LabelTree.of(answers)
            # Logits of the end of each prompt and of each node, over the vocabulary, are held together.
            size = (len(tree.tokens) + 1) * int(unwrap_model(model).get_output_embeddings().weight.shape[0])
            step = max(1, LOGITS // size)
            some = [prompts[k : k + step] for k in range(0, len(prompts), step)]
            return torch.cat([score_labels(model, few, tree, self.pad, self.run) for few in some])
        device = next(model.parameters()).device
        ids = left_pad(prompts, self.pad).to(device)
        mask = left_pad([[1] * len(prompt) for prompt in prompts], 0).to(device)
        # Each pair of prompt and label is a row of the second pass, so memory grows with their product.
        step = max(1, SCORED_AT_ONCE // len(answers))
        parts = zip(torch.split(ids, step), torch.split(mask, step), strict=True)
        return torch.cat([self._scores(model, i, m, answers) for i, m in parts])

    def _scores(self, model: nn.Module, ids: Tensor, mask: Tensor, answers: list[list[int]]) -> Tensor:
        """Return the log-probability of each label with the end of the sequence after each prompt, (b, labels).

        The prompt runs once; its cache is repeated for the labels, which follow in one further pass.
        """
        b, n = ids.shape[0], len(answers)
        # Logits of the last position only: those of every token of a prompt would be the largest tensor there is.
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True, logits_to_keep=1)
        first = out.logits[:, -1].float().log_softmax(-1)  # (b, v)
        labels = right_pad(answers, self.pad).to(ids.device)  # (n, m)
        real = right_pad([[1] * len(a) for a in answers], 0).to(ids.device)  # (n, m)
        cache: Any = getattr(out, "past_key_values", None)
        if not all(hasattr(layer, "batch_repeat_interleave") for layer in getattr(cache, "layers", [None])):
            return self._scores_of_pairs(model, ids, mask, answers)
        cache.batch_repeat_interleave(n)
        # The last token of a label is scored, and never read.
        fed = labels[:, :-1].repeat(b, 1)  # (b n, m - 1)
        extended = torch.cat([mask.repeat_interleave(n, 0), real[:, :-1].repeat(b, 1)], dim=1)
        rest = model(
            input_ids=fed,
            attention_mask=extended,
            position_ids=positions(extended)[:, -fed.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).logits.float()
        after = rest.log_softmax(-1).gather(-1, labels[:, 1:].repeat(b, 1)[..., None])[..., 0]  # (b n, m - 1)
        after = (after * real[:, 1:].repeat(b, 1)).sum(-1).view(b, n)
        return first[:, labels[:, 0]] + after

    def _scores_of_pairs(self, model: nn.Module, ids: Tensor, mask: Tensor, answers: list[list[int]]) -> Tensor:
        """Return `_scores` where a cache cannot be repeated (Mamba's states): each prompt runs with each label.

        Padded on the right, where it comes after all that counts, so that a state that knows no mask is right as well.
        """
        pairs = [(row[keep].tolist(), a) for row, keep in zip(ids, mask.bool(), strict=True) for a in answers]
        rows = [_shifted(prompt, a) for prompt, a in pairs]
        fed = right_pad([row["input_ids"] for row in rows], self.pad).to(ids.device)
        real = right_pad([[1] * len(row["input_ids"]) for row in rows], 0).to(ids.device)
        labels = right_pad([row["labels"] for row in rows], IGNORE).to(ids.device)
        logits = model(input_ids=fed, attention_mask=real, use_cache=False).logits.float()
        each = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        return (each * (labels != IGNORE)).sum(-1).view(len(ids), len(answers))


def _shifted(prompt: list[int], answer: list[int]) -> Features:
    """Return tokens and targets of one sequence, in which position j predicts token j + 1.

    The targets are shifted here, once, so that nothing has to be shifted later.
    """
    return {"input_ids": [*prompt, *answer[:-1]], "labels": [IGNORE] * (len(prompt) - 1) + answer}
