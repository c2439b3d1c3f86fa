"""General ability: what its numbers mean, and what they must not depend on."""

from __future__ import annotations

import json
import sys
import types
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_runs
from everlora.core.errors import ConfigError, DataError
from everlora.evaluation.general import builtin, general_ability, harness
from everlora.evaluation.general.passages import PASSAGES
from everlora.evaluation.general.questions import QUESTIONS
from everlora.metrics import References, matrix_metrics
from everlora.metrics.matrix import measured
from everlora.metrics.scores import ScoreMatrix
from everlora.settings.spec import EvalSpec, check

WRITERS = ("tiny-llama", "tiny-t5")
PAIRS = [
    ("The red house", "stands by the river"),
    ("A dog", "sleeps"),
    ("It is said that", "bees never get lost at all"),
]


def alike(loaded):
    """Make a model say of every token that it is as likely as any other."""
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.zero_()
    return loaded


@pytest.mark.parametrize("model", WRITERS)
def test_a_model_that_finds_all_tokens_alike_has_the_perplexity_of_its_vocabulary(model):
    loaded = alike(tiny_runs.fresh(model))
    found = builtin.likelihoods(loaded.model, loaded.family, PAIRS)
    vocabulary = loaded.model.config.vocab_size
    expected = [-size * torch.tensor(float(vocabulary)).log().item() for size in found[1]]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert builtin.measure(loaded.model, loaded.family)["perplexity"] == pytest.approx(vocabulary, rel=1e-4)


@pytest.mark.parametrize("model", WRITERS)
def test_likelihoods_do_not_depend_on_what_is_asked_beside_them(model):
    loaded = tiny_runs.fresh(model)
    loaded.model.eval()
    together, _ = builtin.likelihoods(loaded.model, loaded.family, PAIRS)
    alone = torch.cat([builtin.likelihoods(loaded.model, loaded.family, [pair])[0] for pair in PAIRS])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_decoders_likelihood_is_the_sum_of_its_log_probabilities():
    loaded = tiny_runs.fresh("tiny-llama")
    model, words = loaded.model.eval(), loaded.family.processor
    before, text = PAIRS[0]
    prompt = words(before, add_special_tokens=False).input_ids
    answer = words(f" {text}", add_special_tokens=False).input_ids
    start = loaded.family.prompter.start
    ids = torch.tensor([[*start, *prompt, *answer]])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(start) + len(prompt)
    by_hand = sum(float(logs[first + k - 1, token]) for k, token in enumerate(answer))
    found, sizes = builtin.likelihoods(model, loaded.family, [PAIRS[0]])
    assert float(found[0]) == pytest.approx(by_hand, abs=1e-4)
    assert sizes == [len(answer)]


def test_measuring_changes_nothing_and_says_the_same_again():
    loaded = tiny_runs.fresh("tiny-llama")
    loaded.model.train()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    first = builtin.measure(loaded.model, loaded.family)
    assert builtin.measure(loaded.model, loaded.family) == first
    assert loaded.model.training
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


@given(st.lists(st.integers(-3, 0).map(float), min_size=2, max_size=5))
def test_credits_of_all_places_sum_to_one(scores):
    places = [builtin.credit([scores[k], *scores[:k], *scores[k + 1 :]]) for k in range(len(scores))]
    assert sum(places) == pytest.approx(1)
    assert Counter(credit > 0 for credit in places)[True] == scores.count(max(scores))


def test_the_built_in_sets_are_well_formed():
    assert len(QUESTIONS) == 48
    assert len({question for question, _ in QUESTIONS}) == 48
    for question, options in QUESTIONS:
        assert len(options) == len(set(options)) == 4, question
        assert not any(option.lower() in question.lower().split() for option in options), question
    texts = [half for pair in PASSAGES for half in pair]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("model", WRITERS)
def test_every_built_in_text_fits_the_smallest_context(model):
    family = tiny_runs.base(model).family
    longest = max(len(family.prompter.tokens(text)) for pair in PASSAGES for text in pair)
    assert longest < family.limits.context // 2


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-vit"])
def test_models_that_write_no_text_have_none(model):
    assert general_ability(tiny_runs.base(model), EvalSpec(general="builtin")) is None


