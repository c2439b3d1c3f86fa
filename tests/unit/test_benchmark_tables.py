"""What the packaged YAML says, against tables that were typed a second time, after the papers and their scripts.

Any two tasks that change places in an order, the metric of a task, a label's name or its number in a hub table: each
is a fault that no other test can see, since everything else is made from the same YAML.
"""

from __future__ import annotations

import pytest

from everlora.benchmarks import find_benchmark
from everlora.benchmarks.standard_hub import place_of
from everlora.data.stream import hash_of_list

# O-LoRA (Wang et al. 2023), table of task sequences in the appendix, as the papers spell the tasks; TRACE (Wang et al.
# 2023), section on the sequence; SAPT (Zhao et al. 2024), appendix: the two orders of SuperNI by number of task.
PAPERS = {
    ("standard", 1): "DBpedia → Amazon → Yahoo → AG News",
    ("standard", 2): "DBpedia → Amazon → AG News → Yahoo",
    ("standard", 3): "Yahoo → Amazon → AG News → DBpedia",
    (
        "long",
        4,
    ): "MNLI → CB → WiC → COPA → QQP → BoolQA → RTE → IMDB → Yelp → Amazon → SST-2 → DBpedia → AG News → "
    "MultiRC → Yahoo",
    (
        "long",
        5,
    ): "MultiRC → BoolQA → WiC → MNLI → CB → COPA → QQP → RTE → IMDB → SST-2 → DBpedia → AG News → Yelp → "
    "Amazon → Yahoo",
    ("long", 6): "Yelp → Amazon → MNLI → CB → COPA → QQP → RTE → IMDB → SST-2 → DBpedia → AG News → Yahoo → MultiRC → "
    "BoolQA → WiC",
    ("trace", 7): "C-STANCE → FOMC → MeetingBank → Py150 → ScienceQA → NumGLUE-cm → NumGLUE-ds → 20Minuten",
    ("superni", 1): "1572 → 363 → 1290 → 181 → 002 → 1510 → 639 → 1729 → 073 → 1590 → 748 → 511 → 591 → 1687 → 875",
    ("superni", 2): "748 → 073 → 1590 → 639 → 1572 → 1687 → 591 → 363 → 1510 → 1729 → 181 → 511 → 002 → 1290 → 875",
}
HASHES = {
    ("standard", 1): "16875d890192",
    ("standard", 2): "2f530c005d9e",
    ("standard", 3): "06dab337cc9d",
    ("long", 4): "8176123a5c0f",
    ("long", 5): "2ad95f367896",
    ("long", 6): "01d000f3eef2",
    ("trace", 7): "7a8cbca6bec4",
    ("superni", 1): "006fb3ba08ad",
    ("superni", 2): "03172d283d48",
}
"""Of the lists, as `everlora benchmarks NAME` prints them: what tells apart orders of one number in several papers."""


def in_the_paper(benchmark: str, task: str) -> str:
    """A task's name as the paper's table has it."""
    if benchmark == "superni":
        return task.removeprefix("task").partition("_")[0]
    spelled = {"boolqa": "BoolQA", "sst2": "SST-2", "agnews": "AG News", "dbpedia": "DBpedia", "multirc": "MultiRC"}
    if benchmark == "trace":
        return task
    capitals = {"mnli", "cb", "copa", "qqp", "rte", "imdb"}
    return spelled.get(task) or ("WiC" if task == "wic" else task.upper() if task in capitals else task.title())


@pytest.mark.parametrize(("benchmark", "number"), PAPERS)
def test_an_order_is_the_papers(benchmark: str, number: int) -> None:
    names = find_benchmark(benchmark).orders[number]
    assert " → ".join(in_the_paper(benchmark, name) for name in names) == PAPERS[benchmark, number]
    assert hash_of_list(names) == HASHES[benchmark, number]


def test_there_are_no_other_orders_of_text_benchmarks() -> None:
    numbers = {
        (name, number) for name in ("standard", "long", "trace", "superni") for number in find_benchmark(name).orders
    }
    assert numbers == set(PAPERS) == set(HASHES)


