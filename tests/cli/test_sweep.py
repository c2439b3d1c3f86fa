"""Methods x seeds from the command line, and runs set side by side."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from everlora.learner.experiment import load_for
from everlora.learner.resolve import resolve
from everlora.learner.sweep import Job, sharing, work
from everlora.settings.spec import RunSpec
from sealing import edit, update

from .conftest import SMALL, Everlora, committed

SWEEP = (*SMALL, "--eval-scoring", "labels")


@pytest.fixture
def swept(everlora: Everlora) -> Everlora:
    said = everlora("sweep", "--methods", "seqlora,o-lora(lam=0.05)", "--seeds", "0,1", *SWEEP, "--out", "s")
    assert said.status == 0, said.err
    return everlora


def test_a_sweep_is_a_folder_per_run_and_a_table(swept: Everlora, tmp_path: Path) -> None:
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {f"{name}-seed{n}" for name in ("seqlora", "o-lora_lam=0.05") for n in (0, 1)}
    settings = yaml.safe_load((tmp_path / "s/o-lora_lam=0.05-seed1/run.yaml").read_text())["settings"]
    assert (settings["seed"], settings["method"]) == (1, "o-lora(lam=0.05)")
    assert settings["train"]["max_steps"] == 2
    assert settings["evaluation"]["scoring"] == "labels"
    # What was run alone is what is run in a sweep, though a sweep loads the model once.
    swept("run", *SWEEP, "--method", "o-lora(lam=0.05)", "--seed", "1", "--out", "alone")
    weights = [
        {name: content for name, content in committed(tmp_path / run).items() if "safetensors" in name}
        for run in ("alone", "s/o-lora_lam=0.05-seed1")
    ]
    assert weights[0] == weights[1] != {}
    # Again without --resume is refused; with it nothing is learned again, one more seed is added, the table is whole.
    more = ("sweep", "--methods", "seqlora,o-lora(lam=0.05)", "--seeds", "0,1,2", *SWEEP, "--out", "s")
    assert "pass --resume" in swept(*more).line
    before = committed(tmp_path / "s/seqlora-seed0")
    said = swept(*more, "--resume", "--json")
    assert said.json["sections"][0]["rows"][0]["seeds"] == [0, 1, 2]
    assert before == committed(tmp_path / "s/seqlora-seed0")


def test_compare_in_every_form(swept: Everlora) -> None:
    table = swept("compare", "s", "--format", "json").json
    assert table == swept("compare", "s", "--json").json
    (section,) = table["sections"]
    assert section["group"] == "replay-free"
    methods = {row["method"]: row for row in section["rows"]}
    assert set(methods) == {"seqlora", "o-lora(lam=0.05)"}
    for row in methods.values():
        finals = [json.loads((Path(f) / "matrix.json").read_text())["metrics"]["oa"] for f in row["folders"]]
        assert row["oa"]["mean"] == pytest.approx(sum(finals) / 2)
        assert row["oa"]["low"] <= row["oa"]["mean"] <= row["oa"]["high"]
    assert methods[section["reference"]]["alike"] is True
    for form in ("table", "markdown", "latex"):
        text = swept("compare", "s", "--format", form).out
        assert "seqlora" in text
        assert "best" in text
    assert r"\begin{tabular}" in text
    rows = list(csv.DictReader(io.StringIO(swept("compare", "s", "--format", "csv").out)))
    assert [row["seeds"] for row in rows] == ["0 1", "0 1"]
    assert float(rows[0]["oa_mean"]) == pytest.approx(methods[rows[0]["method"]]["oa"]["mean"])
    folders = [f for row in methods.values() for f in row["folders"]]
    assert swept("compare", *reversed(folders), "--json").json == table


def test_groups_and_task_id_and_joint_runs(everlora: Everlora) -> None:
    methods = "per-task,mtl,seqlora,zero-shot,lfpt5(tries=2,text_length=4,length=9),per-task+replay(ratio=0.5)"
    said = everlora("sweep", "--methods", methods, *SWEEP, "--out", "s", "--json")
    sections = {s["group"]: {row["method"]: row for row in s["rows"]} for s in said.json["sections"]}
    assert {group: set(rows) for group, rows in sections.items()} == {
        "replay-free": {"seqlora", "zero-shot", "lfpt5(tries=2,text_length=4,length=9)"},  # it writes its rows itself
        "replay": {"mtl"},
        "task id": {"per-task", "per-task+replay(ratio=0.5)"},
    }
    seen = json.loads(Path("s/per-task+replay_ratio=0.5-seed0/matrix.json").read_text())["replay"]
    assert (seen, json.loads(Path("s/per-task-seed0/matrix.json").read_text())["replay"]) == (True, False)
    assert sections["task id"]["per-task"]["bwt"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert sections["replay"]["mtl"]["bwt"] is None
    assert said.json["sections"][1]["reference"] == "mtl"


def test_other_protocols_other_settings_and_the_same_run_twice(everlora: Everlora, tmp_path: Path) -> None:
    for name, more in {
        "a": (),
        "b": ("--max-eval-samples", "3"),
        "c": ("--learning-rate", "0.01"),
        "d": (),
        "e": ("--seed", "1"),
    }.items():
        assert everlora("run", *SWEEP, "--method", "seqlora", *more, "--out", name).status == 0
    line = everlora("compare", "a", "b").line
    assert "different protocols (max_eval_samples, rows)" in line
    assert "--mixed" in line
    table = everlora("compare", "a", "b", "--mixed", "--json").json
    assert table["protocol"] is None
    assert [row["difference"] for section in table["sections"] for row in section["rows"]] == [None, None]
    (section,) = everlora("compare", "a", "c", "e", "--json").json["sections"]
    rows = {row["method"]: row["seeds"] for row in section["rows"]}
    assert rows == {"seqlora [learning_rate=0.003]": [0, 1], "seqlora [learning_rate=0.01]": [0]}
    assert "are the same run" in everlora("compare", "a", "d").line
    (tmp_path / "none").mkdir()
    assert "holds no run" in everlora("compare", "none").line


def test_an_unfinished_run_is_left_out(everlora: Everlora, tmp_path: Path) -> None:
    import shutil

    for name, seed in (("a", "0"), ("b", "1")):
        everlora("run", *SWEEP, "--method", "seqlora", "--seed", seed, "--out", f"s/{name}")
    shutil.rmtree(tmp_path / "s/b/tasks/02-news")
    assert "02-news is missing; restore the folder from a copy" in everlora("compare", "s").line  # it was finished
    edit(tmp_path / "s/b/MANIFEST", lambda manifest: manifest["tasks"].pop())
    said = everlora("compare", "s", "--json")
    assert said.json["sections"][0]["rows"][0]["seeds"] == [0]
    assert "1 of 2 tasks" in said.err
    assert "no finished run" in everlora("compare", "s/b").line


def test_what_a_sweep_refuses(everlora: Everlora) -> None:
    assert "a sweep takes --seeds" in everlora("sweep", "--methods", "ella", *SWEEP, "--seed", "1", "--out", "s").line
    assert "whole numbers" in everlora("sweep", "--methods", "ella", "--seeds", "x", *SWEEP, "--out", "s").line
    assert "did you mean 'ella'" in everlora("sweep", "--methods", "seqlora,elle", *SWEEP, "--out", "s").line
    said = everlora("sweep", "--methods", "ella", "--no-such-flag", "3", "--out", "s")
    assert said.status == 2
    assert "--no-such-flag" in said.err
    assert not Path("s").exists()


def test_all_are_the_rows_that_fit(everlora: Everlora) -> None:
    from everlora.core.expressions import parse
    from everlora.core.registry import entries

    said = everlora("sweep", "--methods", "all,o-lora(lam=0.05)", "--model", "tiny-bert", "--dry-run", "--out", "s")
    names = [line.split("\t")[0] for line in said.out.splitlines()]
    assert names[-1] == "o-lora(lam=0.05)"
    assert {"ella", "seqlora", "zero-shot"} <= set(names)
    assert {"migu", "o-lora+migu", "data+replay", "ties"} <= set(names)
    assert not {"replay", "mean-merge", "copy-layers", "lfpt5"} & set(names)
    assert said.err.splitlines() == ["lfpt5 is left out: for models of decoder, encoder-decoder, not encoder"]
    assert all("encoder" in parse(n).families for n in names[:-1])
    assert names[:-1] == [row for e in entries() for row in e.tabled if "encoder" in e.families]


def test_rows_too_long_for_one_method_are_no_matter_of_the_others(everlora: Everlora) -> None:
    said = everlora("sweep", "--methods", "lfpt5(length=400),seqlora", *SWEEP, "--out", "s")
    assert (said.status, "seqlora" in said.out) == (3, True)
    assert "1 of 2 runs could not be made: lfpt5_length=400-seed0" in said.line
    assert "soft prompts" in said.line
    # What several cannot do is told once, what none of them can do as if it were a run alone.
    long = "lfpt5(length=400),seqlora,l2p(length=200,top=2),l2p(length=200,top=2,pull=0.1)"
    line = everlora("sweep", "--methods", long, *SWEEP, "--out", "u").line
    assert "l2p_length=200_top=2-seed0, l2p_length=200_top=2_pull=0.1-seed0: task" in line
    said = everlora("sweep", "--methods", "seqlora,ella", *SWEEP, "--set", "optim=none", "--out", "t")
    assert (said.status, "none" in said.line, "could not be made" in said.line) == (2, True, False)


def test_one_that_fails_leaves_the_others(everlora: Everlora) -> None:
    hot = ("--set", "max_grad_norm=0", "--learning-rate", "1e30")
    said = everlora("sweep", "--methods", "seqlora,zero-shot", *SWEEP, *hot, "--out", "s")
    assert said.status == 3
    assert "1 of 2 runs could not be made: seqlora-seed0" in said.line
    assert "zero-shot" in said.out


def test_a_baseline_and_what_papers_print(everlora: Everlora, tmp_path: Path) -> None:
    for method in ("seqlora", "o-lora", "n-lora(lam=0.1)"):
        assert everlora("run", *SWEEP, "--method", method, "--out", f"runs/{method.partition('(')[0]}").status == 0
    table = everlora("compare", "runs", "--baseline", "o-lora", "--json").json
    (section,) = table["sections"]
    rows = {row["method"]: row for row in section["rows"]}
    assert (table["baseline"], section["reference"]) == ("o-lora", "o-lora")
    assert (rows["o-lora"]["p"], rows["o-lora"]["difference"]["mean"]) == (None, 0.0)
    for name in ("seqlora", "n-lora(lam=0.1)"):
        assert 0 < rows[name]["p"] <= rows[name]["p_corrected"] <= 1
        assert (rows[name]["test"], rows[name]["common"]) == ("rows", 1)
        assert rows[name]["alike"] is True  # one run each says nothing of other seeds
        assert rows[name]["detectable"] is None
    assert everlora("compare", "runs", "--baseline", "n-lora", "--json").json["baseline"] == "n-lora(lam=0.1)"
    for form in ("table", "markdown", "latex"):
        assert "baseline" in everlora("compare", "runs", "--baseline", "o-lora", "--format", form).out
    assert "no method of this table" in everlora("compare", "runs", "--baseline", "ewc").line
    assert "no paper at hand has numbers" in everlora("compare", "runs", "--with-papers").line


def test_figures_are_those_of_the_tasks_own_metric(everlora: Everlora, tmp_path: Path) -> None:
    """Edit similarity and F1 are what matrix.json says, not the share of answers that are exactly right."""
    for name in ("edit_similarity", "macro_f1"):
        labels = ("--eval-scoring", "labels") if name == "macro_f1" else ()
        assert everlora("run", *SMALL, *labels, "--method", "seqlora", "--metric", name, "--out", name).status == 0
        said = json.loads((tmp_path / name / "matrix.json").read_text())["metrics"]
        (row,) = everlora("compare", name, "--json").json["sections"][0]["rows"]
        assert said["oa"] > 0
        assert [row[key]["mean"] for key in ("oa", "bwt")] == pytest.approx([said["oa"], said["bwt"]], abs=1e-4)
    path = tmp_path / "macro_f1/matrix.json"
    content = json.loads(path.read_text())
    for wrong in (content["matrix"][1][0] + 1, float("nan"), None):
        content["matrix"][1][0] = wrong
        update(path, matrix=content["matrix"])
        assert "its rows come to" in everlora("compare", "macro_f1").line
    update(path, matrix=[[1.0]])
    assert "is damaged" in everlora("compare", "macro_f1").line


def test_broken_data_are_found_once_before_anything_runs(everlora: Everlora, tmp_path: Path) -> None:
    for name, word in (("train", "item"), ("test", "thing")):
        rows = [{"text": f"the {label} {word} {n}", "label": label} for label in ("bad", "good") for n in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "bad"}\n{"text": "b", "label": \n')
    first, second = ({"name": name, "train": f"{name}.jsonl", "test": "test.jsonl"} for name in ("train", "broken"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tasks": [first, second]}))
    how = ("--benchmark", "mine.yaml", "--model", "tiny-llama", "--max-steps", "1")
    many = ("--methods", "seqlora,ella", "--seeds", "0,1", "--out", "s")
    for command in (("run", "--dry-run"), ("run", "--out", "r"), ("sweep", *many, "--dry-run"), ("sweep", *many)):
        said = everlora(*command, *how)
        assert said.err.count("broken.jsonl, row 2") == 1, said.err
        assert "broken.jsonl, row 2" in said.line
        assert (said.status, said.out) == (2, "")
    assert not list(tmp_path.glob("[rs]/**/*.yaml")), "nothing of a run was begun"


def test_a_sweep_that_fails_keeps_what_its_runs_share(tmp_path: Path) -> None:
    spec = resolve(RunSpec, {"model": "tiny-llama", "lora": {"layers": "top:1"}})
    one = Job(spec, tmp_path / "one")
    other = Job(spec.model_copy(update={"feature_cache": "off"}), tmp_path / "other")
    (tmp_path / ".features").mkdir()

    def fail() -> None:
        with sharing([one, other], tmp_path) as shared:
            assert [job.features for job in shared] == [tmp_path / ".features", None]
            assert [job.spec.feature_cache for job in shared] == [None, "off"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / ".features").is_dir()
    with sharing([one], tmp_path):
        pass
    assert not (tmp_path / ".features").exists()


def test_runs_of_a_sweep_share_hidden_states_that_no_setting_names(tmp_path: Path) -> None:
    rows = {"tasks": ["reviews"], "max_train_samples": 8, "max_eval_samples": 4}
    how = {"lora": {"layers": "top:1"}, "train": {"max_steps": 1}, "evaluation": {"scoring": "labels"}}
    spec = resolve(RunSpec, {"model": "tiny-bert", "method": "seqlora", **rows, **how})
    with sharing([Job(spec, tmp_path / "run")], tmp_path) as shared:
        (result,) = work(shared, load_for(spec))
        assert list((tmp_path / ".features").glob("*.safetensors"))
    assert yaml.safe_load((result.folder / "run.yaml").read_text())["settings"]["feature_cache"] is None
