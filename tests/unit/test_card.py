"""The model card of a run folder, sentence by sentence: each stands there exactly where it is true."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from everlora.archive.card import CONSOLIDATED, PROMPTS, matrix_table, model_card, pooling_of
from everlora.archive.head_rows import LISTED, shared_rows
from everlora.archive.identity import Composition, RunProtocol, RunRecord
from everlora.archive.records import Fingerprint
from everlora.archive.results import Fingerprints, MatrixRecord
from everlora.core.expressions import parse
from everlora.settings.spec import LearnerSpec

POOLED = Fingerprint(
    backend="plain", weights="float32", device="cpu", attention=None, scoring="labels", batch_invariant=None,
    versions={}, pooling="mean",
)  # fmt: skip


def card(method: str = "ella", head: str | None = None, hub: str | None = "org/base", **more: Any) -> str:
    """The card of a run of two tasks by ``method`` at its defaults."""
    settings = {key: more.pop(key) for key in ("model", "revision", "trust_remote_code", "dtype") if key in more}
    parsed = parse(method)
    run = RunRecord.of(
        LearnerSpec(**{"model": "org/base", "method": method, **settings}), Composition.of(parsed.describe())
    )
    results = MatrixRecord(**{
        "id": "0", "tasks": ["news", "mail"], "counts": [3, 3], "matrix": [[90.0, None], [70.0, 80.12345]],
        "metrics": {"oa": 75.0, "bwt": None, "fwt": 3.0, "general_delta": None}, "stored_elements": 0,
        "adapter_elements": 0, "memory_bytes": 0, "method": method, "model": "base", "family": "decoder", **more,
    })  # fmt: skip
    return model_card(results, run, hub, parsed.adapter, head)


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("rows", [[0, 1], [2, 3], [2, 1]], ids=["shared", "own", "both"])
def test_labels_of_several_tasks_are_spoken_of_where_there_are_some(rows: list[int], named: bool) -> None:
    labels = ["no", "yes", "no (mail)" if named else "off", "yes (mail)" if named else "on"]
    said = shared_rows(labels, {"news": [0, 1], "mail": rows})
    text = card("inclora", family="encoder", labels=labels, label_rows={"news": [0, 1], "mail": rows})
    assert (said is None) is ("Of labels that several tasks have" not in text) is (not named and rows == [2, 3])
    assert said is None or f"\nOf labels that several tasks have: {said}.\n" in text
    assert "Of labels" not in card("inclora", label_rows={"news": [0, 1]}), "without a head there are no labels"


@pytest.mark.parametrize("count", [1, LISTED, LISTED + 1, 2 * LISTED])
def test_up_to_eight_labels_are_listed(count: int) -> None:
    assert LISTED == 8
    names = [f"l{k:02}" for k in range(count)]
    listed = ", ".join(map(repr, names[:8])) + (", ..." if count > 8 else "")
    rows = list(range(count))
    assert shared_rows(names, {"a": rows, "b": rows}) == (
        f"tasks share rows of the head for {listed} (`shared_labels: false` keeps them apart)"
    )
    own = shared_rows([*names, *(f"{name} (b)" for name in names)], {"a": rows, "b": [count + row for row in rows]})
    assert own == (
        f"each task has rows of the head of its own for {listed} (`shared_labels: true` in each shares them)"
    )


def test_rows_that_the_head_does_not_have_are_left_out() -> None:
    assert shared_rows(["no"], {"a": [0, 1], "b": [0, -1]}) == shared_rows(["no"], {"a": [0], "b": [0]}) is not None
    assert shared_rows(["no"], {"a": [0]}) is shared_rows([], {"a": [0], "b": [0]}) is None


@pytest.mark.parametrize(
    ("method", "sentence", "library", "tags"),
    [
        ("ella", CONSOLIDATED["sum"].format(noun="adapter"), "peft", ["lora"]),
        ("seqlora", CONSOLIDATED["continue"].format(noun="adapter"), "peft", ["lora"]),
        ("per-task", CONSOLIDATED["keep"].format(noun="adapter"), "peft", ["lora"]),
        ("mtl", "The adapter in this folder was trained on all tasks at once.", "peft", ["lora"]),
        ("lfpt5", PROMPTS["continue"], "everlora", ["soft-prompts"]),
        ("progprompt", PROMPTS["keep"], "everlora", ["soft-prompts"]),
        ("seqft", "on which every task was trained", "transformers", []),
        ("zero-shot", "Nothing was trained: these are the scores of the base model.", "transformers", []),
    ],
)
def test_what_was_trained_and_how_it_is_loaded(method: str, sentence: str, library: str, tags: list[str]) -> None:
    text = card(method)
    known = parse(method)
    assert sentence in text or (method == "seqft" and CONSOLIDATED["continue"].format(noun=known.adapter.noun) in text)
    assert [s in text for s in PROMPTS.values()].count(True) == int(tags == ["soft-prompts"])
    data = front(text)
    assert (data["library_name"], data["tags"]) == (library, [*tags, "continual-learning", "everlora", method])
    trained = method != "zero-shot"
    assert ("PeftModel.from_pretrained(base" in text) is (library == "peft")
    assert ('everlora.load(".", dtype="float32").model' in text) is (method == "seqft")
    assert ('Learner.open(".")' in text) is (library == "everlora")
    assert (f"one {known.adapter.noun} and all\npredictions" in text) is trained
    title = f"base, taught 2 tasks with {method}" if trained else "base, untouched, on 2 tasks"
    assert f"\n# {title}\n" in text


def test_a_merge_at_limited_rank_says_what_it_lost() -> None:
    assert "at rank 16: relative error 0.012" in card(export_rank=16, export_error=0.0123)
    assert "relative error" not in card()


def test_only_numbers_of_every_run_are_shown_and_general_ability_where_it_is_measured() -> None:
    assert "\noa 75.0  bwt –\n" in card()
    assert "\noa 75.0  general_delta -1.5\n" in card(metrics={"oa": 75.0, "general_delta": -1.5, "bwt_plus": 1.0})


def test_what_the_hub_reads_of_each_task() -> None:
    (model,) = front(card(metric={"mail": "rouge_l"}))["model-index"]
    found = [one["metrics"][0] for one in model["results"]]
    assert [(one["type"], one["value"]) for one in found] == [("exact_match", 70.0), ("rouge_l", 80.1235)]
    assert [one["name"] for one in found] == ["exact match after the last task (%)", "rouge l after the last task (%)"]
    assert model["name"] == "base ella"
    assert "model-index" not in front(card(matrix=[[90.0, None], [None, None]]))
    (one,) = front(card(matrix=[[90.0, None], [None, 80.0]]))["model-index"][0]["results"]
    assert one["dataset"]["name"] == "mail"


def test_provenance() -> None:
    assert "Protocol unknown, fingerprint unknown." in card()
    text = card(protocol=RunProtocol(hash="0123"), fingerprints=Fingerprints(rows=["f"], of={"f": POOLED}))
    assert "Protocol 0123, fingerprint f." in text


def test_how_a_pooled_encoder_answers_without_everlora() -> None:
    made = {"family": "encoder", "labels": ["no", "yes"]}
    pooled = {**made, "fingerprints": Fingerprints(rows=["f", "g"], of={"g": POOLED})}
    for method, head, put_on in [
        ("inclora", "classifier", 'model = PeftModel.from_pretrained(base, ".").get_base_model()'),
        ("inclora", "classifier.dense", "base.classifier = torch.nn.Sequential(OrderedDict(dense=base.classifier"),
        ("seqft", "classifier.dense", "model = base\n"),
    ]:
        text = card(method, head, **pooled)
        assert "Without everlora" in text
        assert put_on in text
        assert "(hidden * mask).sum(1) / mask.sum(1)" in text
        assert ("OrderedDict" in text) is (method == "inclora" and "." in head)
        assert ("pooling='mean'" in text) is (method == "inclora")
        name = "'org/base'" if method == "inclora" else "'.'"
        assert f"AutoModelForSequenceClassification.from_pretrained({name}, num_labels=len(labels)" in text
        assert ("or from_pretrained" in text) is False
    first = Fingerprints(rows=["g"], of={"g": POOLED.model_copy(update={"pooling": "cls"})})
    assert "hidden[:, 0]" in card("inclora", "classifier", **{**made, "fingerprints": first})
    assert "# or from_pretrained" in card("seqft", "classifier", **made), "its own head pools"
    for lacking in (
        card("inclora", "classifier", **made),
        card("inclora", None, **pooled),
        card("l2p", "classifier", **pooled),
        card("inclora", "classifier", hub=None, model="tiny-bert", **pooled),
    ):
        assert "Without everlora" not in lacking
    assert "Without everlora" in card("inclora", "classifier", hub=None, model="./mine", **pooled)


def test_the_newest_row_says_how_texts_are_pooled() -> None:
    def found(rows: list[str | None], **of: Fingerprint) -> str | None:
        return pooling_of(MatrixRecord.model_construct(fingerprints=Fingerprints(rows=rows, of=of)))

    plain = Fingerprint(**POOLED.model_dump(exclude={"pooling"}))
    assert found(["a", "b"], a=plain, b=POOLED) == "mean"
    assert found(["b", "a"], a=plain, b=POOLED) is found(["b", None], b=POOLED) is found([]) is None


def test_a_cell_that_was_not_measured_is_a_dash_and_zero_is_none() -> None:
    found = matrix_table(MatrixRecord.model_construct(tasks=["a"], matrix=[[0.0]]))
    with pytest.raises(ValueError, match="shorter"):
        matrix_table(MatrixRecord.model_construct(tasks=["a", "b"], matrix=[[0.0, 1.0]]))
    with pytest.raises(ValueError, match="shorter"):
        card(matrix=[[90.0, None], [70.0]])
    assert found == "| after | a |\n|---|---|\n| a | 0.0 |"
