"""Defines encoder-decoders (T5-like): the prompt goes to the encoder, the answer to the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from everlora.core.errors import DataError
from everlora.core.plain import JsonObject
from everlora.data.task import Example, Task
from everlora.models.families.base import GREEDY, IGNORE, Batch, Features, GenerationInput, Limits, Scoring, right_pad
from everlora.models.families.heads import neutral_generation, select_positions, unwrap_model
from everlora.models.families.writer import Writer


class Seq2Seq(Writer):
    """Is an encoder-decoder with a language-model head."""

    name: ClassVar[str] = "encoder-decoder"
    peft_task: ClassVar[str | None] = "SEQ_2_SEQ_LM"
    spaced: ClassVar[bool] = False

    def __init__(self, processor: Any, limits: Limits) -> None:
        super().__init__(processor, limits)
        self.start = self.pad
        """What the decoder reads first; `everlora.models.loading.load` sets it to what the model was trained with."""

    def answering(self) -> JsonObject:
        return super().answering() | {"decoder_start_token": self.start}

    def check_row(self, example: Example, task: Task) -> None:
        super().check_row(example, task)
        found = len(self.answer(example.target, task))
        if found > self.limits.context:
            raise DataError(
                f"task {task.name!r}: an answer of {found} tokens is longer than the model's context of "
                f"{self.limits.context}; shorten it, or choose a model with a longer context"
            )

    def generation(self, task: Task, sampling: GenerationInput) -> GenerationConfig:
        config = super().generation(task, sampling)
        config.decoder_start_token_id = self.start
        return config

    def _source(self, example: Example, task: Task) -> list[int]:
        """Return the tokens that the encoder reads."""
        prompt, cut = self.prompter.prompt(example, task, room=1)
        self.truncated += cut > 0
        return [*prompt, int(self.processor.eos_token_id)]

    def features(self, example: Example, task: Task) -> Features:
        answer = self.answer(example.target, task)
        return {"input_ids": self._source(example, task), "labels": answer}

    def continuation(self, before: str, text: str) -> Features:
        tokens, room = self.prompter.tokens, self.limits.context - 1
        return {
            "input_ids": [*tokens(before)[:room], int(self.processor.eos_token_id)],
            "labels": tokens(text)[: self.limits.context],
        }

    def collate(self, rows: Sequence[Features]) -> Batch:
        labels = right_pad([row["labels"] for row in rows], IGNORE)
        # The decoder reads the answer one step behind; the Trainer takes `labels` out, so it is shifted here.
        start = torch.full((len(rows), 1), self.start)
        return {
            "input_ids": right_pad([row["input_ids"] for row in rows], self.pad),
            "attention_mask": right_pad([[1] * len(row["input_ids"]) for row in rows], 0),
            "decoder_input_ids": torch.cat([start, labels[:, :-1].clamp_min(0)], dim=1),
            "labels": labels,
        }

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        where = batch["labels"] != IGNORE
        with select_positions(unwrap_model(model).get_output_embeddings(), where):
            return self.run(model, inputs, use_cache=False).logits, batch["labels"][where]

    def token_masks(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        return batch["attention_mask"].bool(), batch["labels"] != IGNORE

    def length(self, example: Example, task: Task) -> int:
        return len(self._source(example, task))

    def predict(
        self,
        model: nn.Module,
        task: Task,
        rows: Sequence[Example],
        scoring: Scoring,
        sampling: GenerationInput = GREEDY,
    ) -> list[str]:
        sources = [self._source(row, task) for row in rows]
        device = next(model.parameters()).device
        ids = right_pad(sources, self.pad).to(device)
        mask = right_pad([[1] * len(source) for source in sources], 0).to(device)
        answers = [self.answer(label, task) for label in task.labels]
        if scoring == "labels":
            best = self._scores(model, ids, mask, answers).argmax(-1)
            return [task.labels[i] for i in best.tolist()]
        with neutral_generation(model) as bare:
            known = {} if self.frozen is None else {"encoder_outputs": self._encoded(model, ids, mask)}
            config = self.generation(task, sampling)
            shown = {"generation_config": config, "streamer": self.streamer}
            out = bare.generate(input_ids=ids, attention_mask=mask, **shown, **known)
        return self.decode(out[:, 1:].tolist(), task)  # the first token is the one that the decoder starts with

    def _scores(self, model: nn.Module, ids: Tensor, mask: Tensor, answers: list[list[int]]) -> Tensor:
        """Return the log-probability of each label after each source, (b, labels); the encoder runs once."""
        b, n = ids.shape[0], len(answers)
        states = self._encoded(model, ids, mask).last_hidden_state
        labels = right_pad(answers, IGNORE).to(ids.device).repeat(b, 1)  # (b n, m)
        start = torch.full((b * n, 1), self.start, device=ids.device)
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat_interleave(n, 0)),
            attention_mask=mask.repeat_interleave(n, 0),
            decoder_input_ids=torch.cat([start, labels[:, :-1].clamp_min(0)], dim=1),
            use_cache=False,
        ).logits.float()
        real = labels != IGNORE
        each = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        return (each * real).sum(-1).view(b, n)

    def _encoded(self, model: nn.Module, ids: Tensor, mask: Tensor) -> BaseModelOutput:
        """Return what the encoder makes of sources (b, s), which it reads once where it is frozen."""
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.frozen is not None:
            return BaseModelOutput(last_hidden_state=self.frozen.hidden(model, inputs))
        outputs: BaseModelOutput = unwrap_model(model).get_encoder()(**inputs)
        return outputs
