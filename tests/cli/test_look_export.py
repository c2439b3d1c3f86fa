"""A learner handed on: a whole model for transformers, or one adapter of chosen rank for PEFT."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

import everlora as package
import tiny_runs
from everlora import parse
from everlora.adapters import files as adapters
from everlora.analysis.runs import Run
from everlora.archive.folder import read_matrix
from everlora.data.task import Task
from everlora.export import model as export
from sealing import edit

from .conftest import Everlora, ScoredLearner, ScoredRun

AUTO = {
    "tiny-llama": "AutoModelForCausalLM",
    "tiny-t5": "AutoModelForSeq2SeqLM",
    "tiny-bert": "AutoModelForSequenceClassification",
    "tiny-vit": "AutoModelForImageClassification",
}


def logits(model: torch.nn.Module, run: ScoredLearner, task: Task) -> torch.Tensor:
    family = run.learner.base.family
    batch = family.collate([family.features(row, task) for row in task.test])
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "shift_labels", "allowed")}
    with torch.no_grad():
        return model.eval()(**inputs).logits


def loaded(model: str, folder: Path) -> Any:
    return getattr(transformers, AUTO[model]).from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    ("method", "model"),
    [
        *(("ella", model) for model in AUTO),
        *(("osf", model) for model in AUTO),
        ("lb-cl", "tiny-llama"),
        ("ps-lora", "tiny-bert"),
        ("seqlora", "tiny-t5"),
        ("sd-lora", "tiny-t5"),
        ("sd-lora", "tiny-bert"),
    ],
)
def test_an_exported_model_is_the_learner(everlora: Everlora, ran: ScoredRun, method: str, model: str) -> None:
    run = ran(method, model)
    said = everlora("export", str(run), "--out", "whole", "--json").json
    assert (said["folder"], said["form"], said["to"]) == ("whole", "model", "merged")
    exported = loaded(model, Path("whole"))
    ready = run.learner.inference_model()
    for task in run.tasks:
        torch.testing.assert_close(logits(exported, run, task), logits(ready, run, task), rtol=1e-4, atol=2e-5)
    run.learner.backend.detach()
    if run.learner.base.family.head:
        assert list(exported.config.id2label.values()) == run.learner.base.family.labels
    else:
        assert transformers.AutoTokenizer.from_pretrained("whole")("a").input_ids


def raise_last(matrix: dict[str, Any]) -> None:
    matrix["matrix"][-1][0] += 1


def test_scores_that_no_task_was_committed_with_reach_no_card(everlora: Everlora, ran: ScoredRun) -> None:
    shutil.copytree(str(ran("ella")), "run")
    whole = Path("run/matrix.json").read_bytes()
    for sealed, why in ((False, "matrix.json was changed after it was written"), (True, "has other scores than")):
        Path("run/matrix.json").write_bytes(whole)
        edit(Path("run/matrix.json"), raise_last, sealed=sealed)
        assert why in everlora("export", "run", "--out", "out").line
    assert not Path("out").exists()


@pytest.mark.parametrize("more", [(), ("--rank", "16")], ids=["model", "adapter"])
@pytest.mark.parametrize("model", AUTO)
def test_the_card_of_an_export_says_what_it_is_and_how_it_is_loaded(
    everlora: Everlora, ran: ScoredRun, monkeypatch: pytest.MonkeyPatch, model: str, more: tuple[str, ...]
) -> None:
    run = ran("ella", model)
    assert everlora("export", str(run), "--out", "out", *more).status == 0
    card = Path("out/README.md").read_text()
    assert ("One PEFT adapter of rank 16" if more else "The whole model in fp32") in card
    assert f"Base model: {model}. Method: ella." in card
    for task, cell in zip(run.tasks, read_matrix(run.folder).matrix[-1], strict=True):
        assert f"| {task.name} | exact_match | 4 | {cell:.1f} | {len(task.labels)} |" in card
        assert f"- {task.name}: " + ", ".join(f"`{label}`" for label in task.labels) in card
        if model in ("tiny-llama", "tiny-t5"):  # and the prompt is the one that was learned
            prompter = run.learner.base.family.prompter
            written = prompter.tokenizer.decode(prompter.prompt(task.test[0], task, 40)[0], skip_special_tokens=True)
            assert written.strip().replace(task.test[0].input, "{text}") in card
    monkeypatch.chdir("out")
    found: dict[str, Any] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], found)
    ready = run.learner.inference_model()
    for task in run.tasks:
        torch.testing.assert_close(scored(found["model"], run, task), scored(ready, run, task), rtol=1e-4, atol=2e-5)
    run.learner.backend.detach()


def test_an_export_that_is_damaged_on_its_way_leaves_nothing(
    everlora: Everlora, ran: ScoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ran("ella")

    def flipped(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(export, "spell_both_ways", lambda folder: flipped(folder / "model.safetensors"))
    assert "reads back as another one than was written" in everlora("export", str(run), "--out", "whole").line
    real = adapters.save_file

    def faulty(tensors: dict[str, Any], path: Path, **more: Any) -> None:
        real(tensors, path, **more)
        flipped(path)

    monkeypatch.setattr(adapters, "save_file", faulty)
    assert "reads back as something else" in everlora("export", str(run), "--out", "small", "--rank", "4").line
    assert not list(Path().glob("*whole*")) + list(Path().glob("*small*"))


@pytest.mark.parametrize(
    ("method", "rank"), [("ella", 5), ("ella", 16), ("ps-lora", 5), ("seqlora", 3), ("lb-cl", 6), ("sd-lora", 5)]
)
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert"])
def test_an_exported_adapter_loses_what_it_says(
    everlora: Everlora, ran: ScoredRun, method: str, rank: int, model: str
) -> None:
    run = ran(method, model)
    told = everlora("export", str(run), "--out", "small", "--rank", str(rank), "--json").json
    assert (told["form"], told["rank"]) == ("adapter", rank)
    old, new = run.updates(0), run.updates(1)
    exact = {n: old[n] + new[n] for n in new}
    if method == "ps-lora":
        exact = {n: torch.where(new[n].abs() >= old[n].abs(), new[n], old[n]) for n in new}
    if method in ("seqlora", "sd-lora"):
        exact = new
    sites, _ = adapters.read(Path("small"))
    lost = {n: float((exact[n] - sites[n].dense()).norm()) for n in exact}
    best = {n: float(torch.linalg.svdvals(exact[n])[rank:].norm()) for n in exact}
    assert lost == pytest.approx(best, rel=1e-3, abs=1e-6)
    whole = sum(float(m.square().sum()) for m in exact.values())
    error = (sum(v**2 for v in lost.values()) / whole) ** 0.5
    assert told["truncation"]["error"] == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert told["truncation"]["worst"] >= told["truncation"]["error"] * 0.999
    assert (error > 0.01) == (rank != 16)
    labels = run.learner.folder.stages()[-1].facts.labels
    base = package.load(model, dtype="float32", device="cpu", labels=labels).model
    written = PeftModel.from_pretrained(base, "small")
    ready = run.learner.inference_model()
    apart = torch.cat([(scored(written, run, task) - scored(ready, run, task)).flatten() for task in run.tasks])
    run.learner.backend.detach()
    assert told["logits"]["largest"] == pytest.approx(float(apart.abs().max()), rel=0.02, abs=2e-5)
    assert told["logits"]["relative"] < 1e-4 or rank != 16


def scored(model: torch.nn.Module, run: ScoredLearner, task: Task) -> torch.Tensor:
    """Logits at the positions that carry loss, over all labels."""
    family = run.learner.base.family
    batch = family.collate([family.features(row, task) for row in task.test])
    if family.head:
        batch["allowed"][:] = True
    with torch.no_grad():
        return family.logits(model.eval(), batch)[0]


def test_a_run_in_bf16_is_exported_with_the_weights_that_it_has(everlora: Everlora, ran: ScoredRun) -> None:
    """Folded matrices are fp32; what was not adapted is as it was rounded, for the adapters were learned on that."""
    run = ran("ella", "tiny-llama", "bfloat16")
    assert everlora("export", str(run), "--out", "whole").status == 0
    exported, ready = loaded("tiny-llama", Path("whole")), run.learner.inference_model()
    for (name, a), (other, b) in zip(exported.named_parameters(), ready.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["ties", "dare", "ps-lora"])
def test_one_task_of_a_merging_method_is_exported_as_it_answers(method: str, tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-llama", method, tmp_path / "run", tiny_runs.stream("tiny-llama")[:1])
    whole = export.merged_updates(Run.read(tmp_path / "run"))
    for name, site in learner.newest.items():
        torch.testing.assert_close(whole[name], site.dense())


def test_options_given_in_python_are_kept_or_the_run_is_refused(tmp_path: Path) -> None:
    """`Learner(method=Method)`: its name alone does not say how much TIES keeps."""
    method = parse("ties(density=0.9)")
    spec = tiny_runs.spec("tiny-llama", "ties").model_dump(include={"dtype", "device", "lora", "train", "evaluation"})
    learner = package.Learner("tiny-llama", method=method, out=tmp_path / "run", **spec)
    learner.follow(tiny_runs.stream("tiny-llama"))
    try:
        found = Run.read(tmp_path / "run").method
    except package.EverloraError:
        return
    assert found == method


@pytest.mark.parametrize("form", [(), ("--rank", "4")])
def test_adapters_chosen_by_task_id_are_no_single_thing(
    everlora: Everlora, ran: ScoredRun, form: tuple[str, ...]
) -> None:
    said = everlora("export", str(ran("per-task")), "--out", "new", *form)
    assert "one adapter per task" in said.line
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("method", "form", "words"),
    [
        ("data", (), "what 'data' adds depends on the input, so there is nothing to fold"),
        ("l2p", (), "'l2p' learns soft prompts, which stand beside a text and in no weight"),
        ("seqft", (), "is a whole model already"),
        ("osf", ("--rank", "4"), "'osf' changes whole matrices, which no adapter holds; leave --rank out"),
    ],
)
def test_what_cannot_be_handed_on_so_says_why(
    everlora: Everlora, ran: ScoredRun, method: str, form: tuple[str, ...], words: str
) -> None:
    assert words in everlora("export", str(ran(method)), "--out", "new", *form).line
    assert not Path("new").exists()


def test_adapters_of_own_tasks_chosen_by_task_id_are_none_either(everlora: Everlora, tmp_path: Path) -> None:
    """Without a benchmark, logits are not compared; the refusal must not depend on that."""
    tiny_runs.train_sequence("tiny-llama", "per-task", tmp_path / "run")
    assert "one adapter per task" in everlora("export", "run", "--out", "new", "--rank", "4").line
    assert not Path("new").exists()


def test_own_tasks_are_exported_without_logits(everlora: Everlora, tmp_path: Path) -> None:
    learner = tiny_runs.train_sequence("tiny-llama", "ella", tmp_path / "run")
    told = everlora("export", "run", "--out", "new", "--rank", "8", "--json").json
    assert told["logits"] is None
    assert told["truncation"]["error"] < 1e-5
    sites, _ = adapters.read(Path("new"))
    for name, site in sites.items():
        torch.testing.assert_close(site.dense(), learner.past.total(name), rtol=0, atol=1e-6)
    assert "were not compared" in everlora("export", "run", "--out", "again", "--rank", "8").out


@pytest.mark.parametrize("rank", ["0", "-3"])
def test_a_rank_that_is_none_is_one_line(everlora: Everlora, ran: ScoredRun, rank: str) -> None:
    assert "--rank must be at least 1" in everlora("export", str(ran("ella")), "--out", "new", "--rank", rank).line
    assert not Path("new").exists()


def test_a_base_model_has_no_adapter_to_hand_on(everlora: Everlora, ran: ScoredRun) -> None:
    assert everlora("export", str(ran("zero-shot")), "--out", "new", "--rank", "4").line
    assert not Path("new").exists()


@pytest.mark.parametrize("form", [(), ("--rank", "4")])
def test_a_place_that_is_taken_is_one_line_and_stays(
    everlora: Everlora, ran: ScoredRun, form: tuple[str, ...]
) -> None:
    Path("full").mkdir()
    Path("full/mine").write_text("x")
    Path("file").write_text("y")
    for name in ("full", "file"):
        assert f"{name} exists and is not empty" in everlora("export", str(ran("ella")), "--out", name, *form).line
    assert sorted(p.name for p in Path().rglob("*")) == ["file", "full", "mine"]
    Path("blank").mkdir()
    assert everlora("export", str(ran("ella")), "--out", "blank", *form).status == 0


def test_another_base_model_is_refused(ran: ScoredRun) -> None:
    base = package.load("tiny-t5", dtype="float32", device="cpu")
    with pytest.raises(package.EverloraError, match="learned on another model than 'tiny-t5'"):
        export.merged_model(Run.read(ran("ella").folder), base)
