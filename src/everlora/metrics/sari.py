r"""Computes SARI (Xu et al., TACL 2016): how well a simplification keeps, adds and deletes.

For n-grams of order n = 1..4, with S source, O answer, and R the references taken together (S and O are counted once
per reference, so that counts compare):

    keep    K = S ∩ O, precision mean over g in K of #(K ∩ R)(g) / #K(g), recall Σ #(K ∩ R) / Σ #(S ∩ R)
    delete  D = S \ O, precision mean over g in D of #(D \ R)(g) / #D(g); no recall, for deleting all would pay
    add     A = set(O) \ set(S), precision |A ∩ R| / |A|, recall |A ∩ R| / |set(R) \ set(S)|

    SARI = 100 · (F_keep + F_add + P_delete) / 3, each the mean over n; an empty denominator counts 1.

What we do differently. The authors' first script did not divide the recall of `keep` by counts; we do, as the paper
says and as later implementations do; the test pins the value that those publish for their example. Where an n-gram
stands twice in the source and once in answer and reference, the paper calls the second one rightly deleted (it takes
D ∩ (S \ R)); we follow the implementations, with which published numbers were made, and take D \ R. Tokens are those
of BLEU's tokeniser 13a, in lower case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

ORDERS = (1, 2, 3, 4)
Grams = Counter[tuple[str, ...]]


def sari(source: str, answer: str, references: Sequence[str], *, empty_word: bool = False) -> float:
    """Return SARI of one answer, 0 to 100.

    Args:
        source: the text that was to be simplified.
        answer: what came of it.
        references: right answers.
        empty_word: whether a text without words has one empty word, as in the metric of datasets and evaluate.
    """
    texts = [words(text) or [""] * empty_word for text in (source, answer, *references)]
    per_order = [_operations([_grams(text, n) for text in texts]) for n in ORDERS]
    return 100.0 * sum(map(sum, per_order)) / (3 * len(ORDERS))


def words(text: str) -> list[str]:
    """Return tokens in lower case."""
    split: list[str] = _tokeniser()(text.lower()).split()
    return split


@cache
def _tokeniser() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    make: Any = Tokenizer13a
    return make()


def _grams(tokens: Sequence[str], n: int) -> Grams:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _operations(texts: Sequence[Grams]) -> tuple[float, float, float]:
    """Return F of keeping, F of adding, and precision of deleting, for one order of n-grams."""
    source, answer, *references = texts
    s, o = (Counter({g: c * len(references) for g, c in text.items()}) for text in (source, answer))
    r: Grams = sum(references, Counter())
    kept, gone, new = s & o, s - o, set(o) - set(s)
    wanted = set(r) - set(s)
    keep = _f(_share(kept, kept & r), _ratio((kept & r).total(), (s & r).total()))
    add = _f(_ratio(len(new & set(r)), len(new)), _ratio(len(new & set(r)), len(wanted)))
    return keep, add, _share(gone, gone - r)


def _share(all_of_them: Grams, good: Grams) -> float:
    return _ratio(sum(good[g] / all_of_them[g] for g in all_of_them), len(all_of_them))


def _ratio(part: float, total: float) -> float:
    return part / total if total else 1.0


def _f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
