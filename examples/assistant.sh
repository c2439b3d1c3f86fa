#!/usr/bin/env bash
# One assistant is kept for years: five lessons in five processes, one of them killed three times, old data deleted in
# between, a lesson taken back, another forgotten, and at the end it answers without everlora.
#
#   examples/assistant.sh [FOLDER]          MODEL=tiny-llama STEPS=4 for a rehearsal in a minute
set -euo pipefail

place=${1:-runs/assistant}
model=${MODEL:-smollm2-135m}
steps=${STEPS:+--max-steps $STEPS}
python=${PYTHON:-.venv/bin/python}
everlora() { "$python" -m everlora "$@"; }
mkdir -p "$place"
assistant=$place/assistant data=$place/data

rows() { # task, text of its first label, first label, text of its second, second
    mkdir -p "$data"
    for n in $(seq 30); do
        printf '{"text": "%s, case %d", "label": "%s"}\n{"text": "%s, case %d", "label": "%s"}\n' "$2" "$n" "$3" "$4" "$n" "$5"
    done > "$data/$1.jsonl"
}
rows refunds "my parcel came broken and I want my money back" refund "where can I see the invoice" invoice
rows tone "thank you, that was a great help" happy "this is the worst service I have seen" angry
rows urgent "the whole office has no network" now "please change my address some day" later
rows language "guten Tag, ich habe eine Frage" german "bonjour, j'ai une question" french
rows spam "you have won a prize, click here" spam "the minutes of our meeting are attached" mail

everlora init "$assistant" --model "$model" --method ella --because "answers for the support desk"

# January and February; the data must be gone within the month.
everlora learn "$assistant" --name refunds --data "$data/refunds.jsonl" --keep-probe 4 $steps --because "new policy" -q
rm "$data/refunds.jsonl"
everlora learn "$assistant" --name tone --data "$data/tone.jsonl" --keep-probe 4 $steps -q
rm "$data/tone.jsonl"

# March: the machine goes down three times. The same command goes on, and what was committed is never lost.
for seconds in 3 6 9; do
    timeout -s KILL "$seconds" "$python" -m everlora learn "$assistant" --name urgent --data "$data/urgent.jsonl" \
        --keep-probe 4 $steps -q || echo "killed after $seconds s"
done
everlora learn "$assistant" --name urgent --data "$data/urgent.jsonl" --keep-probe 4 $steps -q
everlora verify "$assistant"

# April and May; May's lesson was a mistake, and is taken back.
everlora learn "$assistant" --name language --data "$data/language.jsonl" --keep-probe 4 $steps -q
everlora learn "$assistant" --name spam --data "$data/spam.jsonl" $steps -q
everlora rollback "$assistant" --to language --because "the rows of spam were labelled the wrong way round"

# A customer's right: the lesson about tone is forgotten, and what that means is measured.
everlora forget "$assistant" tone --because "a customer asked for it"

everlora status "$assistant"
everlora history "$assistant"
everlora eval "$assistant"
everlora ask "$assistant" --task refunds "my parcel came broken, what now?"

# transformers and peft alone, in a fresh process, answer from the learner's own folder with the same logits.
everlora verify "$assistant" --logits

# Handed over: a model that needs no everlora, with the same logits.
everlora export "$assistant" --to merged --out "$place/merged"
"$python" - "$assistant" "$place/merged" <<'PYTHON'
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import everlora

learner, merged = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(merged)
inputs = tokenizer("my parcel came broken", return_tensors="pt")
with torch.no_grad():
    stock = AutoModelForCausalLM.from_pretrained(merged, dtype="float32").eval()(**inputs).logits
    ours = everlora.Learner.open(learner).model.float()(**inputs).logits
difference = float((stock - ours).abs().max() / stock.abs().max())
print(f"largest difference of logits, relative: {difference:.1e}")
assert difference < 1e-2, difference
PYTHON
