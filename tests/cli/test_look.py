"""What a run tells from its folder: status and inspect; and the study that starts layers as copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from everlora import parse
from everlora.training import memory

from .conftest import Everlora, ScoredRun

RECIPE = """
model: tiny-llama
benchmark: builtin
tasks: [reviews, news]
max_train_samples: 16
max_eval_samples: 4
evaluation: {scoring: labels}
train: {max_steps: 2}
"""


def test_status_tells_what_is_known_kept_and_left(everlora: Everlora, ran: ScoredRun) -> None:
    run = ran("b-cl")
    facts = everlora("status", str(run), "--json").json
    stages = run.learner.folder.stages()
    assert (facts["model"], facts["method"]) == ("tiny-llama", "b-cl")
    assert [task["name"] for task in facts["tasks"]] == ["reviews", "news"]
    assert [task["score"] for task in facts["tasks"]] == [stages[0].facts.row[0], stages[1].facts.row[1]]
    assert facts["memory_bytes"] == run.learner.storage().memory_bytes
    room = {module["module"]: module for module in facts["room"]["modules"]}
    assert facts["room"]["hard"]
    assert facts["room"]["rank"] == 8
    for name, module in room.items():
        width = 32 if "v_proj" in name else 64
        assert (module["directions"], module["free"]) == (width - 16, (width - 16) / width)
        assert module["tasks_left"] == (width - 16) // 8
    text = everlora("status", str(run)).out
    assert "50.0 % of directions are free" in text
    assert "2 of 4 modules run out of directions" in text


@pytest.mark.parametrize(
    ("shared", "sentence"), [(None, "rows of the head of its own"), (True, "share rows of the head")]
)
def test_status_and_card_say_whether_numbers_share_rows(
    everlora: Everlora, tmp_path: Path, shared: bool | None, sentence: str
) -> None:
    tasks: list[dict[str, Any]] = []
    for name, word in (("a", "film"), ("b", "book")):
        rows = [{"text": f"{word} {n}", "label": n % 2} for n in range(4)]
        for split, some in (("train", rows[:2]), ("test", rows[2:])):
            (tmp_path / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        tasks.append({"name": name, "train": f"{name}-train.jsonl", "test": f"{name}-test.jsonl"})
        tasks[-1] |= {"shared_labels": shared} if shared is not None else {}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    how = ("--benchmark", "mine.yaml", "--model", "tiny-bert", "--method", "seqlora", "--max-steps", "1")
    assert everlora("run", *how, "--out", "r").status == 0
    for text in (everlora("status", "r").out, Path("r/README.md").read_text()):
        assert f"{sentence} for '0', '1'" in " ".join(text.split())
    assert f"{sentence} for '0', '1'" in everlora("status", "r", "--json").json["shared_rows"]


def test_tasks_with_heads_of_their_own_share_no_rows(everlora: Everlora) -> None:
    how = ("--model", "tiny-bert", "--tasks", "reviews,news", "--max-train-samples", "8", "--max-steps", "1")
    assert everlora("run", *how, "--max-eval-samples", "4", "--method", "per-task", "--out", "r").status == 0
    shown = everlora("status", "r", "--json").json
    assert {"positive", "sports"} <= set(shown["labels"])
    assert "shared_rows" not in shown
    assert "share rows" not in everlora("status", "r").out + Path("r/README.md").read_text()


@pytest.mark.parametrize(
    ("method", "shown"), [("ella(lam=auto)", 1), ("ps-lora", 1), ("ella(lam=0.3)", 0), ("seqlora", 0)]
)
def test_status_shows_the_strength_that_was_found(everlora: Everlora, ran: ScoredRun, method: str, shown: int) -> None:
    run = ran(method)
    first, second = everlora("status", str(run), "--json").json["tasks"]
    assert first["strengths"] == {}
    assert second["strengths"] == run.learner.folder.stages()[1].facts.strengths
    assert len(second["strengths"]) == shown
    text = everlora("status", str(run)).out
    assert "run out" not in text  # soft methods do not
    for name, lam in second["strengths"].items():
        assert f"{name} {lam:.3g}" in text


@pytest.mark.parametrize(
    "method", ["zero-shot", "mtl", "per-task", "ps-lora", "lb-cl", "ella(policy=continue,store=svd)"]
)
@pytest.mark.parametrize("command", ["status", "inspect"])
def test_every_kind_of_method_can_be_looked_at(everlora: Everlora, ran: ScoredRun, method: str, command: str) -> None:
    run = ran(method)
    assert everlora(command, str(run), "--json").json or (method, command) == ("zero-shot", "inspect")
    assert everlora(command, str(run)).status == 0
    if command == "status":
        kept = everlora("status", str(run), "--json").json["memory_bytes"]
        assert kept == run.learner.storage().memory_bytes


@pytest.mark.parametrize(
    ("method", "lam"),
    [("ella(lam=0.7,energy=raw)", 0.7), ("ella(lam=auto,policy=continue)", None), ("seqlora", 0), ("ps-lora", 0)],
)
def test_inspect_gives_the_figures_of_a_hand_computation(
    everlora: Everlora, ran: ScoredRun, method: str, lam: Any
) -> None:
    run = ran(method)
    first, second = everlora("inspect", str(run), "--json").json
    old, new = run.updates(0), run.updates(1)
    if parse(method).consolidator.rule == "continue":
        new = {name: new[name] - old[name] for name in new}
    if lam is None:
        lam = run.learner.folder.stages()[1].facts.strengths["energy_overlap"]
    assert all(module["interference"] is None for module in first["modules"])
    assert first["opposed"] is None
    for module in first["modules"]:
        assert module["update_norm"] == pytest.approx(float(old[module["module"]].norm()), rel=1e-5)
    for module in second["modules"]:
        D, W = new[module["module"]].double(), old[module["module"]].double()
        E = W.abs() if "raw" in method else W.abs() / W.square().mean().sqrt()
        dot, met = float((D * W).sum()), (D * W) != 0
        expected = {
            "update_norm": float(D.norm()),
            "past_norm": float(W.norm()),
            "interference": dot,
            "cosine": dot / float(D.norm() * W.norm()),
            "opposed": float(((D > 0) != (W > 0))[met].double().mean()),
            "conflict": float((D * W).clamp_max(0).abs().sum() / (D * W).abs().sum()),
        }
        for key, value in expected.items():
            assert module[key] == pytest.approx(value, rel=2e-3, abs=1e-7), key
        assert abs(dot) <= module["bound"] <= float(D.norm() * W.norm() * 40)
        if lam:
            twice = 2 * lam  # the surrogate halves its λ
            free = float((D * (1 + twice * E**2)).norm())
            bound = free / (2 * twice**0.5) * float((W / E).norm())
            assert module["surrogate_bound"] == pytest.approx(bound, rel=1e-3)
            assert abs(dot) <= module["surrogate_bound"]
        else:
            assert module["surrogate_bound"] is None
    every = second["modules"]
    assert second["interference"] == pytest.approx(sum(m["interference"] for m in every))
    assert second["opposed"] == pytest.approx(sum(m["opposed"] for m in every) / len(every))
    assert second["free"] == min(m["free"] for m in every)


@pytest.mark.parametrize("method", ["b-cl", "ella(policy=continue)"])
def test_status_and_inspect_see_the_same_room(everlora: Everlora, ran: ScoredRun, method: str) -> None:
    """One adapter that goes on uses its own directions only, not those that it has left."""
    run = ran(method)
    room = everlora("status", str(run), "--json").json["room"]["modules"]
    seen = everlora("inspect", str(run), "--json").json[-1]["modules"]
    expected = {module["module"]: (module["free"], module["directions"]) for module in room}
    assert {module["module"]: (module["free"], module["free_directions"]) for module in seen} == expected
    if "continue" in method:
        assert min(free for free, _ in expected.values()) == (32 - 8) / 32


@pytest.mark.parametrize("policy", ["new", "continue"])
@pytest.mark.parametrize(("store", "least", "most"), [("svd,store_rank=2", 0.05, 1), ("int8", 1e-4, 8e-3)])
def test_status_measures_how_far_off_a_memory_is(
    everlora: Everlora, ran: ScoredRun, policy: str, store: str, least: float, most: float
) -> None:
    run = ran(f"ella(policy={policy},store={store})")
    found = everlora("status", str(run), "--json").json["memory_error"]["energy_overlap"]
    held = memory.read(run.learner.folder.stages()[-1].path)["energy_overlap"]
    first, last = run.updates(0), run.updates(1)
    lost, sizes = {}, {}
    for name, state in held.items():
        W = last[name] + first[name] if policy == "new" else last[name]
        kept = state["int8"] * state["step"] if store == "int8" else state["B"] @ state["A"]
        lost[name], sizes[name] = float((W - kept).norm()), float(W.norm())
    worst = max(lost, key=lambda name: lost[name] / sizes[name])
    whole = sum(v**2 for v in lost.values()) ** 0.5 / sum(v**2 for v in sizes.values()) ** 0.5
    assert found["error"] == pytest.approx(whole, rel=1e-3)
    assert (found["worst"], found["module"]) == (pytest.approx(lost[worst] / sizes[worst], rel=1e-3), worst)
    assert least < found["error"] < most
    text = everlora("status", str(run)).out
    assert f"energy_overlap remembers the past with a relative error of {found['error']:.3g} (worst" in text
    assert worst in text


def test_status_bounds_how_far_off_a_curvature_is(everlora: Everlora, ran: ScoredRun) -> None:
    run = ran("kfac(store=int8)")
    found = everlora("status", str(run), "--json").json["memory_error"]["kronecker_curvature"]
    assert found["at_most"]
    assert 0 < found["error"] <= found["worst"] < 0.1
    said = (
        f"kronecker_curvature remembers the past with a relative error of at most {found['error']:.3g} (worst module"
    )
    assert said in everlora("status", str(run)).out


def test_where_the_past_is_the_memory_there_is_no_error_to_show(everlora: Everlora, ran: ScoredRun) -> None:
    run = ran("ella(policy=continue)")
    assert "memory_error" not in everlora("status", str(run), "--json").json
    assert "relative error" not in everlora("status", str(run)).out


def test_inspect_shows_modules_when_asked(everlora: Everlora, ran: ScoredRun) -> None:
    run = ran("ella(lam=auto)")
    short, long = (everlora("inspect", str(run), *more).out for more in ((), ("--modules",)))
    assert "v_proj" not in short
    found = everlora("inspect", str(run), "--json").json[1]["modules"]
    for module in found:
        assert long.count(module["module"]) == 2
        assert f"{module['bound']:.3g}" in long
    assert "…" not in long


@pytest.mark.parametrize("command", ["status", "inspect", "export"])
def test_a_folder_that_is_no_run_or_an_empty_one_is_one_line(everlora: Everlora, tmp_path: Path, command: str) -> None:
    more = ("--out", "new") if command == "export" else ()
    (tmp_path / "bare").mkdir()
    for name in ("nowhere", "bare"):
        assert f"{name} holds no run of everlora" in everlora(command, name, *more).line
    begun(everlora, tmp_path / "empty")
    assert "holds no learned task yet" in everlora(command, "empty", *more).line
    (tmp_path / "bare" / "run.yaml").write_text("- nonsense")
    assert "run.yaml is damaged" in everlora(command, "bare", *more).line
    assert not (tmp_path / "new").exists()


def begun(everlora: Everlora, folder: Path) -> None:
    """A run that was cut off in its first task."""
    import tiny_runs

    learner = tiny_runs.begin("tiny-llama", "ella", folder, progress=tiny_runs.Cut("first", 1))
    with pytest.raises(KeyboardInterrupt):
        learner.follow(tiny_runs.stream("tiny-llama"))


def test_layers_are_studied_by_copying_none_one_and_all(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    call = ("study-layers", "--config", "r.yaml", "--out", "study", "--top", "none,1,all")
    found = everlora(*call, "--json").json
    assert [Path(result["folder"]).name for result in found] == ["top-none", "top-1", "top-all"]
    assert [result["method"] for result in found] == ["inclora", "copy-layers", "copy-layers"]
    assert (
        len(
            {
                (tmp_path / "study" / f"top-{top}/adapter_model.safetensors").read_bytes()
                for top in ("none", "1", "all")
            }
        )
        == 3
    )
    first = [
        (tmp_path / "study" / f"top-{top}" / "tasks/01-reviews/adapter_model.safetensors")
        for top in ("none", "1", "all")
    ]
    assert len({file.read_bytes() for file in first}) == 1
    said = everlora(*call, "--resume")
    assert "learning" not in said.err
    rows = [line for line in said.out.splitlines() if "." in line]
    for top, row in zip(("none", "1", "all"), rows, strict=True):
        assert top in row.split()[0], "rows cannot be told apart"
    assert everlora("status", "study/top-1", "--json").json["method"] == "copy-layers"


@pytest.mark.parametrize("top", ["some", "0", "-1", "1.5", "", ",", "²", "none,4,lots"])
def test_a_wrong_top_is_one_line(everlora: Everlora, tmp_path: Path, top: str) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert "--top" in everlora("study-layers", "--config", "r.yaml", "--out", "study", "--top", top).line
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [(("--tasks", "reviews"), "and 1 are given"), (("--tasks", "reviews,news,questions"), "and 3 are given")],
)
def test_a_study_of_other_than_two_tasks_is_one_line(
    everlora: Everlora, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    line = everlora("study-layers", "--config", "r.yaml", "--out", "study", *given).line
    assert f"about two tasks, {words}; name them: --tasks first,second" in line
    assert not (tmp_path / "study").exists()


def test_a_study_of_a_whole_benchmark_asks_for_two_tasks(everlora: Everlora, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace("tasks: [reviews, news]\n", ""))
    line = everlora("study-layers", "--config", "r.yaml", "--out", "study").line
    assert "all of the benchmark's are given; name them: --tasks" in line


@pytest.mark.parametrize(("value", "shown"), [(0.25, "0.25"), ({"a": 0.5, "b": 0.125}, "0.125 to 0.5"), ({}, "none")])
def test_a_strength_is_shown_as_one_number_or_as_those_of_the_modules(value: float, shown: str) -> None:
    from everlora.cli.standing import _strength

    assert _strength(value) == shown
