"""Equal budgets, and what a table of tuned systems does to a sweep."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import everlora.methods  # noqa: F401  # registers them
from everlora.core.errors import ConfigError
from everlora.core.expressions import parse
from everlora.learner import sweep, tune, tuned, workers
from everlora.learner.resolve import resolve
from everlora.learner.tune import HIGHEST, LOWEST, Trial, trials_of
from everlora.settings.spec import RunSpec

SMALL = {"model": "tiny-bert", "benchmark": "builtin", "tasks": ["reviews"], "max_train_samples": 8}


@pytest.mark.parametrize("system", ["inclora", "ella", "o-lora", "kfac", "ps-lora+kfac", "lb-cl", "ella(rho=0.2)"])
@pytest.mark.parametrize("budget", [2, 6, 7, 8, 9])
def test_every_system_has_as_many_trials_from_one_range_of_rates(system: str, budget: int) -> None:
    trials = trials_of(system, budget)
    assert len(trials) == len(set(trials))
    assert len(trials) == budget
    form = parse(system).adapter.learning_rate
    for trial in trials:
        parse(trial.method)
        assert form * LOWEST < trial.rate < form * HIGHEST


def test_few_trials_are_from_all_over_the_list_of_options() -> None:
    """Nine combinations and six trials: no value of an option stays untried; of a last rate the middle one."""
    tried = [tuned.system_of(trial.method) for trial in trials_of("kfac+ella", 6)]
    for index, values in ((0, {"1e-4", "3e-4", "1e-3"}), (1, {"0.03", "0.1", "0.3"})):
        found = {value for one in tried for _, value in one[index][1]}
        assert len(found) == len(values)
    assert [trial.method for trial in trials_of("ella", 4)][-1] == "ella(rho=0.1)"
    assert [trial.method for trial in trials_of("ella", 2)] == ["ella(rho=0.03)", "ella(rho=0.1)"]


@pytest.mark.parametrize("typed", ["ella( )", "ella(policy=continue,)", "ella(policy = continue , )"])
def test_trials_are_spelt_in_one_way_however_the_system_was_typed(typed: str) -> None:
    given = "policy=continue," if "policy" in typed else ""
    assert {trial.method for trial in trials_of(typed, 3, rate=0.01)} == {
        f"ella({given}rho={rho})" for rho in (0.03, 0.1, 0.3)
    }


def test_options_that_are_given_are_not_searched() -> None:
    assert {trial.method for trial in trials_of("ella(rho=0.2)", 6)} == {"ella(rho=0.2)"}
    assert len({trial.method for trial in trials_of("ella", 6)}) == 3
    assert {trial.rate for trial in trials_of("ella", 6, rate=0.0123456)} == {0.0123456}
    assert trials_of("inclora", 6, rate=0.005) == [Trial(system="inclora", method="inclora", rate=0.005)]


@pytest.mark.parametrize("system", ["ella(lam=0.3)", "decay(lam=0.1)", "decay(rho = 0.1)", "ps-lora(lam = 1)"])
def test_what_is_no_choice_beside_given_options_is_not_searched(system: str) -> None:
    """Where λ is given there is no share by which to find it; blanks are of no matter."""
    trials = trials_of(system, 6)
    assert {trial.method for trial in trials} == {system.replace(" ", "")}
    assert len({trial.rate for trial in trials}) == 6
    assert len({trial.method for trial in trials_of("ella(lam=auto)", 6)}) == 3


def test_a_search_leaves_what_others_found(tmp_path: Path) -> None:
    first = [
        Trial(system="ella", method="ella(rho=0.1)", rate=0.001, scores=(50.0,)),
        Trial(system="ella", method="ella(rho=0.3)", rate=0.001, scores=(60.0,)),
        Trial(system="inclora", method="inclora", rate=0.002, scores=(40.0,)),
    ]
    tune.write(tmp_path, first, "everlora tune --methods ella,inclora")
    table = tmp_path / tune.TABLE
    rows, trials = tune.kept(tmp_path)
    assert (list(rows), trials) == (["ella", "inclora"], first)
    # Nothing was scored: neither the table nor what was scored before is less than it was.
    before = table.read_text()
    assert tune.write(tmp_path, [replace(one, scores=()) for one in first[:2]], "everlora tune --methods ella") == {}
    assert (table.read_text(), tune.kept(tmp_path)[1]) == (before, first)
    # One system again, in another spelling, and one that is new: what an earlier search found counts with it.
    second = [
        Trial(system="ella()", method="ella(rho=0.1)", rate=0.001, scores=(55.0,)),
        Trial(system="decay", method="decay(rho=0.1)", rate=0.001, scores=(30.0,)),
    ]
    assert set(tune.write(tmp_path, second, "everlora tune --methods ella(),decay")) == {"ella()", "decay"}
    rows, trials = tune.kept(tmp_path)
    assert {name: row["dev"] for name, row in rows.items()} == {"inclora": 40.0, "ella()": 60.0, "decay": 30.0}
    assert (rows["ella()"]["method"], rows["ella()"]["trials"]) == ("ella(rho=0.3)", 2)
    assert trials == [second[0], *first[1:], second[1]]
    head = [line for line in table.read_text().splitlines() if line.startswith("#")]
    assert [line.rpartition(": ")[2] for line in head] == [
        "everlora tune --methods ella,inclora",
        "everlora tune --methods ella(),decay",
    ]


def test_a_command_of_several_lines_is_one_line_of_the_table(tmp_path: Path) -> None:
    trial = Trial(system="ella", method="ella(rho=0.1)", rate=0.001, scores=(50.0,))
    for _ in range(2):
        tune.write(tmp_path, [trial], "everlora tune --methods 'ella,\n  decay'")
    assert (tmp_path / tune.TABLE).read_text().splitlines()[1] == "systems:"
    assert list(tuned.read_tuned(tmp_path / tune.TABLE)) == ["ella"]


def test_scores_under_other_settings_are_not_put_into_one_table(tmp_path: Path) -> None:
    def todo(seeds: list[int], **more: object) -> dict[Trial, list[sweep.Job]]:
        return tune.tuning_jobs([{**SMALL, **more}], trials_of("ella", 3), seeds, tmp_path, [])

    first = todo([100])
    tune.write(tmp_path, [replace(one, scores=(50.0,)) for one in tune.measured(first)], "everlora tune")
    tune.check_same_search(tmp_path, first)
    higher = tune.tuning_jobs([SMALL], trials_of("decay", 3, rate=0.02), [100], tmp_path / "elsewhere", [])
    tune.check_same_search(tmp_path, higher)
    for other in (todo([101]), todo([100], max_train_samples=9), todo([100], tasks=["news"])):
        with pytest.raises(ConfigError, match=r"holds trials of ella with other data.*another --out"):
            tune.check_same_search(tmp_path, other)


def test_without_a_score_there_is_no_table(tmp_path: Path) -> None:
    trials = [Trial(system="ella", method="ella(rho=0.1)", rate=0.001)]
    assert tune.write(tmp_path, trials, "everlora tune") == {}
    assert not (tmp_path / tune.TABLE).exists()
    assert tune.kept(tmp_path) == ({}, trials)
    for text in ("{", "3", '["x"]', '[{"system": "ella"}]'):
        (tmp_path / tune.TRIALS).write_text(text)
        with pytest.raises(ConfigError, match=r"cannot read the trials in .*move it away"):
            tune.kept(tmp_path)


def test_no_trial_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one trial"):
        trials_of("ella", 0)


def test_the_best_by_dev_rows_is_what_a_sweep_takes(tmp_path: Path) -> None:
    trials = [
        Trial(system="ella", method="ella(rho=0.1)", rate=0.001, scores=(50.0, 60.0)),
        Trial(system="ella", method="ella(rho=0.3)", rate=0.004, scores=(70.0, 50.0)),
        Trial(system="ella", method="ella(rho=1)", rate=0.004),
        Trial(system="inclora", method="inclora", rate=0.002, scores=(40.0, 40.0)),
    ]
    best = tune.write(tmp_path, trials, "everlora tune")
    assert best["ella"].method == "ella(rho=0.3)"
    found_before = tuned.read_tuned(tmp_path / tune.TABLE)
    jobs = sweep.jobs([SMALL], ["ella", "inclora", "seqlora"], [0], tmp_path, orders=[1], tuned=found_before)
    found = {job.name: (job.spec.method, job.spec.train["learning_rate"]) for job in jobs}
    assert found["ella-order1-seed0"] == ("ella(rho=0.3)", 0.004)
    assert found["inclora-order1-seed0"] == ("inclora", 0.002)
    assert found["seqlora-order1-seed0"] == ("seqlora", parse("seqlora").adapter.learning_rate)


def test_what_is_no_table_of_tuned_systems_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("model: tiny-bert\n")
    with pytest.raises(ConfigError, match="everlora tune"):
        tuned.read_tuned(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("systems: {}", "no row under systems"),
        ("systems: {decay: {}}", "system 'decay': the row is empty"),
        ("systems: {decay: }", "system 'decay': the row is empty"),
        ("systems: {decay: {trials: 6}}", "system 'decay': the row sets nothing"),
        ("systems: {decay: {trian: {learning_rate: 0.01}}}", "system 'decay': unknown key 'trian'; did you mean 'tra"),
        ("systems: {decay: {train: }}", "'train' must be a mapping"),
        ("systems: {decay: {method: 3}}", "'method' must be an expression"),
        ("systems: {decay: {method: ella(rho=1)}}", "'method' is another system"),
        ("systems: {ella(rho=0.3): {method: ella(rho=0.1)}}", "'method' is another system"),
        ("systems: {ella(rho=0.3): {method: ella}}", "'method' is another system"),
        ("systems: {decay: {method: decay}, decay(): {method: decay}}", "the row 'decay' is of the same system"),
        ("systems: {decay: {method: decay}}\ntrain: {learning_rate: 0.01}", "unknown key 'train'"),
    ],
)
def test_a_table_that_would_be_read_otherwise_than_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)) as found:
        tuned.read_tuned(table)
    assert str(table) in str(found.value)


def test_a_row_is_that_of_its_system_in_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = tuned.Tuned(method="ella(rho=0.3)", settings={"train": {"learning_rate": 0.01}})
    rows = {"ella()": row, "n-lora( lam = 0.30)": row, "of-a-plug-in": row}
    assert tuned.row_of("ella", rows) is tuned.row_of("n-lora(lam=.3)", rows) is row
    assert tuned.without_row(["ella", "ella(rho=0.3)", "n-lora", "n-lora(lam=0.3)"], rows) == [
        "ella(rho=0.3)",
        "n-lora",
    ]
    (job,) = sweep.jobs([SMALL], ["ella", "ella( )"], [0], tmp_path, tuned=rows)
    assert (job.name, job.spec.method) == ("ella-seed0", "ella(rho=0.3)")
    monkeypatch.setattr(sweep, "safe", lambda expression: "one")  # texts of plug-ins may differ in signs alone
    with pytest.raises(ConfigError, match="would go to one folder"):
        sweep.jobs([SMALL], ["ella", "decay"], [0], tmp_path)


def test_trials_are_scored_on_dev_rows_in_folders_of_their_own(tmp_path: Path) -> None:
    todo = tune.tuning_jobs([SMALL], trials_of("ella", 3), [100, 101], tmp_path, [])
    folders = [job.folder for jobs in todo.values() for job in jobs]
    assert len(folders) == len(set(folders)) == 6
    assert {job.spec.evaluation.split for jobs in todo.values() for job in jobs} == {"dev"}
    assert all(not trial.scores for trial in tune.measured(todo))


def test_a_worker_takes_no_more_threads_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread where OMP_NUM_THREADS says so, though its share of the cores were eight; no more than its share."""
    monkeypatch.setattr(workers, "_worker", workers._Worker())
    monkeypatch.setattr(workers.experiment, "load_for", lambda spec: spec)
    spec = resolve(RunSpec, SMALL)
    before = torch.get_num_threads()
    try:
        for given, share, taken in ((1, 8, 1), (4, 2, 2)):
            torch.set_num_threads(given)
            workers._begin_worker(spec, share, [])
            assert torch.get_num_threads() == taken
    finally:
        torch.set_num_threads(before)