def test_the_names_of_superni_are_those_of_its_repository() -> None:
    """Natural Instructions v2 names its files so: ``task<number>_<source>_<what is done>.json``."""
    assert set(find_benchmark("superni").tasks) == {
        "task002_quoref_answer_generation",
        "task073_commonsenseqa_answer_generation",
        "task1290_xsum_summarization",
        "task1510_evalution_relation_extraction",
        "task1572_samsum_summary",
        "task1590_diplomacy_text_generation",
        "task1687_sentiment140_classification",
        "task1729_personachat_generate_next",
        "task181_outcome_extraction",
        "task363_sst2_polarity_classification",
        "task511_reddit_tifu_long_text_summarization",
        "task591_sciq_answer_generation",
        "task639_multi_woz_user_utterance_generation",
        "task748_glucose_reverse_cause_event_detection",
        "task875_emotion_classification",
    }


# --- aliases ---------------------------------------------------------------------------------------------------------

AGREEING = ("o-lora", "migu", "data", "n-lora", "kif", "lb-cl", "ella")
ALIASES = {
    "standard": {
        **{f"{paper}-{n}": n for paper in AGREEING for n in (1, 2, 3)},
        **{f"lfpt5-order{n}": n for n in (1, 2, 3)},
    },
    "long": {
        **{f"{paper}-{n}": n for paper in AGREEING for n in (4, 5, 6)},
        **{"lnt-order1": 4, "lnt-order2": 5, "lnt-order3": 6},
        **{"sapt-4": 6, "sapt-5": 4, "gainlora-3": 6, "gainlora-4": 4},
    },
    "trace": {"data-7": 7, "ella-7": 7},
    "superni": {"sapt-1": 1, "sapt-2": 2, "gainlora-1": 1, "gainlora-2": 2},
}


@pytest.mark.parametrize("benchmark", ALIASES)
def test_aliases_are_the_papers(benchmark: str) -> None:
    """Papers agree on orders 1 to 6; SAPT and GainLoRA count on from SuperNI's two, EasyCL each benchmark from 1."""
    assert dict(find_benchmark(benchmark).aliases) == ALIASES[benchmark]


# --- metrics ---------------------------------------------------------------------------------------------------------

TRACE = {  # TRACE (Wang et al. 2023), table of data sets, and the scripts that score them
    "C-STANCE": "exact_match_trace",
    "FOMC": "exact_match_trace",
    "MeetingBank": "rouge_l_trace",
    "Py150": "edit_similarity_trace",
    "ScienceQA": "first_character_trace",
    "NumGLUE-cm": "exact_match_trace",
    "NumGLUE-ds": "exact_match_trace",
    "20Minuten": "sari_trace",
}


def test_every_task_has_the_metric_of_its_benchmark() -> None:
    trace, superni = find_benchmark("trace"), find_benchmark("superni")
    assert {name: trace.task(name).metric for name in trace.tasks} == TRACE
    # ROUGE-L of stems is how Super-NaturalInstructions (Wang et al. 2022) and SAPT score all of them.
    assert {superni.task(name).metric for name in superni.tasks} == {"rouge_l_stemmed"}
    for name in ("standard", "long"):
        known = find_benchmark(name)
        assert {known.task(task).metric for task in known.tasks} == {"exact_match"}


def test_the_closed_sets_of_trace() -> None:
    trace = find_benchmark("trace")
    closed = {name: trace.task(name).labels for name in trace.tasks if trace.task(name).labels}
    assert closed == {"C-STANCE": ("A", "B", "C"), "FOMC": ("A", "B", "C")}


# --- labels ----------------------------------------------------------------------------------------------------------

