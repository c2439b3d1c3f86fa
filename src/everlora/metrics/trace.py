"""Defines the metrics of TRACE (Wang et al. 2023), each the number that TRACE's own scripts give.

They compare texts as they are: no blank is stripped, nothing is put in lower case, and an empty answer has 0, except
for SARI. Other papers' numbers of the same names have ids of their own in `everlora.metrics.answers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from everlora.metrics.registry import Answer, metric
from everlora.metrics.sari import sari

SOURCE = "TRACE (Wang et al. 2023)"


def _best(compare: Callable[[str, str], float], row: Answer) -> float:
    """Return the best value over the accepted answers; 0 if an answer or a target is empty, as TRACE skips those."""
    return max(compare(row.prediction, target) if row.prediction and target else 0.0 for target in row.accepted)


@metric(
    "exact_match_trace",
    formula="100 where answer and target are the same string, blanks and case included, and not empty",
    source=f"{SOURCE}: C-STANCE, FOMC, NumGLUE",
    blanks=True,
)
def _exact_match(row: Answer) -> float:
    return _best(lambda prediction, target: 100.0 * (prediction == target), row)


@metric(
    "first_character_trace",
    formula="100 where answer and target begin with the same character, a blank included",
    source=f"{SOURCE}: ScienceQA, whose answers are a choice and an explanation",
    blanks=True,
)
def _first_character(row: Answer) -> float:
    return _best(lambda prediction, target: 100.0 * (prediction[0] == target[0]), row)


# --- ROUGE-L of the package rouge ----------------------------------------------------------------------------------


def rouge_l(summary: str, reference: str) -> float:
    """Return ROUGE-L of summaries as the package rouge 1.0.1 has it, percent.

    With sentences split at points and words at blanks, c the number of different words that stand in the longest
    common subsequence of any two sentences, and m, n those of both texts: F = 2PR / (P + R + 1e-8), P = c/n, R = c/m.
    0 where a text has no sentence, for which the package raises an error.

    >>> round(rouge_l("The cat sat.", "The cat ran off."), 3)
    57.143
    """
    summary_sentences, reference_sentences = _sentences(summary), _sentences(reference)
    if not summary_sentences or not reference_sentences:
        return 0.0
    common: set[str] = set()
    for sentence in reference_sentences:
        for other in summary_sentences:
            # Sets, as in that package: a word that is right twice counts once.
            common |= common_words(sentence, other)
    precision = len(common) / len({word for sentence in summary_sentences for word in sentence})
    recall = len(common) / len({word for sentence in reference_sentences for word in sentence})
    return 100.0 * 2.0 * (precision * recall / (precision + recall + 1e-8))


def _sentences(text: str) -> list[list[str]]:
    """Return the words of each sentence; one of blanks alone has one word, which is empty."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def common_words(x: Sequence[str], y: Sequence[str]) -> set[str]:
    """Return the words of a longest common subsequence of x and y; of several, one with most of the end of x.

    >>> sorted(common_words("a b c d".split(), "b d e".split()))
    ['b', 'd']
    """
    length = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, word in enumerate(x, 1):
        for j, other in enumerate(y, 1):
            length[i][j] = length[i - 1][j - 1] + 1 if word == other else max(length[i - 1][j], length[i][j - 1])
    found, i, j = set[str](), len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            found.add(x[i - 1])
            i, j = i - 1, j - 1
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


@metric(
    "rouge_l_trace",
    formula="F1 of the union of the longest common subsequences of sentences, as sets of words: case kept, sentences "
    "split at points, words at blanks; not the number of rouge_l",
    source=f"{SOURCE}: MeetingBank; package rouge 1.0.1, summary level",
    blanks=True,
)
def _rouge_l(row: Answer) -> float:
    # TRACE gives the target as the summary and the answer as the reference, and which is which decides between ties.
    return _best(lambda prediction, target: rouge_l(target, prediction), row)


# --- Similarity of code --------------------------------------------------------------------------------------------


def literals(code: str) -> str:
    """Write out the place-holders of Py150 in TRACE's order: bare ones first, then those that hold a literal.

    >>> literals("x = '<STR_LIT:hi>' + <NUM_LIT>")
    "x = 'hi' + 0"
    """
    code = code.replace("<NUM_LIT>", "0").replace("<STR_LIT>", "").replace("<CHAR_LIT>", "")
    for kind, literal in re.findall(r"<(STR|NUM|CHAR)_LIT:(.*?)>", code, re.DOTALL):
        code = code.replace(f"<{kind}_LIT:{literal}>", literal)
    return code


def _similarity(prediction: str, target: str) -> float:
    # fuzzywuzzy takes difflib unless python-Levenshtein is there, which TRACE's requirements do not ask for.
    return float(round(100 * SequenceMatcher(None, prediction, target).ratio()))


@metric(
    "edit_similarity_trace",
    formula="100 · 2M / (length of both), M the characters in difflib's matching blocks, rounded to a whole number; "
    "literal place-holders written out, blanks kept",
    source=f"{SOURCE}: Py150; fuzzywuzzy's ratio by difflib, which TRACE's requirements install",
    blanks=True,
)
def _edit_similarity(row: Answer) -> float:
    plain = Answer(literals(row.prediction), tuple(literals(target) for target in row.accepted))
    return _best(_similarity, plain)


@metric(
    "sari_trace",
    formula="as sari, but an empty text has one empty word, so that an empty answer adds one wrong word",
    source=f"{SOURCE}: 20Minuten; metric sari of datasets and evaluate",
    blanks=True,
)
def _sari(row: Answer) -> float:
    return sari(row.source, row.prediction, row.accepted, empty_word=True)
