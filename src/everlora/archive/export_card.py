"""Writes the card of an export, which stands alone: no run folder goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from everlora.archive.card import front_matter, loading, pooling_of, provenance, score_cell, with_transformers
from everlora.archive.card_answer import AUTO, answering_lines
from everlora.archive.card_base import check_base_lines, packed_line
from everlora.archive.commits import TaskCard
from everlora.archive.identity import RunRecord
from everlora.archive.records import BaseFilesRecord
from everlora.archive.results import MatrixRecord
from everlora.core.adapter import Adapter
from everlora.core.errors import FolderError
from everlora.data.template import DEFAULT as DEFAULT_TEMPLATE
from everlora.data.template import IN_CHAT, Template
from everlora.metrics.answers import DEFAULT
from everlora.settings.spec import LearnerSpec

LISTED = 100
"""Labels of a task that a card names."""


class _Model(Adapter):
    """Describes a model into which everything is folded, for what the card says of loading it."""

    noun = "model"
    whole_model = True
    loads_with_peft = False


@dataclass(frozen=True)
class ExportFacts:
    """Holds what is known of an export beyond its run.

    Attributes:
        hub: the hub id of the base model, if it has one.
        head: the path of the classification head in the model, if it has one.
        cards: of the run's tasks, by name; empty where an older everlora learned them.
        rank: of the adapter; None for a whole model.
        error: what the truncation to that rank has lost, ‖M − M̂‖_F / ‖M‖_F.
        chat_date: the date that the chat template was given, if it asks for one.
        files: what the base model was read from.
    """

    hub: str | None
    head: str | None
    cards: Mapping[str, TaskCard]
    rank: int | None = None
    error: float | None = None
    chat_date: str | None = None
    files: BaseFilesRecord | None = None


def export_card(results: MatrixRecord, run: RunRecord, facts: ExportFacts) -> str:
    """Return README.md of an export: what it is, how it is loaded and asked, and what it scored.

    Args:
        results: what matrix.json of the run says.
        run: what identifies the run.
        facts: of the export.
    """
    whole, settings = facts.rank is None, run.settings
    if whole:
        what = "The whole model in fp32: everything learned is folded into the weights of the base model, exactly."
        adapter: Adapter = _Model(form="model")
    else:
        what = (
            f"One PEFT adapter of rank {facts.rank} for the base model. Relative error against all that was learned: "
            f"{facts.error:.2g}; the scores below are of all that was learned."
        )
        adapter = Adapter()
    base = settings.model if facts.hub in (None, settings.model) else f"{settings.model} ({facts.hub})"
    revision = f", revision {settings.revision}" if settings.revision else ""
    newest = [row for row in results.matrix if any(cell is not None for cell in row)][-1:]
    scores = dict(zip(results.tasks, newest[0], strict=True)) if newest else {}
    use = _plain(results) if whole and not pooling_of(results) else loading(results, settings, adapter)
    answering = answering_lines(
        results.family,
        facts.hub or settings.model,
        facts.cards,
        adapter=not whole,
        revision=settings.revision,
        template=settings.prompt,
        chat=settings.prompt_style == "chat",
    )
    return f"""---
{front_matter(results, facts.hub, True, adapter)}
---

# {results.model}, taught {len(results.tasks)} tasks with {results.method}

{what}

Base model: {base}{revision}. Method: {settings.method}.

{use}{with_transformers(results, settings, facts.hub, adapter, facts.head)}{answering}\
{"" if whole else _check(facts, settings)}
## Tasks

In the order of learning. Scores in percent after the last task, {settings.evaluation.scoring}, \
{settings.evaluation.split} split; {provenance(results)}

{_tasks(results, facts.cards, scores)}

{_labels(results, facts.cards)}

## Prompt

{_prompt(results, facts, settings.prompt, settings.prompt_style == "chat")}

