"""Labels of which no rows of a head can be made, or none that differ, are refused before anything is learned."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from everlora import Example, Task, load
from everlora.core.errors import DataError
from everlora.models.families import Classifier
from everlora.models.families.label_names import check_label_names


def task(*labels: str) -> Task:
    rows = [Example(f"film {label}", label) for label in labels]
    return Task(name="a", train=rows, test=rows, labels=labels)


def tokenizer() -> Any:
    """It reads lower case without accents, and knows few words."""
    words = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "cafe", "bar", "good", "label", "_", "0")
    made = Tokenizer(WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(lowercase=True), Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("Café", "bar", "cafe"), "the labels 'Café', 'cafe' are the same tokens to the model"),
        (("good bar cafe", "good bar good"), "the labels 'good bar cafe', 'good bar good' are the same tokens"),
        (
            ("体育", "财经", "bar"),
            "the model's tokenizer knows no part of the labels '体育', '财经', and",
        ),
        (("bar", "zebra"), "knows no part of the labels 'zebra', and"),
        (("bar", "LABEL_0"), "the label 'LABEL_0' has no name, and --head names makes rows of names; give the"),
        (("label_10", "bar"), "the label 'label_10' has no name"),
        (("bar", "0"), "the label '0' has no name"),
    ],
)
def test_labels_that_make_no_rows_are_named_with_a_way_out(labels: tuple[str, ...], message: str) -> None:
    """Read are at most four tokens, of which two are special."""
    with pytest.raises(DataError, match=message) as refused:
        check_label_names(task(*labels), tokenizer(), 4)
    said = str(refused.value)
    assert said.startswith("task 'a': ")
    assert "leave out --head" in said
    assert "\n" not in said


@pytest.mark.parametrize("labels", [("cafe", "bar"), ("good zebra", "good"), ("label 0", "bar"), ("cafe bar", "bar")])
def test_names_that_differ_and_are_known_in_part_pass(labels: tuple[str, ...]) -> None:
    check_label_names(task(*labels), tokenizer(), 8)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_head_of_names_alone_is_so_strict(fixed: bool) -> None:
    """A head that is trained tells labels apart whatever their names are."""
    family = load("tiny-bert", device="cpu", dtype="float32", pooling="mean").family
    assert isinstance(family, Classifier)
    family.fixed, family.processor = fixed, tokenizer()
    if not fixed:
        family.check(task("Café", "cafe"))
        return
    with pytest.raises(DataError, match="the labels 'Café', 'cafe' are the same tokens"):
        family.check(task("Café", "cafe"))
