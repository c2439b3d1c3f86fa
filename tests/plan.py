"""Which combinations the daily run goes through; the rest of every product is marked ``full`` (`make test-all`).

A method can be wrong by itself, which shows on any family; or a kind of part can be wrong on a family, which shows
with any method of that kind. So every method goes through one family at least, and every family through one method at
least of each kind: of each role, each form of adapter, each way in which the past is carried on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest

from everlora import parse
from everlora.core.registry import FAMILIES
from tiny_runs import METHODS, MODELS, OTHERS

ROLES = ("initialiser", "penalties", "outputs", "transforms", "rehearsal", "rule", "merge")
"""The fields of `Method` that hold parts."""
Pair = tuple[str, str]
"""A method and a model."""


parsed = cache(parse)
"""Every process reads the same few names for thousands of cases."""


@cache
def kinds(method: str) -> frozenset[str]:
    """The roles that a method fills, what it trains, and how it carries the past on."""
    composed = parsed(method)
    adapter = composed.adapter
    trains = (composed.regime, adapter.form, adapter.policy, f"fixed={adapter.fixed}", composed.consolidator.rule)
    return frozenset({*trains, *(role for role in ROLES if getattr(composed, role))})


def pairs(methods: Iterable[str], models: Sequence[str] = MODELS) -> tuple[Pair, ...]:
    """Every method with every model of a family that it is made for."""
    family = dict(zip(MODELS, FAMILIES, strict=True))
    return tuple((method, model) for method in methods for model in models if family[model] in parsed(method).families)


def few(covers: dict[Any, set[Hashable]]) -> list[Any]:
    """Few of the keys, so that together they cover all that any covers; evenly over what stands last in them."""
    missing: set[Hashable] = set().union(*covers.values())
    chosen: list[Any] = []
    while missing:
        often = Counter(key[-1] for key in chosen)
        best = max(covers, key=lambda key: (len(covers[key] & missing), -often[key[-1]]))  # the first of equals
        missing -= covers[best]
        chosen.append(best)
    return chosen


@cache
def daily(candidates: tuple[Pair, ...]) -> frozenset[Pair]:
    """The pairs of the daily run: each method, and each of the kinds on each of the models."""
    return frozenset(few({(m, model): {m, *((kind, model) for kind in kinds(m))} for m, model in candidates}))


DAILY = daily(pairs(METHODS)) | daily(pairs(OTHERS))


def planned(candidates: Iterable[Pair], chosen: frozenset[Pair] = DAILY) -> list[Any]:
    """Parameters ``method, model``, one for each pair."""
    return [case(pair, pair in chosen) for pair in candidates]


def crossed(**values: Sequence[Any]) -> Callable[..., Any]:
    """Parametrise with the product of ``values``, and on every day with as few cases as show each value once."""
    rows = list(product(*values.values()))
    longest = max(map(len, values.values()))
    chosen = {tuple(row[k % len(row)] for row in values.values()) for k in range(longest)}
    return pytest.mark.parametrize(tuple(values), [case(row, row in chosen) for row in rows])


def case(row: Sequence[Any], everyday: bool) -> Any:
    """One set of parameters."""
    return pytest.param(*row, marks=() if everyday else pytest.mark.full)


ONE_OF: dict[str, int] = {
    "test_merged.py::test_resumed_in_the_third_task_equals_uninterrupted": 3,
    "test_merged.py::test_the_merge_answers_after_every_task": 2,
    "test_look_export.py::test_an_exported_model_is_the_learner": 2,
    "test_lora_settings.py::test_what_was_learned_comes_back_and_is_read_by_peft": 2,
    "test_forgetting.py::test_less_is_forgotten_than_by_seqlora_and_both_tasks_are_learned": 2,
    "test_learner_forgets.py::test_a_learner_that_is_rebuilt_was_never_taught_the_task": 2,
    "test_learner_forgets.py::test_the_update_of_a_task_is_removed_and_the_others_are_as_they_were": 2,
    "test_learner_past.py::test_a_learner_that_is_taken_back_was_never_taught_what_followed": 4,
    "test_learner_past.py::test_whatever_interrupts_it_the_past_is_changed_at_once": 3,
    "test_learner_verbs.py::test_taught_one_by_one_equals_following_them_all": 3,
    "test_light.py::test_ctrl_c_while_things_are_imported_is_one_line": 2,
    "test_torture.py::test_a_fault_leaves_a_folder_that_goes_on": 2,
    "test_pooled_card.py::test_the_lines_of_the_card_give_the_learners_answers": 3,
    "test_process.py::test_a_stopped_run_keeps_what_it_learned_and_goes_on": 2,
    "test_scored_later.py::test_only_the_scores_are_made_again": 3,
    "test_memory.py::test_kept_over_many_tasks": 3,
    "test_memory.py::test_the_cards_law_in_bytes": 2,
    "test_chain_parts.py::test_no_share_is_no_penalty_bit_for_bit": 2,
    "test_general.py::test_every_form_is_measured_before_and_after": 2,
    "test_splits.py::test_every_method_learns_the_same_in_one_piece_and_in_eight": 3,
    "test_heads.py::test_rows_of_other_labels_stay": 3,
    "test_oracle.py::test_settings_of_a_checkpoint_do_not_change_what_is_greedy": 2,
    "test_resume.py::test_a_finished_run_is_only_recalled": 2,
    "test_settings.py::test_a_damaged_learner_at_the_root_is_named": 2,
    "test_builtin.py::test_more_training_rows_change_nothing_else": 2,
    "test_conv1d.py::test_a_run_its_resumption_and_its_export_are_one_model": 3,
    "test_memory.py::test_bytes_over_fifty_tasks": 2,
    "test_chain_parts.py::test_a_warning_comes_before_the_room_runs_out": 2,
    "test_resume.py::test_interrupted_and_resumed_equals_uninterrupted": 3,
    "test_export.py::test_a_fresh_process_gives_the_same_logits": 3,
    "test_forms.py::test_an_unfinished_task_leaves_no_trace_and_is_learned_again": 3,
    "test_forms.py::test_a_fresh_form_changes_nothing": 3,
    "test_rehearsed.py::test_resumed_is_uninterrupted": 2,
    "test_rehearsed.py::test_replay_lowers_forgetting": 3,
    "test_learner_past.py::test_a_compacted_learner_answers_with_the_nearest_update_and_learns_on": 3,
    "test_look_export.py::test_an_exported_adapter_loses_what_it_says": 3,
    "test_splits.py::test_pools_of_data_differ_by_the_rounding_that_adamw_makes_steps_of": 4,
    "test_splits.py::test_lambda_means_the_same_under_plain_sgd": 2,
    "test_checkpoint.py::test_it_ends_as_if_nothing_had_been": 3,
    "test_masked.py::test_tau_zero_is_the_host_bit_for_bit": 3,
    "test_masked.py::test_the_masks_are_the_same_for_every_split_of_a_batch": 2,
    "test_lwf_runs.py::test_beta_zero_is_seqlora_and_the_first_task_always": 4,
    "test_lwf_runs.py::test_one_piece_or_eight": 2,
    "test_ewc_runs.py::test_a_strong_pull_holds_and_a_resumed_run_is_the_same": 2,
    "test_ewc_runs.py::test_strength_zero_is_seqft_bit_for_bit": 2,
    "test_full.py::test_one_piece_or_eight": 2,
    "test_kif.py::test_the_first_task_and_ratio_zero_are_sequential_lora": 2,
    "test_prompted.py::test_a_resumed_run_equals_an_uninterrupted_one": 2,
    "test_prompted.py::test_an_unfinished_task_leaves_no_trace": 2,
    "test_upper_layers.py::test_a_run_that_goes_on_equals_one_that_was_not_cut": 2,
    "test_upper_layers.py::test_a_run_equals_the_one_that_computes_all_layers_at_every_step": 2,
    "test_upper_layers.py::test_a_folder_of_features_changes_no_bit": 3,
    "test_browser.py::test_everything_is_drawn_and_nothing_is_fetched": 2,
    "test_look_export.py::test_the_card_of_an_export_says_what_it_is_and_how_it_is_loaded": 2,
    "test_significance.py::test_of_methods_that_are_alike_one_is_told_from_the_best_in_5_percent_of_tables_at_most": 2,
    "test_look.py::test_every_kind_of_method_can_be_looked_at": 2,
}
"""Tests whose cases prove the same of different methods and moments: of so many of them one runs every day."""


def thin(items: Sequence[pytest.Item]) -> None:
    """Mark the cases that `ONE_OF` leaves out of the daily run, counted in the order in which they are written."""
    seen: Counter[str] = Counter()
    for item in items:
        name = f"{item.path.name}::{item.nodeid.rpartition('::')[2].partition('[')[0]}"
        if name in ONE_OF and item.get_closest_marker("full") is None:
            if seen[name] % ONE_OF[name]:
                item.add_marker(pytest.mark.full)
            seen[name] += 1