Exported by everlora from run {run.id}.
"""


def _check(facts: ExportFacts, settings: LearnerSpec) -> str:
    """Return the section that tells whether a base model is the one that an adapter was trained on."""
    base, on_hub = facts.hub or settings.model, facts.hub is not None
    return packed_line(settings.dtype) + check_base_lines(base, facts.files, on_hub=on_hub, revision=settings.revision)


def check_scores(results: MatrixRecord, committed: Sequence[Sequence[float | None]], path: Path) -> None:
    """Refuse a matrix.json with other scores after the last task than those that were committed.

    Args:
        results: what matrix.json of the run in ``path`` says.
        committed: the scores of each stage.
        path: of the run.

    Raises:
        FolderError: it has.
    """
    last = [
        [row for row in ([cell for cell in one if cell is not None] for one in rows) if row][-1:]
        for rows in (results.matrix, committed)
    ]
    if last[0] != last[1]:
        raise FolderError(
            f"{path / 'matrix.json'} has other scores than {path / 'tasks'}; run again with --resume, which makes it "
            f"anew"
        )


def _plain(results: MatrixRecord) -> str:
    """Return how a whole model is loaded by transformers alone."""
    pictures = results.family == "image-classifier"
    auto, reads = AUTO[results.family], "AutoImageProcessor" if pictures else "AutoTokenizer"
    return f"""```python
from transformers import {auto}, {reads}

model = {auto}.from_pretrained(".", dtype="float32").eval()
{"processor" if pictures else "tokenizer"} = {reads}.from_pretrained(".")
```
"""


def _tasks(results: MatrixRecord, prompts: Mapping[str, TaskCard], scores: Mapping[str, float | None]) -> str:
    lines = ["| task | metric | rows | score | labels |", "|---|---|---|---|---|"]
    for name, count in zip(results.tasks, results.counts, strict=True):
        labels = len(prompts[name].labels) if name in prompts else None
        kind = "–" if labels is None else str(labels) if labels else "free text"
        metric = results.metric.get(name, DEFAULT)
        lines.append(f"| {name} | {metric} | {count} | {score_cell(scores.get(name))} | {kind} |")
    return "\n".join(lines)


def _labels(results: MatrixRecord, prompts: Mapping[str, TaskCard]) -> str:
    """List the label sets, in the order that a prompt or a head has them."""
    lines = [
        f"- {name}: {_listed(prompts[name].labels)}"
        for name in results.tasks
        if name in prompts and prompts[name].labels
    ]
    if results.labels and results.family in ("encoder", "image-classifier"):
        lines.append(f"- rows of the head: {_listed(results.labels)}")
        for name, rows in results.label_rows.items():
            lines.append(f"- rows of {name}: {', '.join(map(str, rows))}")
    return "Label sets:\n\n" + "\n".join(lines) if lines else "No label sets are known."


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - LISTED} more" if len(labels) > LISTED else ""
    return ", ".join(map(_span, labels[:LISTED])) + more


def _span(label: str) -> str:
    """Return a label as code in a line, whatever signs it has.

    >>> _span("good"), _span("a`b")
    ('`good`', '`` a`b ``')
    """
    fence = "`"
    while fence in label:
        fence += "`"
    pad = " " if len(fence) > 1 else ""  # a sign of its own must not touch the fence
    return f"{fence}{pad}{' '.join(label.split())}{pad}{fence}"


def _prompt(results: MatrixRecord, facts: ExportFacts, own: str | None, chat: bool) -> str:
    """Describe what the model reads for a row of each kind of task."""
    if results.family == "image-classifier":
        return "None: it reads pictures, as `preprocessor_config.json` or the base model's own prepares them."
    if results.family == "encoder":
        return "None: it reads the text of a row as it is."
    template = Template(own if own is not None else IN_CHAT if chat else DEFAULT_TEMPLATE)
    through = "Prompts are a user's message in the tokenizer's chat template.\n\n" if chat else ""
    parts = [
        f"{through}Rows of text and label are written by this template; a line whose fields are empty is left out:\n\n"
        f"{_block(template.text)}"
    ]
    for name, prompt in facts.cards.items():
        if prompt.form == "labelled":
            before, after = template.around(name, prompt.instruction, tuple(prompt.labels))
            parts.append(f"{name}:\n\n{_block(before + '{text}' + after)}")
        else:
            kind = (
                "messages go through the tokenizer's chat template"
                if prompt.form == "chat"
                else "prompts are given whole"
            )
            learned = "; every answer of the assistant was learned" if prompt.turns == "all" else ""
            parts.append(f"{name}: {kind}{learned}.")
    if facts.chat_date:
        parts.append(f"The chat template is given the date {facts.chat_date}, on every day.")
    return "\n\n".join(parts)


def _block(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
