"""The card of an export, sentence by sentence: how it is loaded, what it scored, its labels and its prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlora.archive.commits import TaskCard
from everlora.archive.export_card import ExportFacts, check_scores, export_card
from everlora.archive.identity import Composition, RunRecord
from everlora.archive.results import MatrixRecord
from everlora.core.errors import FolderError
from everlora.core.expressions import parse
from everlora.settings.spec import LearnerSpec

PROMPTS = {
    "news": TaskCard(instruction="Which is it?", labels=["sport", "a`b"]),
    "mail": TaskCard(form="prompted"),
    "talk": TaskCard(form="chat"),
}


def card(
    prompts: dict[str, TaskCard] = PROMPTS,
    hub: str | None = "org/base",
    rank: int | None = None,
    date: str | None = None,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """The export card of a run of three tasks, of which the last has no prompt on record."""
    run = RunRecord.of(
        LearnerSpec(**{"model": "org/base", "method": "ella", **(settings or {})}),
        Composition.of(parse("ella").describe()),
    )
    results = MatrixRecord(**{
        "id": "0", "tasks": ["news", "mail", "talk"], "counts": [3, 4, 5], "memory_bytes": 0, "metrics": {},
        "matrix": [[90.0, None, None], [70.0, 80.0, None], [None, None, None]], "stored_elements": 0, "method": "ella",
        "adapter_elements": 0, "model": "base", "family": "decoder", "metric": {"mail": "bleu"}, **more,
    })  # fmt: skip
    facts = ExportFacts(hub=hub, head=None, cards=prompts, rank=rank, error=0.0123 if rank else None, chat_date=date)
    return export_card(results, run, facts)


def test_the_newest_scores_stand_beside_metric_rows_and_labels() -> None:
    wanted = (
        "| task | metric | rows | score | labels |\n|---|---|---|---|---|\n| news | exact_match | 3 | 70.0 | 2 |\n"
        "| mail | bleu | 4 | 80.0 | free text |\n| talk | exact_match | 5 | – | – |\n"
    )
    text = card({name: PROMPTS[name] for name in ("news", "mail")})
    assert wanted in text
    assert "\n# base, taught 3 tasks with ella\n" in text
    assert "| news | exact_match | 3 | – | – |" in card({}, matrix=[[None] * 3])
    with pytest.raises(ValueError, match="shorter"):
        card(matrix=[[90.0, None]])
    with pytest.raises(ValueError, match="shorter"):
        card(counts=[3, 4])


@pytest.mark.parametrize(
    ("hub", "settings", "line"),
    [
        ("org/base", {}, "Base model: org/base. Method: ella."),
        (None, {}, "Base model: org/base. Method: ella."),
        ("org/base", {"model": "./mine"}, "Base model: ./mine (org/base). Method: ella."),
        ("org/base", {"revision": "abc"}, "Base model: org/base, revision abc. Method: ella."),
    ],
)
def test_what_it_is_made_of(hub: str | None, settings: dict[str, Any], line: str) -> None:
    assert line in card(hub=hub, settings=settings)


@pytest.mark.parametrize(
    ("family", "auto", "reads", "called"),
    [
        ("decoder", "AutoModelForCausalLM", "AutoTokenizer", "tokenizer"),
        ("encoder-decoder", "AutoModelForSeq2SeqLM", "AutoTokenizer", "tokenizer"),
        ("encoder", "AutoModelForSequenceClassification", "AutoTokenizer", "tokenizer"),
        ("image-classifier", "AutoModelForImageClassification", "AutoImageProcessor", "processor"),
    ],
)
def test_a_whole_model_is_loaded_by_transformers_alone(family: str, auto: str, reads: str, called: str) -> None:
    text = card(family=family)
    assert (
        f'from transformers import {auto}, {reads}\n\nmodel = {auto}.from_pretrained(".", dtype="float32").eval()\n'
        f'{called} = {reads}.from_pretrained(".")\n'
    ) in text
    assert "The whole model in fp32: everything learned is folded into the weights" in text
    assert "PeftModel" not in text


def test_an_adapter_says_what_its_rank_has_lost() -> None:
    text = card(rank=16)
    assert (
        "One PEFT adapter of rank 16 for the base model. Relative error against all that was learned: 0.012;" in text
    )
    assert "PeftModel.from_pretrained(base" in text
    assert "The whole model in fp32" not in text


def test_label_sets_in_their_order() -> None:
    assert "Label sets:\n\n- news: `sport`, `` a`b ``\n\n## Prompt" in card()
    assert "No label sets are known." in card({})
    many = {"news": TaskCard(labels=[f"l{k}" for k in range(101)])}
    assert "`l98`, `l99` and 1 more\n" in card(many)
    assert "`l98`, `l99`\n" in card({"news": TaskCard(labels=many["news"].labels[:100])})
    head: dict[str, Any] = {"labels": ["no", "yes"], "label_rows": {"news": [0, 1], "mail": [1]}}
    rows = "- rows of the head: `no`, `yes`\n- rows of news: 0, 1\n- rows of mail: 1\n"
    for family in ("encoder", "image-classifier"):
        assert f"Label sets:\n\n{rows}" in card({}, family=family, **head)
    assert "rows of the head" not in card(**head), "a decoder has no head"
    assert "rows of the head" not in card(family="encoder", label_rows=head["label_rows"])


def test_prompts_of_each_kind_of_task() -> None:
    text = card(date="1 Jan 2026")
    assert "```text\nWhich is it?\n" in text
    assert "{text}" in text.partition("news:\n\n")[2].partition("```\n")[0]
    assert "\nmail: prompts are given whole.\n" in text
    assert "\ntalk: messages go through the tokenizer's chat template.\n" in text
    assert "\nThe chat template is given the date 1 Jan 2026, on every day.\n" in text
    assert "on every day" not in card()
    own = card(settings={"prompt": "```\n{text} =>"})
    assert "````text\n```\n{text} =>\n````" in own, "its own fence is longer than any in it"
    assert "None: it reads pictures, as" in card(family="image-classifier")
    assert "None: it reads the text of a row as it is." in card(family="encoder")


def test_scores_that_were_not_committed_are_refused() -> None:
    def results(*rows: list[float | None]) -> MatrixRecord:
        return MatrixRecord.model_construct(matrix=list(rows))

    check_scores(results([90.0, None], [70.0, 80.0]), [[90.0], [70.0, 80.0]], Path("run"))
    check_scores(results([90.0, None], [None, None]), [[90.0], [None, None]], Path("run"))
    for committed in ([[90.0], [70.0, 81.0]], [[70.0, 80.0], [90.0]], []):
        with pytest.raises(FolderError, match=r"matrix\.json has other scores than .*tasks; run again with --resume"):
            check_scores(results([90.0, None], [70.0, 80.0]), committed, Path("run"))
