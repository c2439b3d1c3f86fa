"""How answers are compared with what was asked for: each metric of a task with its id, its formula and its source.

Papers call different numbers by one name, so every variant has an id of its own. All are percent, 0 to 100. A task
names one (`Task.metric`); its score is the mean over rows, or, for a corpus measure, taken over all rows at once.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from everlora.metrics import row_shares as shares
from everlora.metrics.sari import sari

DEFAULT = "exact_match"
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer beside what it is compared with.

    Attributes:
        prediction: what the model said, without white space around it.
        accepted: the right answers, at least one; the first is the one that was learned.
        source: the text that was asked about.
    """

    prediction: str
    accepted: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerMetric:
    """A number with one meaning.

    Attributes:
        id: what a task and a results file call it.
        formula: how it is made.
        source: who defined it, or uses it so.
        row: its value for one row.
        whole: its value for all rows and the label set, where that is not the mean over rows.
        shares: then what each row adds to it, with it as their mean, see `everlora.metrics.row_shares`.
    """

    id: str
    formula: str
    source: str
    row: Callable[[Answer], float]
    whole: Callable[[Sequence[Answer], Sequence[str]], float] | None = None
    shares: Callable[[Sequence[Answer], Sequence[str]], tuple[float, ...]] | None = None

    def score(self, rows: Sequence[Answer], labels: Sequence[str] = ()) -> tuple[float, tuple[float, ...]]:
        """The score of a task, and what each row has."""
        each = tuple(self.row(row) for row in rows)
        return (self.whole(rows, labels) if self.whole else sum(each) / len(each)), each


def normalise(text: str) -> str:
    """Lower-case, delete ASCII punctuation, collapse white space (methods of O-LoRA's line of papers)."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def exact_match(prediction: str, target: str) -> bool:
    """Equality after `normalise`; an answer that normalises to nothing equals only a target that is the same."""
    plain = normalise(prediction)
    return plain == normalise(target) if plain else prediction.strip() == target.strip()


def correct(row: Answer) -> bool:
    """Whether an answer exactly matches one that is accepted."""
    return any(exact_match(row.prediction, target) for target in row.accepted)


def _best(compare: Callable[[str, str], float]) -> Callable[[Answer], float]:
    """The best value over the accepted answers."""
    return lambda row: max(compare(row.prediction, target) for target in row.accepted)


def _first_line(row: Answer) -> float:
    """Of an answer that runs on, the first line that says anything."""
    first = next((line for line in row.prediction.splitlines() if line.strip()), "")
    return 100.0 * correct(Answer(first, row.accepted))


def _normalised(prediction: str, target: str) -> float:
    """Equality after `normalise` and nothing else: an empty answer equals the label ``-``."""
    return 100.0 * (normalise(prediction) == normalise(target))


def _first_character(prediction: str, target: str) -> float:
    return 100.0 * (prediction.strip()[:1] == target.strip()[:1] != "")


@cache
def _rouge(stemmed: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stemmed)


def _rouge_l(stemmed: bool) -> Callable[[str, str], float]:
    def compare(prediction: str, target: str) -> float:
        return 100.0 * float(_rouge(stemmed).score(target, prediction)["rougeL"].fmeasure)

    return compare


def literals(code: str) -> str:
    """Code of Py150 with its place-holders written out: ``<NUM_LIT>`` 0, ``<STR_LIT>`` empty, ``<STR_LIT:x>`` x."""
    code = re.sub(r"<(?:STR|NUM|CHAR)_LIT:(.*?)>", r"\1", code, flags=re.DOTALL)
    return code.replace("<NUM_LIT>", "0").replace("<STR_LIT>", "").replace("<CHAR_LIT>", "")


def _similarity(prediction: str, target: str) -> float:
    from rapidfuzz import fuzz

    return float(fuzz.ratio(literals(prediction).strip(), literals(target).strip()))


def _sentence_bleu(row: Answer) -> float:
    import sacrebleu

    return float(sacrebleu.sentence_bleu(row.prediction, list(row.accepted)).score)


def _corpus_bleu(rows: Sequence[Answer], labels: Sequence[str]) -> float:
    import sacrebleu

    most = max(len(row.accepted) for row in rows)
    # Rows may have different numbers of references; None stands for one that is not there.
    streams: Any = [[row.accepted[k] if k < len(row.accepted) else None for row in rows] for k in range(most)]
    return float(sacrebleu.corpus_bleu([row.prediction for row in rows], streams).score)


def _bleu_shares(rows: Sequence[Answer], labels: Sequence[str]) -> tuple[float, ...]:
    import sacrebleu

    each = [sacrebleu.sentence_bleu(row.prediction, list(row.accepted)) for row in rows]
    return shares.bleu(
        _corpus_bleu(rows, labels), [(one.counts, one.totals, one.sys_len, one.ref_len) for one in each]
    )


def _classes(rows: Sequence[Answer], labels: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What was asked for, what was answered (empty where that is no label), and the labels of either."""
    names = {normalise(label): label for label in labels or [row.accepted[0] for row in rows]}
    given = [names.get(normalise(row.prediction), "") for row in rows]
    asked = [names.get(normalise(row.accepted[0]), row.accepted[0]) for row in rows]
    return asked, given, sorted({*asked, *given} - {""})