def test_delta_and_growth_by_hand():
    matrix = ScoreMatrix(("a",), (1,), ((50.0,),))
    ends = ({"perplexity": 20.0, "probe": 60.0, "x/acc": 40.0}, {"perplexity": 25.0, "probe": 50.0, "x/acc": 46.0})
    found = measured(matrix, References(general=ends))
    assert found["general_delta"] == pytest.approx((-10 + 6) / 2)
    assert found["perplexity_growth"] == pytest.approx(25)
    assert measured(matrix, References(general=({"perplexity": 2.0}, {"perplexity": 1.0})))["general_delta"] is None
    assert {
        name for name, value in measured(matrix, References()).items() if matrix_metrics()[name].needs and value
    } == set()


def test_a_measure_that_was_not_taken_again_leaves_the_delta_undefined():
    matrix = ScoreMatrix(("a",), (1,), ((50.0,),))
    assert (
        measured(matrix, References(general=({"probe": 1.0, "x/acc": 2.0}, {"probe": 1.0})))["general_delta"] is None
    )


def test_settings_go_together():
    assert check(EvalSpec, {"general": "off"}).general is None
    assert check(EvalSpec, {"general": False}).general is None
    for wrong in ({"general": "lm-eval"}, {"general": "builtin", "general_tasks": ["piqa"]}, {"general_tasks": ["a"]}):
        with pytest.raises(ConfigError, match="general_tasks names tasks"):
            check(EvalSpec, wrong)


def test_without_the_harness_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"install everlora\[lm-eval\]; --general builtin"):
        general_ability(tiny_runs.base("tiny-llama"), EvalSpec(general="lm-eval", general_tasks=["piqa"]))


def test_the_first_known_metric_of_a_task_counts():
    found = {"alias": "piqa", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.625}
    assert harness.percent("piqa", found) == ("piqa/acc_norm", 62.5)
    assert harness.percent("gsm", {"exact_match,strict-match": 0.25})[1] == 25.0
    with pytest.raises(DataError, match="reports none of"):
        harness.percent("odd", {"word_perplexity,none": 3.0})


def test_the_harness_is_given_the_live_model_and_its_errors_are_one_line(monkeypatch):
    """What we rely on is that the live model, a copy of the tokenizer and the context get through, unharmed."""
    seen = {}

    class HFLM:
        def __init__(self, **given):
            given["pretrained"].eval()  # as the real one does
            given["tokenizer"].pad_token = "</s>"
            seen.update(given)

    def simple_evaluate(model, tasks, **rest):
        if "gone" in tasks:
            raise ConnectionError("no route\nto host")
        return {"results": {task: {"acc,none": 0.5} for task in tasks}}

    manager = types.SimpleNamespace(all_tasks=["piqa", "gone"])
    parts = {
        "lm_eval": {"simple_evaluate": simple_evaluate},
        "lm_eval.models": {},
        "lm_eval.models.huggingface": {"HFLM": HFLM},
        "lm_eval.tasks": {"TaskManager": lambda: manager},
    }
    for name, content in parts.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    loaded = tiny_runs.fresh("tiny-llama")
    loaded.model.train()
    run = general_ability(loaded, EvalSpec(general="lm-eval", general_tasks=["piqa"], batch_size=3))
    assert run is not None
    assert run(loaded.model) == {"piqa/acc": 50.0}
    assert seen["pretrained"] is loaded.model
    assert loaded.model.training
    assert loaded.family.processor.pad_token == "<pad>"
    assert (seen["batch_size"], seen["backend"], seen["max_length"]) == (3, "causal", loaded.family.limits.context)
    with pytest.raises(ConfigError, match="no task 'piqua'"):
        general_ability(loaded, EvalSpec(general="lm-eval", general_tasks=["piqua"]))
    with pytest.raises(ConfigError, match=r"own\.yaml: there is no such task file"):
        general_ability(loaded, EvalSpec(general="lm-eval", general_tasks=["own.yaml"]))
    gone = general_ability(loaded, EvalSpec(general="lm-eval", general_tasks=["gone"]))
    assert gone is not None
    with pytest.raises(DataError, match="cannot run gone: no route; --general builtin"):
        gone(loaded.model)


OWN_TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize("model", WRITERS)
def test_the_harness_itself_answers_a_task_file_of_ones_own(model, tmp_path):
    """Runs where everlora[lm-eval] is installed. Both choices are one text, so the first is taken, of any model."""
    pytest.importorskip("lm_eval")
    rows = [{"question": f"{n}?", "choices": ["Rome", "Rome"], "answer": n % 2} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(OWN_TASK % (tmp_path / "rows.jsonl"))
    run = general_ability(
        tiny_runs.base(model), EvalSpec(general="lm-eval", general_tasks=[str(tmp_path / "own.yaml")])
    )
    assert run is not None
    assert run(tiny_runs.base(model).model) == {"capitals/acc": 50.0}
