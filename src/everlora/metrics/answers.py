"""Defines metrics of answers: how what a model answered is compared with what is right.

All are percent, 0 to 100. A task names one (`everlora.data.task.Task.metric`); its score is the mean over rows, or,
for a measure of the whole corpus, taken over all rows at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from everlora.core.benchmark import DEFAULT_METRIC
from everlora.metrics import row_shares
from everlora.metrics.registry import Answer, metric
from everlora.metrics.sari import sari
from everlora.metrics.texts import normalise, normalise_all, visible, words

DEFAULT = DEFAULT_METRIC
AS_WRITTEN = ("exact_match_raw", "exact_match_trace")
"""Metrics to which labels that differ in case or punctuation are different."""


def exact_match(prediction: str, target: str) -> bool:
    """Compare after `normalise`; an answer that normalises to nothing equals only a target that is the same."""
    return seen(prediction) == seen(target)


def seen(text: str) -> str:
    """Return what exact match sees of a text: all of it where `normalise` leaves nothing."""
    return normalise(text) or visible(text.strip())


def correct(row: Answer) -> bool:
    """Return whether an answer exactly matches one that is accepted.

    >>> correct(Answer("World.", ("sports", "world")))
    True
    """
    return any(exact_match(row.prediction, target) for target in row.accepted)


def label_key(label: str, metric: str) -> str:
    """Return what a metric sees of a label: two labels of one key are one label to it.

    >>> label_key("(a)", "exact_match") == label_key("a", "exact_match")
    True
    >>> label_key("(a)", "exact_match_raw") == label_key("a", "exact_match_raw")
    False
    """
    if metric in AS_WRITTEN:
        return label.strip()
    return normalise_all(label) or label.strip() if metric == "exact_match_empty" else seen(label)


def _best(compare: Callable[[str, str], float], row: Answer) -> float:
    """Return the best value over the accepted answers."""
    return max(compare(row.prediction, target) for target in row.accepted)


@cache
def _rouge(stemmed: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stemmed)


class _Words:
    """Splits texts into words of any script, as a tokeniser that rouge-score takes."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge_of_any_script() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


def _rouge_l_unicode(prediction: str, target: str) -> float:
    if not words(target):  # a target of signs alone has no words to share
        return 100.0 * (prediction.strip() == target.strip())
    return 100.0 * float(_rouge_of_any_script().score(target, prediction)["rougeL"].fmeasure)


def _rouge_l(prediction: str, target: str) -> float:
    return 100.0 * float(_rouge(False).score(target, prediction)["rougeL"].fmeasure)


def _rouge_l_of_stems(prediction: str, target: str) -> float:
    return 100.0 * float(_rouge(True).score(target, prediction)["rougeL"].fmeasure)


def literals(code: str) -> str:
    """Return code of Py150 with place-holders written out: ``<NUM_LIT>`` 0, ``<STR_LIT>`` empty, ``<STR_LIT:x>`` x."""
    code = re.sub(r"<(?:STR|NUM|CHAR)_LIT:(.*?)>", r"\1", code, flags=re.DOTALL)
    return code.replace("<NUM_LIT>", "0").replace("<STR_LIT>", "").replace("<CHAR_LIT>", "")


def _similarity(prediction: str, target: str) -> float:
    from rapidfuzz import fuzz

    return float(fuzz.ratio(literals(prediction).strip(), literals(target).strip()))


def _corpus_bleu(rows: Sequence[Answer], labels: Sequence[str]) -> float:
    import sacrebleu

    most = max(len(row.accepted) for row in rows)
    # Rows may have different numbers of references; None stands for one that is not there.
    streams: Any = [[row.accepted[k] if k < len(row.accepted) else None for row in rows] for k in range(most)]
    return float(sacrebleu.corpus_bleu([row.prediction for row in rows], streams).score)


def _bleu_shares(rows: Sequence[Answer], labels: Sequence[str]) -> tuple[float, ...]:
    import sacrebleu

    each = [sacrebleu.sentence_bleu(row.prediction, list(row.accepted)) for row in rows]
    return row_shares.bleu(
        _corpus_bleu(rows, labels), [(one.counts, one.totals, one.sys_len, one.ref_len) for one in each]
    )


