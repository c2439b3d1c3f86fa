"""How many rows the benchmarks have as they are published; the rows at hand may be fewer.

Counted in O-LoRA's and TRACE's repositories; TRACE's authors give 5,000 training and 2,000 test rows for every task,
but four of their test files were counted to be of other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, tuple[int | None, int | None]] = {
    "dbpedia": (14_000, 7_600),
    "yahoo": (10_000, 7_600),
    "agnews": (4_000, 7_600),
    "amazon": (5_000, 7_600),
    "yelp": (5_000, 7_600),
    "imdb": (2_000, 7_600),
    "sst2": (2_000, 872),
    "mnli": (3_000, 7_600),
    "cb": (250, 56),
    "rte": (2_000, 277),
    "qqp": (2_000, 7_600),
    "boolqa": (2_000, 3_270),
    "multirc": (2_000, 4_848),
    "wic": (2_000, 638),
    "copa": (400, 100),
    "C-STANCE": (5_000, 2_000),
    "FOMC": (5_000, 496),
    "MeetingBank": (5_000, None),
    "Py150": (5_000, None),
    "ScienceQA": (5_000, 2_000),
    "NumGLUE-cm": (5_000, 81),
    "NumGLUE-ds": (5_000, 325),
    "20Minuten": (5_000, 200),
}
"""Rows of train and test by task; None where nobody has counted them."""
