"""Writes the model card, which Hugging Face shows of a learner's folder."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from everlora.archive.card_base import packed_line
from everlora.archive.head_rows import shared_rows
from everlora.archive.identity import RunRecord
from everlora.archive.results import MatrixRecord
from everlora.core.adapter import Adapter
from everlora.metrics.answers import DEFAULT
from everlora.metrics.scores import METRICS
from everlora.settings.spec import LearnerSpec

PIPELINES = {
    "decoder": "text-generation",
    "encoder-decoder": "text2text-generation",
    "encoder": "text-classification",
    "image-classifier": "image-classification",
}
"""What the Hub calls the work of each model family."""
CONSOLIDATED = {
    "sum": "The {noun} in this folder is the sum of all tasks' adapters, exact, with their ranks added.",
    "continue": "The {noun} in this folder is the one that every task was trained on.",
    "keep": "Answers need the task id: load the {noun} of the task from `tasks/`; the root holds the newest.",
}

PROMPTS = {
    "continue": "`prompts.safetensors` holds the soft prompts on which every task was trained.",
    "keep": "Answers need the task id: every folder in `tasks/` holds the soft prompt of its task.",
}
"""The same where prompts were trained, which are no adapters of PEFT's."""


def score_cell(value: float | None) -> str:
    """Return a score with one decimal, or a dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def matrix_table(results: MatrixRecord) -> str:
    """Return the accuracy matrix as Markdown; row i holds the scores after task i."""
    tasks = results.tasks
    lines = ["| after | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name, row in zip(tasks, results.matrix, strict=True):
        lines.append(f"| {name} | " + " | ".join(score_cell(cell) for cell in row) + " |")
    return "\n".join(lines)


def front_matter(results: MatrixRecord, hub: str | None, trained: bool, adapter: Adapter) -> str:
    """Return what the Hub understands of a card, as YAML: kind of work, base model, scores after the last task."""
    task = PIPELINES[results.family]
    metrics = {name: results.metric.get(name, DEFAULT) for name in results.tasks}
    scores = [
        EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=name,
            metric_type=metrics[name],
            metric_name=f"{metrics[name].replace('_', ' ')} after the last task (%)",
            metric_value=round(score, 4),
        )
        for name, score in zip(results.tasks, results.matrix[-1], strict=True)
        if score is not None
    ]
    data = ModelCardData(
        library_name=_library(adapter) if trained else "transformers",
        pipeline_tag=task,
        base_model=hub,
        tags=[
            *(["lora"] if trained and adapter.low_rank else []),
            *(["soft-prompts"] if trained and adapter.form.startswith("prompt") else []),
            "continual-learning",
            "everlora",
            results.method,
        ],
        model_name=f"{results.model} {results.method}",
        eval_results=scores or None,
    )
    return data.to_yaml()


def loading(results: MatrixRecord, settings: LearnerSpec, adapter: Adapter) -> str:
    """Describe how the adapter is put on its base model; settings that change what is loaded are repeated."""
    if adapter.whole_model:
        other = "" if pooling_of(results) else '  # or from_pretrained(".") of transformers'
        return f"""```python
import everlora

model = everlora.load(".", dtype="float32").model{other}
```
"""
    if not adapter.loads_with_peft:
        return ""
    given = [repr(settings.model), *_origin(settings)]
    given += [f"dtype={settings.dtype!r}"] if settings.dtype != "auto" else []
    given += [f"labels={results.labels!r}"] if results.labels else []
    given += [f"pooling={pooling!r}"] if (pooling := pooling_of(results)) else []
    return f"""```python
import everlora
from peft import PeftModel

base = everlora.load({", ".join(given)}).model
model = PeftModel.from_pretrained(base, ".")
```
"""


def _origin(settings: LearnerSpec) -> list[str]:
    """Return keywords that any loader needs to find the same base model."""
    given = [f"revision={settings.revision!r}"] if settings.revision else []
    return given + (["trust_remote_code=True"] if settings.trust_remote_code else [])


def pooling_of(results: MatrixRecord) -> str | None:
    """Return how an encoder pooled a text's tokens for its head; None where the checkpoint's own head did."""
    newest = results.fingerprints.of.get((results.fingerprints.rows or [None])[-1] or "")
    found = (newest.model_extra or {}).get("pooling") if newest else None
    return str(found) if found else None


def with_transformers(
    results: MatrixRecord, settings: LearnerSpec, hub: str | None, adapter: Adapter, head: str | None
) -> str:
    """Describe how a pooled encoder answers with transformers and PEFT alone, whose own classes pool otherwise."""
    pooling = pooling_of(results)
    usable = adapter.loads_with_peft or adapter.whole_model
    if pooling is None or head is None or not usable or (hub is None and settings.model.startswith("tiny-")):
        return ""
    name, origin = (".", []) if adapter.whole_model else (hub or settings.model, _origin(settings))
    given = ", ".join([repr(name), *origin, "num_labels=len(labels)", "dtype=torch.float32"])
    put_on = "model = base" if adapter.whole_model else 'model = PeftModel.from_pretrained(base, ".").get_base_model()'
    imported = "" if adapter.whole_model else "from peft import PeftModel\n"
    own, _, inner = head.partition(".")
    if inner and not adapter.whole_model:  # PEFT wants all layers of the module that stands for the head
        imported = f"from collections import OrderedDict\n\n{imported}"
        put_on = f"base.{own} = torch.nn.Sequential(OrderedDict({inner}=base.{head}))\n{put_on}"
    pooled = "hidden[:, 0]" if pooling == "cls" else "(hidden * mask).sum(1) / mask.sum(1)"
    return f"""
