"""The model card: what Hugging Face shows of a learner's folder."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def matrix_table(content: dict[str, Any]) -> str:
    """The accuracy matrix as Markdown; row i holds the scores after task i."""
    tasks = content["tasks"]
    lines = ["| after | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name, row in zip(tasks, content["matrix"], strict=True):
        lines.append(f"| {name} | " + " | ".join(_cell(cell) for cell in row) + " |")
    return "\n".join(lines)


def model_card(content: dict[str, Any], facts: dict[str, Any], hub: str | None) -> str:
    """README.md of a run folder, with results that the Hub understands in its front matter."""
    final = content["matrix"][-1]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            metric_type="exact_match",
            metric_name="exact match after the last task (%)",
            metric_value=round(score, 4),
        )
        for task, score in zip(content["tasks"], final, strict=True)
        if score is not None
    ]
    data = ModelCardData(
        library_name="peft",
        base_model=hub,
        tags=["lora", "continual-learning", "everlora", content["method"]],
        model_name=f"{content['model']} {content['method']}",
        eval_results=results or None,
    )
    settings = facts["settings"]
    numbers = "  ".join(f"{name} {_cell(value)}" for name, value in content["metrics"].items())
    how = {
        "sum": "The adapter in this folder is the sum of all tasks' adapters, exact, with their ranks added.",
        "continue": "The adapter in this folder is the one that every task was trained on.",
        "keep": "Answers need the task id: load the adapter of the task from `tasks/`; the root holds the newest.",
    }[facts["composition"]["consolidator"]]
    head = f", labels={content['labels']!r}" if content["labels"] else ""
    if facts["composition"]["regime"] == "frozen":
        how = "Nothing was trained: these are the scores of the base model."
    return f"""---
{data.to_yaml()}
---

# {content["model"]}, taught {len(content["tasks"])} tasks with {content["method"]}

{how}

```python
import everlora
from peft import PeftModel

base = everlora.load({settings["model"]!r}{head}).model
model = PeftModel.from_pretrained(base, ".")
```

Scores in percent, {settings["evaluation"]["scoring"]}, {settings["evaluation"]["split"]} split. Row: after this task.

{matrix_table(content)}

{numbers}

`run.yaml` holds the settings, `environment.json` the versions, `tasks/` one adapter and all predictions per task.
Made with everlora.
"""
