"""A benchmark of three known tasks in an order of its own, and a metric of answers: one file outside the package.

    everlora run --plugin examples/my_benchmark.py --benchmark my-three --data-dir FOLDER ...
    everlora run --plugin examples/my_benchmark.py --metric token_f1 ...

A benchmark of known tasks needs no code: a YAML file with ``title`` and ``orders`` is one (``--benchmark my.yaml``).

Token F1 is how SQuAD scores answers. With P the tokens of the prediction and T those of the target, with their counts,

    F1 = 2 |P ∩ T| / (|P| + |T|),

the best over the accepted answers; 100 where both have no token.
"""

from collections import Counter

from everlora import benchmark, load_known, metric, normalise


@benchmark(
    "my-three",
    title="Three tasks of the long sequence, from topics to opinions",
    orders={1: "agnews imdb boolqa", 2: "boolqa imdb agnews"},
    aliases={2: ["my-three-reversed"]},
)
def my_three(request):
    """Read the rows as the benchmark reads them that defines the tasks."""
    return load_known(request)


@metric(
    "token_f1",
    formula="F1 of the tokens of answer and target, normalised as for exact_match, best accepted answer",
    source="Rajpurkar et al. 2016 (SQuAD), without taking out articles",
)
def token_f1(answer):
    """Score one answer, 0 to 100."""
    return max(_f1(normalise(answer.prediction).split(), normalise(target).split()) for target in answer.accepted)


def _f1(found, wanted):
    if not found and not wanted:
        return 100.0
    common = (Counter(found) & Counter(wanted)).total()
    return 200.0 * common / (len(found) + len(wanted))