LABELS = {  # labels.json of each task in O-LoRA's CL_Benchmark, in that order
    "dbpedia": "Company|Educational Institution|Artist|Athlete|Office Holder|Mean of Transportation|Building|"
    "Natural Place|Village|Animal|Plant|Album|Film|Written Work",
    "amazon": "very negative|negative|neutral|positive|very positive",
    "yahoo": "Society & Culture|Science & Mathematics|Health|Education & Reference|Computers & Internet|Sports|"
    "Business & Finance|Entertainment & Music|Family & Relationships|Politics & Government",
    "agnews": "World|Sports|Business|Science or Technology",
    "yelp": "very negative|negative|neutral|positive|very positive",
    "imdb": "Good|Bad",
    "sst2": "Good|Bad",
    "mnli": "neutral|entailment|contradiction",
    "cb": "entailment|contradiction|neutral",
    "rte": "contradiction|entailment",
    "qqp": "False|True",
    "boolqa": "True|False",
    "multirc": "False|True",
    "wic": "True|False",
    "copa": "A|B",
}
STARS = {1: "very negative", 2: "negative", 3: "neutral", 4: "positive", 5: "very positive"}
NUMBERS = {
    # Zhang et al. 2015, classes.txt of each set (numbered from 1 there, from 0 on the hub).
    "dbpedia": dict(enumerate(LABELS["dbpedia"].split("|"))),
    "yahoo": dict(enumerate(LABELS["yahoo"].split("|"))),
    "agnews": {0: "World", 1: "Sports", 2: "Business", 3: "Science or Technology"},
    "amazon": STARS,  # class_index: the stars themselves
    "yelp": {stars - 1: name for stars, name in STARS.items()},
    # The feature `label` of each data set on the hub.
    "imdb": {0: "Bad", 1: "Good"},  # neg, pos
    "sst2": {0: "Bad", 1: "Good"},  # negative, positive
    "mnli": {0: "entailment", 1: "neutral", 2: "contradiction"},
    "rte": {0: "entailment", 1: "contradiction"},  # entailment, not_entailment
    "qqp": {0: "False", 1: "True"},  # not_duplicate, duplicate
    "cb": {0: "entailment", 1: "contradiction", 2: "neutral"},
    "boolqa": {0: "False", 1: "True"},
    "multirc": {0: "False", 1: "True"},
    "wic": {0: "False", 1: "True"},
}
AMAZON = "yassiracharki/Amazon_Reviews_for_Sentiment_Analysis_fine_grained_5_classes"
PLACES = {  # data set, configuration, column of the label, split that is tested on
    "dbpedia": ("fancyzhx/dbpedia_14", None, "label", "test"),
    "amazon": (
        "yassiracharki/Amazon_Reviews_for_Sentiment_Analysis_fine_grained_5_classes",
        None,
        "class_index",
        "test",
    ),
    "yahoo": ("community-datasets/yahoo_answers_topics", None, "topic", "test"),
    "agnews": ("fancyzhx/ag_news", None, "label", "test"),
    "yelp": ("Yelp/yelp_review_full", None, "label", "test"),
    "imdb": ("stanfordnlp/imdb", None, "label", "test"),
    "sst2": ("nyu-mll/glue", "sst2", "label", "validation"),
    "mnli": ("nyu-mll/glue", "mnli", "label", "validation_matched"),
    "rte": ("nyu-mll/glue", "rte", "label", "validation"),
    "qqp": ("nyu-mll/glue", "qqp", "label", "validation"),
    "cb": ("aps/super_glue", "cb", "label", "validation"),
    "boolqa": ("aps/super_glue", "boolq", "label", "validation"),
    "multirc": ("aps/super_glue", "multirc", "label", "validation"),
    "wic": ("aps/super_glue", "wic", "label", "validation"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_stand_in_the_order_of_the_published_files(name: str) -> None:
    assert "|".join(find_benchmark("long").task(name).labels) == LABELS[name]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_labels_on_the_hub(name: str) -> None:
    place = place_of(find_benchmark("long").task(name))
    assert dict(enumerate(place.names, start=place.first)) == NUMBERS[name]
    assert (place.path, place.config, place.label_column, place.test) == PLACES[name]


def test_every_task_but_copa_has_a_place_on_the_hub() -> None:
    long = find_benchmark("long")
    assert (
        {name for name in long.tasks if long.task(name).hub} == set(NUMBERS) == set(PLACES) == set(LABELS) - {"copa"}
    )


FIELDS = {  # the lines of a text, as O-LoRA's files have them: name of the line, column on the hub
    "dbpedia": "Title: title, Text: content",
    "amazon": "Title: review_title, Text: review_text",
    "yahoo": "Title: question_title, Question: question_content, Answer: best_answer",
    "agnews": "Text: text",
    "yelp": "Text: text",
    "imdb": ": text",
    "sst2": "Text: sentence",
    "mnli": "sentence 1: premise, sentence 2: hypothesis",
    "rte": "sentence 1: sentence1, sentence 2: sentence2",
    "qqp": "first sentence: question1, second sentence: question2",
    "cb": "sentence 1: premise, sentence 2: hypothesis",
    "boolqa": "question: question, passage: passage",
    "multirc": "paragraph: paragraph, question: question, candidate answer: answer",
    "wic": "word: word, : sentence1, : sentence2",
}


@pytest.mark.parametrize("name", FIELDS)
def test_lines_of_texts_from_the_hub(name: str) -> None:
    place = place_of(find_benchmark("long").task(name))
    assert ", ".join(f"{line}: {column}" for line, column in place.fields) == FIELDS[name]


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    """Rows of train and test, counted in O-LoRA's and TRACE's repositories; None where nobody has counted them."""
    long, trace = find_benchmark("long"), find_benchmark("trace")
    found = {name: long.task(name).published for name in long.tasks}
    found |= {name: trace.task(name).published for name in trace.tasks}
    assert found == {
        "dbpedia": (14_000, 7_600), "yahoo": (10_000, 7_600), "agnews": (4_000, 7_600), "amazon": (5_000, 7_600),
        "yelp": (5_000, 7_600), "imdb": (2_000, 7_600), "sst2": (2_000, 872), "mnli": (3_000, 7_600),
        "cb": (250, 56), "rte": (2_000, 277), "qqp": (2_000, 7_600), "boolqa": (2_000, 3_270),
        "multirc": (2_000, 4_848), "wic": (2_000, 638), "copa": (400, 100), "C-STANCE": (5_000, 2_000),
        "FOMC": (5_000, 496), "MeetingBank": (5_000, None), "Py150": (5_000, None), "ScienceQA": (5_000, 2_000),
        "NumGLUE-cm": (5_000, 81), "NumGLUE-ds": (5_000, 325), "20Minuten": (5_000, 200),
    }  # fmt: skip


# --- pictures --------------------------------------------------------------------------------------------------------

CUTS = {  # classes, tasks, orders; the data set on the hub
    "vision-digits": (10, 5, [1], None),
    "vision-mnist": (10, 5, [1], "ylecun/mnist"),
    "vision-cifar100": (100, 10, [1, 1993], "uoft-cs/cifar100"),
    "vision-imagenet-r": (200, 10, [1, 1993], "axiong/imagenet-r"),
    "vision-imagenet-r-5": (200, 5, [1, 1993], "axiong/imagenet-r"),
    "vision-imagenet-r-20": (200, 20, [1, 1993], "axiong/imagenet-r"),
    "vision-domainnet": (345, 5, [1, 1993], "wltjr1007/DomainNet"),
}


@pytest.mark.parametrize("name", CUTS)
def test_cuts_of_picture_sets(name: str) -> None:
    known = find_benchmark(name)
    classes, tasks, orders, path = CUTS[name]
    assert (known.classes, list(known.orders), known.options.get("hub", {}).get("path")) == (classes, orders, path)
    for number, word in zip(orders, ("split", "permuted"), strict=False):
        assert known.orders[number] == tuple(f"{word}-{k:02d}" for k in range(1, tasks + 1))
    assert classes % tasks == 0
    assert known.options.get("most") == (200 if name == "vision-domainnet" else None)