Without everlora, where `from_pretrained` makes a model whose own head reads something else; `rows` are those of a
task's labels, if the task is known:

```python
{imported}import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

labels = {results.labels!r}
base = AutoModelForSequenceClassification.from_pretrained({given})
{put_on}
head, tokenizer = model.eval().get_submodule({head!r}), AutoTokenizer.from_pretrained(".")


def answer(texts, rows=range(len(labels))):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        hidden = model.base_model(**inputs).last_hidden_state
        logits = head({pooled})
    return [labels[rows[k]] for k in logits[:, list(rows)].argmax(-1)]
```
"""


def _loaded(results: MatrixRecord, settings: LearnerSpec, adapter: Adapter) -> str:
    """Describe how what was trained is put to use."""
    if adapter.loads_with_peft or adapter.whole_model:
        return loading(results, settings, adapter)
    return _following()


def _library(adapter: Adapter) -> str:
    """Name what loads the folder of a learner that was trained."""
    return "transformers" if adapter.whole_model else "peft" if adapter.loads_with_peft else "everlora"


def _following() -> str:
    """Describe how forms that no other library loads are put on their model: the learner goes on where it was."""
    return """```python
import everlora

learner = everlora.Learner.open(".")
answers = learner.ask(["…"])
```
"""


def provenance(results: MatrixRecord) -> str:
    """Describe protocol and fingerprints of the scores."""
    protocol = results.protocol.describe() if results.protocol else "unknown"
    return f"Protocol {protocol}, fingerprint {', '.join(results.fingerprints.of) or 'unknown'}."


def model_card(
    results: MatrixRecord,
    run: RunRecord,
    hub: str | None,
    adapter: Adapter | None = None,
    head: str | None = None,
) -> str:
    """Return README.md of a run folder, with results that the Hub understands in its front matter.

    Args:
        results: what matrix.json says.
        run: what identifies the run.
        hub: the hub id of the base model, if it has one.
        adapter: what was trained, if it is no plain adapter.
        head: the path of the classification head in the model, if it has one.
    """
    adapter = adapter or Adapter()
    settings, composition = run.settings, run.composition
    trained = composition.regime != "frozen"
    found = results.metrics
    shown = [name for name in found if name in METRICS or (name == "general_delta" and found[name] is not None)]
    numbers = "  ".join(f"{name} {score_cell(found[name])}" for name in shown)
    soft = trained and adapter.form.startswith("prompt")
    how = (PROMPTS if soft else CONSOLIDATED)[composition.consolidator].format(noun=adapter.noun)
    if composition.regime == "joint":
        how = f"The {adapter.noun} in this folder was trained on all tasks at once."
    if results.export_rank is not None:
        how = (
            f"The adapter in this folder is what the tasks' adapters are merged into, at rank "
            f"{results.export_rank}: relative error {results.export_error:.2g} (`everlora export` writes it "
            f"exactly, as a model)."
        )
    title = f"{results.model}, taught {len(results.tasks)} tasks with {results.method}"
    if not trained:
        how = "Nothing was trained: these are the scores of the base model."
        title = f"{results.model}, untouched, on {len(results.tasks)} tasks"
    each = f"one {adapter.noun} and " if trained else ""
    same = None if results.task_id_at_inference else shared_rows(results.labels or [], results.label_rows)
    note = packed_line(settings.dtype) + (f"\nOf labels that several tasks have: {same}.\n" if same else "")
    use = _loaded(results, settings, adapter) + with_transformers(results, settings, hub, adapter, head)
    return f"""---
{front_matter(results, hub, trained, adapter)}
---

# {title}

{how}

{use if trained else ""}
Scores in percent, {settings.evaluation.scoring}, {settings.evaluation.split} split. Row: after this task.
{provenance(results)}

{matrix_table(results)}

{numbers}
{note}
`run.yaml` holds the settings, `environment.json` the versions, `tasks/` {each}all
predictions per task. Made with everlora.
"""