def _classes(rows: Sequence[Answer], labels: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the right label of each row, the one answered (empty where it is none), and the labels of either."""
    names = {seen(label): label for label in labels or [row.accepted[0] for row in rows]}
    given = [names.get(seen(row.prediction), "") for row in rows]
    right = [names.get(seen(row.accepted[0]), row.accepted[0]) for row in rows]
    return right, given, sorted({*right, *given} - {""})


def _macro_f1(rows: Sequence[Answer], labels: Sequence[str]) -> float:
    """Average F1 over the labels that are right or answered somewhere; what is no label is a miss and no class."""
    from sklearn.metrics import f1_score

    right, given, classes = _classes(rows, labels)
    return 100.0 * float(f1_score(right, given, labels=classes, average="macro"))


def _macro_f1_shares(rows: Sequence[Answer], labels: Sequence[str]) -> tuple[float, ...]:
    return row_shares.macro_f1(*_classes(rows, labels))


@metric(
    DEFAULT,
    formula="100 where answer and target are equal after lower-casing, deleting ASCII punctuation and collapsing "
    "white space; numbers keep sign, point, percent sign and marks between digits: 3.5 is not 35, 1,000 is 1000; "
    "letters by themselves keep their signs, too: -x is not x, x+1 not x-1, C++ not C",
    source="O-LoRA and the papers that take up its evaluation, whose scripts delete punctuation from numbers too: "
    "where targets are words it is the same number (exact_match_empty has theirs)",
)
def _exact_match(row: Answer) -> float:
    return 100.0 * correct(row)


@metric(
    "accuracy",
    formula="100 where the answer names the label that is asked for, normalised as for exact_match; an "
    "answer that is no label is wrong: exact_match of tasks with a label set, by head or by text",
    source="every paper on classification streams",
)
def _accuracy(row: Answer) -> float:
    return 100.0 * correct(row)


@metric(
    "exact_match_first_line",
    formula="exact_match of the first line of the answer that is not empty, for models that run on",
    source="everlora: decoders whose end of sequence was cut off in training",
)
def _exact_match_first_line(row: Answer) -> float:
    first = next((line for line in row.prediction.splitlines() if line.strip()), "")
    return 100.0 * correct(Answer(first, row.accepted))


@metric(
    "exact_match_empty",
    formula="exact_match with punctuation deleted from numbers too (3.5 equals 35), and what normalises to nothing "
    "equals all else that does: silence is right where the label is -",
    source="O-LoRA's scripts as they stand, which matters on 131 rows of MNLI",
)
def _exact_match_empty(row: Answer) -> float:
    return _best(lambda prediction, target: 100.0 * (normalise_all(prediction) == normalise_all(target)), row)


@metric(
    "exact_match_raw",
    formula="100 where answer and target are the same string, case and punctuation included, white space around "
    "them aside",
    source="everlora: labels that differ in case or punctuation alone, such as yes, yes! and Yes",
)
def _exact_match_raw(row: Answer) -> float:
    return _best(lambda prediction, target: 100.0 * (prediction.strip() == target.strip()), row)


@metric(
    "accuracy_first_character",
    formula="100 where answer and target begin with the same character",
    source="everlora: answers that are a choice and an explanation; TRACE's is first_character_trace",
)
def _accuracy_first_character(row: Answer) -> float:
    return _best(lambda prediction, target: 100.0 * (prediction.strip()[:1] == target.strip()[:1] != ""), row)


@metric(
    "rouge_l",
    formula="F1 of the longest common subsequence of words, no stemming, best reference; words are letters a-z and "
    "digits, so that other letters split or vanish: rouge_l_unicode for those",
    source="Lin 2004; package rouge-score; TRACE's is rouge_l_trace",
)
def _best_rouge_l(row: Answer) -> float:
    return _best(_rouge_l, row)


@metric(
    "rouge_l_unicode",
    formula="as rouge_l, of words of letters and digits of every script; Chinese, Japanese, Thai, Lao, Khmer, Burmese "
    "and Tibetan by character",
    source="everlora: package rouge-score with a tokeniser that knows all letters",
)
def _best_rouge_l_unicode(row: Answer) -> float:
    return _best(_rouge_l_unicode, row)


@metric("rouge_l_stemmed", formula="as rouge_l, of Porter stems", source="Super-NaturalInstructions")
def _best_rouge_l_of_stems(row: Answer) -> float:
    return _best(_rouge_l_of_stems, row)


@metric("rouge_l_stemmed_first", formula="as rouge_l_stemmed, of the first reference only", source="SAPT")
def _first_rouge_l_of_stems(row: Answer) -> float:
    return _rouge_l_of_stems(row.prediction, row.accepted[0])


@metric(
    "bleu",
    formula="corpus BLEU-4, tokens 13a, exponential smoothing; a row by itself has its sentence BLEU",
    source="Papineni et al. 2002; package sacrebleu",
    corpus=_corpus_bleu,
    shares=_bleu_shares,
)
def _bleu(row: Answer) -> float:
    import sacrebleu

    return float(sacrebleu.sentence_bleu(row.prediction, list(row.accepted)).score)


@metric(
    "sari",
    formula="mean over rows of (F_keep + F_add + P_delete) / 3 over n-grams of order 1 to 4; the source is the "
    "whole prompt",
    source="Xu et al. 2016; TRACE's is sari_trace",
)
def _sari(row: Answer) -> float:
    return sari(row.source, row.prediction, row.accepted)


@metric(
    "edit_similarity",
    formula="100 · (1 − insertions and deletions / length of both), literal place-holders written out",
    source="CodeXGLUE; package rapidfuzz (ratio, not rounded to whole numbers); TRACE's is edit_similarity_trace",
)
def _edit_similarity(row: Answer) -> float:
    return _best(_similarity, row)


@metric(
    "edit_similarity_rounded",
    formula="as edit_similarity, each row rounded to a whole number",
    source="CodeXGLUE's scripts by fuzzywuzzy with python-Levenshtein, whose ratio is a whole number",
)
def _edit_similarity_rounded(row: Answer) -> float:
    return _best(lambda prediction, target: float(round(_similarity(prediction, target))), row)


@metric(
    "macro_f1",
    formula="mean over labels of F1, answers normalised as for exact_match; a row by itself has its exact match",
    source="package scikit-learn",
    corpus=_macro_f1,
    shares=_macro_f1_shares,
)
def _row_of_macro_f1(row: Answer) -> float:
    return 100.0 * correct(row)