def _macro_f1(rows: Sequence[Answer], labels: Sequence[str]) -> float:
    """F1 averaged over the labels that are asked for or answered; what is no label at all is a miss and no class."""
    from sklearn.metrics import f1_score

    asked, given, classes = _classes(rows, labels)
    return 100.0 * float(f1_score(asked, given, labels=classes, average="macro", zero_division=0.0))


_ALL = (
    AnswerMetric(
        id=DEFAULT,
        formula="100 where answer and target are equal after lower-casing, deleting ASCII punctuation and collapsing "
        "white space",
        source="O-LoRA and the papers that take up its evaluation",
        row=lambda row: 100.0 * correct(row),
    ),
    AnswerMetric(
        id="accuracy",
        formula="100 where the answer names the label that is asked for, normalised as for exact_match; an "
        "answer that is no label is wrong: exact_match of tasks with a label set, by head or by text",
        source="every paper on classification streams",
        row=lambda row: 100.0 * correct(row),
    ),
    AnswerMetric(
        id="exact_match_first_line",
        formula="exact_match of the first line of the answer that is not empty, for models that run on",
        source="everlora: decoders whose end of sequence was cut off in training",
        row=_first_line,
    ),
    AnswerMetric(
        id="exact_match_empty",
        formula="exact_match, but what normalises to nothing equals all else that does: silence is right where the "
        "label is -",
        source="O-LoRA's scripts as they stand, on 131 rows of MNLI",
        row=_best(_normalised),
    ),
    AnswerMetric(
        id="exact_match_raw",
        formula="100 where answer and target are the same string, white space around them aside; 3.5 is not 35",
        source="TRACE: C-STANCE, FOMC, NumGLUE",
        row=_best(lambda prediction, target: 100.0 * (prediction.strip() == target.strip())),
    ),
    AnswerMetric(
        id="accuracy_first_character",
        formula="100 where answer and target begin with the same character",
        source="TRACE: ScienceQA, whose answers are a choice and an explanation",
        row=_best(_first_character),
    ),
    AnswerMetric(
        id="rouge_l",
        formula="F1 of the longest common subsequence of words (letters a-z and digits), no stemming, best reference",
        source="Lin 2004; package rouge-score; TRACE: MeetingBank",
        row=_best(_rouge_l(False)),
    ),
    AnswerMetric(
        id="rouge_l_stemmed",
        formula="as rouge_l, of Porter stems",
        source="Super-NaturalInstructions",
        row=_best(_rouge_l(True)),
    ),
    AnswerMetric(
        id="rouge_l_stemmed_first",
        formula="as rouge_l_stemmed, of the first reference only",
        source="SAPT",
        row=lambda row: _rouge_l(True)(row.prediction, row.accepted[0]),
    ),
    AnswerMetric(
        id="bleu",
        formula="corpus BLEU-4, tokens 13a, exponential smoothing; a row by itself has its sentence BLEU",
        source="Papineni et al. 2002; package sacrebleu",
        row=_sentence_bleu,
        whole=_corpus_bleu,
        shares=_bleu_shares,
    ),
    AnswerMetric(
        id="sari",
        formula="mean over rows of (F_keep + F_add + P_delete) / 3 over n-grams of order 1 to 4; the source is the "
        "whole prompt",
        source="Xu et al. 2016; TRACE: 20Minuten",
        row=lambda row: sari(row.source, row.prediction, row.accepted),
    ),
    AnswerMetric(
        id="edit_similarity",
        formula="100 · (1 − insertions and deletions / length of both), literal place-holders written out",
        source="CodeXGLUE; package rapidfuzz (ratio, not rounded to whole numbers); TRACE: Py150",
        row=_best(_similarity),
    ),
    AnswerMetric(
        id="edit_similarity_rounded",
        formula="as edit_similarity, each row rounded to a whole number",
        source="TRACE: Py150 by fuzzywuzzy, whose ratio is a whole number",
        row=_best(lambda prediction, target: float(round(_similarity(prediction, target)))),
    ),
    AnswerMetric(
        id="macro_f1",
        formula="mean over labels of F1, answers normalised as for exact_match; a row by itself has its exact match",
        source="package scikit-learn",
        row=lambda row: 100.0 * correct(row),
        whole=_macro_f1,
        shares=lambda rows, labels: shares.macro_f1(*_classes(rows, labels)),
    ),
)

ANSWER_METRICS: dict[str, AnswerMetric] = {metric.id: metric for metric in _ALL}
