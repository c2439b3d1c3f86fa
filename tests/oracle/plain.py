"""What a model answers by transformers (and peft) alone: a script for a process of its own, which never sees everlora.

Reads a list of jobs as JSON from stdin and writes ``{id: {"answers": [...], "scores": [[...], ...]}}`` (or
``{"error": "..."}``) to stdout. Rows are taken one by one, without padding and without a cache of ours, so that what
everlora does in batches has nothing to lean on.

The definitions, written down a second time:

- A prompt of text and label is ``instruction``, ``Options: `` and the labels joined by commas, the text, ``Answer:``,
  a line each. What stands before the text, the text, and what stands behind it are tokenised each by itself, without
  special tokens; a beginning-of-sequence token comes first if the tokenizer writes one before a text. A row that
  brings its own prompt is taken as it is.
- A label's score is the sum of the log-probabilities of its tokens and of the end-of-sequence token behind them, no
  division by length. Behind our own cue a decoder writes a blank before the label; an encoder-decoder does not.
- An encoder-decoder reads the prompt and an end-of-sequence token, and its decoder begins with
  ``decoder_start_token_id``.
- Greedy answers end with the end-of-sequence token, or 4 tokens after the longest label, or after ``longest`` tokens
  where the set of answers is open; special tokens and blanks at the ends are taken off.
- A classifier reads the text as its tokenizer encodes it. Scored by labels it answers the best of the task's own
  labels, else the best of all that it has learned.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel
from transformers.utils import logging

AUTO = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    "encoder": transformers.AutoModelForSequenceClassification,
    "image": transformers.AutoModelForImageClassification,
}


def prompt(words: Any, job: dict[str, Any], text: str) -> list[int]:
    def tokens(piece: str) -> list[int]:
        return list(words(piece, add_special_tokens=False).input_ids)

    whole = words("a").input_ids
    start = whole[:1] if whole[0] == words.bos_token_id else []
    if not job["labels"]:
        return [*start, *tokens(text)]
    head = f"{job['instruction']}\nOptions: {', '.join(job['labels'])}\n"
    return [*start, *tokens(head), *tokens(text), *tokens("\nAnswer:")]


def answer_tokens(words: Any, job: dict[str, Any], label: str) -> list[int]:
    blank = " " if job["family"] == "decoder" else ""
    return [*words(blank + label, add_special_tokens=False).input_ids, words.eos_token_id]


def label_scores(model: Any, job: dict[str, Any], ids: list[int], labels: list[list[int]]) -> list[float]:
    """Σ log p(token | prompt, tokens before it) of labels of one length, from one forward pass over both."""
    whole, begin = torch.tensor([ids] * len(labels)), torch.tensor(labels)
    if job["family"] == "decoder":
        both = torch.cat([whole, begin], dim=1)
        logits = model(input_ids=both, use_cache=False).logits[:, len(ids) - 1 : -1]
    else:
        start = torch.full((len(labels), 1), model.config.decoder_start_token_id)
        decoded = torch.cat([start, begin[:, :-1]], dim=1)
        logits = model(input_ids=whole, decoder_input_ids=decoded, use_cache=False).logits
    each = logits.double().log_softmax(-1).gather(-1, begin[..., None])[..., 0]
    return list(map(float, each.sum(-1)))


def all_scores(model: Any, job: dict[str, Any], ids: list[int], labels: list[list[int]]) -> list[float]:
    """Every label's score; labels of one length together, so that nothing is padded."""
    found: dict[int, float] = {}
    for length in {len(label) for label in labels}:
        places = [k for k, label in enumerate(labels) if len(label) == length]
        found |= dict(zip(places, label_scores(model, job, ids, [labels[k] for k in places]), strict=True))
    return [found[k] for k in range(len(labels))]


def greedy(model: Any, words: Any, job: dict[str, Any], ids: list[int], longest: int) -> str:
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    # No setting of the checkpoint's own but its tokens, some of which would not be greedy.
    begin = bare.config.decoder_start_token_id if job["family"] == "encoder-decoder" else None
    bare.generation_config = transformers.GenerationConfig(
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id, decoder_start_token_id=begin
    )
    out = bare.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        num_beams=1,
        max_new_tokens=longest,
    )[0]
    new = out[len(ids) :] if job["family"] == "decoder" else out
    return str(words.decode(new, skip_special_tokens=True)).strip()


def texts(model: Any, words: Any, job: dict[str, Any]) -> dict[str, Any]:
    labels = [answer_tokens(words, job, label) for label in job["labels"]]
    longest = max(map(len, labels)) + 4 if labels else job["longest"]
    answers, scores = [], []
    for row in job["rows"]:
        ids = prompt(words, job, row)
        if job["family"] == "encoder-decoder":
            ids.append(words.eos_token_id)
        if job["scoring"] == "generate":
            answers.append(greedy(model, words, job, ids, longest))
        else:
            scores.append(all_scores(model, job, ids, labels))
            answers.append(job["labels"][int(np.argmax(scores[-1]))])
    return {"answers": answers, "scores": scores}


def classes(model: Any, reader: Any, job: dict[str, Any]) -> dict[str, Any]:
    columns = [job["head"].index(label) for label in job["labels"]]
    columns = columns if job["scoring"] == "labels" else list(range(len(job["head"])))
    scores = []
    for row in job["rows"]:
        if job["family"] == "image":
            inputs = reader(images=[np.array(row, dtype=np.uint8)], return_tensors="pt")
        else:
            inputs = reader(row, return_tensors="pt")
        scores.append(model(**inputs).logits[0, columns].tolist())
    return {"answers": [job["head"][columns[int(np.argmax(row))]] for row in scores], "scores": scores}


@torch.no_grad()
def answered(job: dict[str, Any]) -> dict[str, Any]:
    text = job["family"] in ("decoder", "encoder-decoder")
    head = {} if text else {"num_labels": len(job["head"]), "ignore_mismatched_sizes": True}
    model = AUTO[job["family"]].from_pretrained(job["base"], dtype=torch.float32, **head)
    if job["adapter"]:
        model = PeftModel.from_pretrained(model, job["adapter"])
    read = transformers.AutoImageProcessor if job["family"] == "image" else transformers.AutoTokenizer
    reader = read.from_pretrained(job["base"])
    return (texts if text else classes)(model.eval(), reader, job)


def main() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = {}
    for job in json.load(sys.stdin):
        try:
            found[job["id"]] = answered(job)
        except Exception as error:  # one architecture that cannot be loaded hides no other
            found[job["id"]] = {"error": f"{type(error).__name__}: {error}"}
    assert not [name for name in sys.modules if name.split(".")[0] == "everlora"]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
