"""Is a whole sequence faster than stock pieces? Four tasks are learned in turn and answered, in fresh processes.

    python benchmarks/sequence.py --data-dir ../shared/data/cl_benchmark --rounds 3    # 5 minutes of one core a round

Standard order 1, SmolLM2-135M, r = 8 on q and v, 16 steps of 8 rows a task, 24 answers of each task after the last,
written token by token; one thread. Two ways, one after the other in every round:

    stock       transformers' Trainer on padded rows, peft's LoRA merged after each task, `generate` in batches of 8
    everlora    inclora, which does the same, as it runs by default, with its commits

Both begin with the model in memory, from the same files; seconds are those of the processor, memory the most that the
process had. A line of JSON per process goes to ``--results``; the table has medians over rounds, and their range.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from everlora import Task, load
from everlora.learner import experiment, sweep
from everlora.metrics import answer_metric
from everlora.models.families import Causal
from everlora.models.families.base import Features
from everlora.models.loading import Loaded
from everlora.settings.spec import RunSpec

STEPS, BATCH, ANSWERED = 16, 8, 24
WAYS = ("stock", "everlora")


class Encoded(Dataset[Features]):
    """Holds rows as stock models take them: the answer and its end among the tokens, each its own target."""

    def __init__(self, base: Loaded, task: Task) -> None:
        self.rows = [self.whole(base.family.features(row, task)) for row in task.train]

    @staticmethod
    def whole(row: Features) -> Features:
        """Return a row with its last target as input, too; stock wants targets at their tokens, not one before."""
        ids, labels = row["input_ids"], row["labels"]
        return {"input_ids": [*ids, labels[-1]], "labels": [-100, *labels]}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features:
        return self.rows[index]


def stock(base: Loaded, tasks: Sequence[Task]) -> float:
    """Learn the tasks with stock pieces; return the share of right answers."""
    model: Any = base.model
    wanted = {"r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    for task in tasks:
        adapted = get_peft_model(model, LoraConfig(**wanted))
        with tempfile.TemporaryDirectory() as place:
            given = TrainingArguments(
                place,
                max_steps=STEPS,
                per_device_train_batch_size=BATCH,
                learning_rate=3e-3,
                lr_scheduler_type="constant",
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            pads = DataCollatorForSeq2Seq(base.family.processor)
            Trainer(adapted, given, train_dataset=Encoded(base, task), data_collator=pads).train()
        model = adapted.merge_and_unload()
    family = cast(Causal, base.family)
    tokenizer = family.processor
    tokenizer.padding_side = "left"
    scores = []
    for task in tasks:
        answers: list[str] = []
        longest = max(len(tokenizer(f" {label}").input_ids) for label in task.labels) + 1
        for k in range(0, len(task.test), BATCH):
            rows = task.test[k : k + BATCH]
            prompts = [family.prompter.prompt(row, task, longest)[0] for row in rows]
            batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
            written = model.generate(**batch, max_new_tokens=longest, do_sample=False)[:, batch.input_ids.shape[1] :]
            answers += [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
        answered = [row.answered(text) for row, text in zip(task.test, answers, strict=True)]
        scores.append(answer_metric(task.metric).score(answered, task.labels)[0])  # as ours are scored
    return statistics.mean(scores) / 100


def everlora(base: Loaded, tasks: Sequence[Task], spec: RunSpec) -> float:
    """Learn the tasks as everlora does; return the share of right answers."""
    with tempfile.TemporaryDirectory() as place:
        (result,) = sweep.work([sweep.Job(spec, Path(place) / "run")], base)
    return float(result.record.metrics["oa"] or 0) / 100


def measure(way: str, data: Path, model: str) -> Mapping[str, float | str]:
    """Do one way in this process."""
    torch.set_num_threads(1)
    spec = experiment.resolve(
        RunSpec,
        {
            "model": model,
            "method": "inclora",
            "benchmark": "standard",
            "order": 1,
            "data_dir": str(data),
            "max_train_samples": STEPS * BATCH,
            "max_eval_samples": ANSWERED,
            "lora": {"r": 8, "lora_alpha": 8},
            "train": {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": 3e-3},
            "evaluation": {"schedule": "final"},
        },
    )
    base = load(model)
    tasks = experiment.stream_for(spec, base).tasks
    began = time.process_time()
    right = stock(base, tasks) if way == "stock" else everlora(base, tasks, spec)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"way": way, "model": model, "seconds": round(took, 2), "peak_gib": round(peak, 3), "right": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print it as JSON")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/sequence.jsonl")
    wish = parser.parse_args()
    if wish.way:
        print(json.dumps(measure(wish.way, wish.data_dir, wish.model)))
        return
    command = [sys.executable, __file__, "--data-dir", str(wish.data_dir), "--model", wish.model]
    rows = []
    for lap in range(wish.rounds):
        for way in WAYS:
            made = subprocess.run([*command, "--way", way], check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append({"round": lap, **json.loads(made.splitlines()[-1])})
            print(rows[-1], file=sys.stderr, flush=True)
    wish.results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return medians of what each way took, and of the ratios within rounds with their range."""
    lines = ["| | stock | everlora | ratio | range |", "|---|--:|--:|--:|---|"]
    for name, unit in (("seconds", "s of one core"), ("peak_gib", "GiB at most"), ("right", "of the answers right")):
        stock_, ours = ([row[name] for row in rows if row["way"] == way] for way in WAYS)
        ratios = [b / max(a, 1e-9) for a, b in zip(stock_, ours, strict=True)]
        middle = [statistics.median(one) for one in (stock_, ours, ratios)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| {unit} | {middle[0]:.2f} | {middle[1]:.2f} | **{middle[2]:.2f}** | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
