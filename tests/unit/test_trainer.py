"""The pieces of the loss and of the optimiser that are ours, each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer

import tiny_runs
from calculus import draw
from everlora.core.errors import ConfigError, TrainingError
from everlora.models.families.base import IGNORE
from everlora.parts.distil import Distil
from everlora.training.chain import Chain
from everlora.training.fit import fit
from everlora.training.stock_arguments import arguments
from everlora.training.trainer import ClTrainer, ExtraLosses, Rows, rows_of, token_mean


def test_tokens_are_counted_over_all_devices(tmp_path: Any) -> None:
    """Else every process would divide by its own share of the tokens; nobody but the user can say otherwise."""
    assert arguments({}, folder=str(tmp_path), seed=0, cpu=True).average_tokens_across_devices is True


def test_arguments_are_the_users_on_top_of_ours(tmp_path: Any) -> None:
    found = arguments({"learning_rate": 0.25, "max_grad_norm": 7.0}, folder=str(tmp_path), seed=3, cpu=True)
    assert (found.learning_rate, found.seed, found.data_seed, found.max_grad_norm) == (0.25, 3, 3, 0.0)
    assert (found.use_cpu, found.remove_unused_columns, found.report_to, found.label_names) == (
        True,
        False,
        [],
        ["labels"],
    )
    assert (str(found.save_strategy.value), found.disable_tqdm, found.logging_nan_inf_filter) == ("no", True, False)
    assert found.n_gpu <= 1
    with pytest.raises(ConfigError, match="these training arguments cannot be used: "):
        arguments({"optim": "no-such"}, folder=str(tmp_path), seed=0, cpu=True)


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_a_head_does_not_decay_and_everything_else_does(model: str, tmp_path: Any) -> None:
    """Decay would move rows for labels of other tasks, bare or as PEFT's copy; biases and norms decay nowhere."""
    loaded, task = tiny_runs.fresh(model), tiny_runs.stream(model)[0]
    loaded.family.prepare(loaded.model, [task], torch.Generator().manual_seed(0))
    trainer = ClTrainer(
        loaded.family,
        Chain(params=[], task="x"),
        model=loaded.model,
        args=arguments({}, folder=str(tmp_path), seed=0, cpu=True),
        train_dataset=Rows(loaded.family, [task]),
    )
    names = dict(loaded.model.named_parameters())
    decayed = set(trainer.get_decay_parameter_names(loaded.model))
    head = {name for name in names if loaded.family.head and name.startswith(f"{loaded.family.head}.")}
    assert bool(head) == (model in ("tiny-bert", "tiny-vit"))
    assert not decayed & head
    assert decayed == set(Trainer.get_decay_parameter_names(trainer, loaded.model)) - head != set()

    class Wrapped(torch.nn.Module):
        """As PEFT nests a head that it copies."""

        def __init__(self) -> None:
            super().__init__()
            self.score = torch.nn.ModuleDict({"modules_to_save": torch.nn.Linear(2, 2)})
            self.body = torch.nn.Linear(2, 2)

    assert trainer.get_decay_parameter_names(Wrapped()) == ["body.weight"]


def test_a_decaying_task_leaves_the_rows_of_other_labels(tmp_path: Any) -> None:
    """Under AdamW with decay the head's rows for labels of the first task stay bit for bit."""
    seen = []

    def note(_: str) -> None:
        head = (learner.backend.model or learner.base.model).get_submodule(
            "base_model.model.classifier.modules_to_save"
        )
        seen.append(torch.cat([p.detach().reshape(len(p), -1) for p in head.default.parameters()], 1).clone())

    learner = tiny_runs.begin(
        "tiny-bert", "inclora", tmp_path / "run", train={"weight_decay": 0.5, "learning_rate": 0.1},
        progress=tiny_runs.Watch(learning=note, answering=note), evaluation={"schedule": "diagonal"},
    )  # fmt: skip
    learner.follow(tiny_runs.stream("tiny-bert"))
    assert torch.equal(seen[3][:2], seen[1][:2])
    assert not torch.equal(seen[1], seen[0])


def test_the_mean_is_over_the_global_batch_and_weights_multiply_rows() -> None:
    logits, weights = draw(1, (4, 5), (4,))
    targets = torch.tensor([1, 4, 0, 2])
    each = cross_entropy(logits.float(), targets, reduction="none")
    assert float(token_mean(logits, targets, 10)) == pytest.approx(float(each.sum()) / 10, rel=1e-6)
    assert float(token_mean(logits, targets, 10, weights)) == pytest.approx(
        float((each * weights).sum()) / 10, rel=1e-6
    )


def test_both_terms_of_the_loss_are_weighed_and_divided_alike() -> None:
    """Of three processes each: DDP takes the mean of their gradients, and the denominator is of all of them."""
    old, new, weights = draw(2, (3, 5), (3, 5), (2,), dtype=torch.float32)
    labels, targets, part = torch.tensor([[4, IGNORE], [0, 2]]), torch.tensor([4, 0, 2]), Distil(beta=0.5)
    trainer = object.__new__(ClTrainer)
    trainer.family = cast(Any, SimpleNamespace(logits_with_known=lambda model, batch: (new, targets, new)))
    trainer.chain, trainer.accelerator = Chain(params=[], task="x"), SimpleNamespace(num_processes=3)
    trainer.checkpoint, trainer._packs = None, False
    trainer.extra_losses = ExtraLosses(outputs=(part,), teacher=cast(Any, SimpleNamespace(logits=lambda *_: old)))

    def found(**batch: Any) -> float:
        batch = {"labels": labels, **batch}
        loss = trainer.compute_loss(cast(Any, None), batch, num_items_in_batch=10)
        assert batch.keys() == {"labels"}, "a model takes no marks"
        return float(loss)

    task, other = cross_entropy(new, targets, reduction="none"), 0.5 * part.per_position(new, old)
    assert found() == pytest.approx(3 * float((task + other).sum()) / 10, rel=1e-6)
    own = weights[[0, 1, 1]]
    assert found(weight=weights) == pytest.approx(3 * float((own * (task + other)).sum()) / 10, rel=1e-5)
    # LwF compares rows of the new task alone.
    marked = found(weight=weights, rehearsed=torch.tensor([True, False]))
    assert marked == pytest.approx(3 * float((own * task).sum() + (own * other)[1:].sum()) / 10, rel=1e-5)
    assert float(trainer.compute_loss(cast(Any, None), {"labels": labels})) == pytest.approx(
        found() * 10 / 3, rel=1e-6
    )


def test_what_the_chain_measures_stands_beside_the_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end Trainer logs a summary of the run, of which a last step's figures are no part."""
    written: list[dict[str, float]] = []
    monkeypatch.setattr(Trainer, "log", lambda self, logs, *_: written.append(logs))
    trainer = object.__new__(ClTrainer)
    trainer.chain = cast(Any, SimpleNamespace(latest={"task_grad_norm": 2.0}))
    trainer.log({"loss": 1.0})
    trainer.log({"train_runtime": 3.0})
    assert written == [{"loss": 1.0, "task_grad_norm": 2.0}, {"train_runtime": 3.0}]


def test_positions_know_their_rows() -> None:
    assert rows_of(torch.tensor([3, 1, 2])).tolist() == [0, 1, 2]
    assert rows_of(torch.tensor([[IGNORE, 4], [5, 6], [IGNORE, IGNORE]])).tolist() == [0, 1, 1]


def test_rows_that_are_rehearsed_stand_last_and_are_marked() -> None:
    first, second = tiny_runs.stream("tiny-llama")
    family = SimpleNamespace(
        truncated=0, features=lambda row, task: {"row": row.text if hasattr(row, "text") else row}
    )
    rows = Rows(cast(Any, family), [second.take(3)], [first.take(2)])
    assert (len(rows), rows.fresh, rows.sizes) == (5, 3, [3])
    assert [rows[k]["rehearsed"] for k in range(5)] == [False, False, False, True, True]
    assert "rehearsed" not in Rows(cast(Any, family), [second.take(3)])[0]


class Cutting:
    """A family that shortens every second text, and counts what it encodes."""

    def __init__(self) -> None:
        self.truncated, self.encoded = 5, 0

    def features(self, row: Any, task: Any) -> dict[str, object]:
        self.encoded += 1
        self.truncated += self.encoded % 2
        return {"number": self.encoded}

    def collate(self, rows: Any) -> dict[str, object]:
        return {"numbers": [row["number"] for row in rows]}


def test_a_row_is_encoded_once_and_counts_once_if_it_is_cut() -> None:
    family, task = Cutting(), tiny_runs.stream("tiny-llama")[0].take(3)
    rows = Rows(cast(Any, family), [task])
    assert rows.cut == 0
    assert [rows[k]["number"] for k in (2, 2, 0, 1, 2)] == [1, 1, 2, 3, 1]
    assert (rows.cut, family.encoded) == (2, 3)


def test_marks_and_weights_stand_in_a_batch_where_rows_have_them() -> None:
    trainer = object.__new__(ClTrainer)
    trainer.family = cast(Any, Cutting())
    plain = [{"number": 1}, {"number": 2}]
    assert trainer._collate(cast(Any, plain)) == {"numbers": [1, 2]}
    rich = [{**row, "rehearsed": k == 1, "weight": 0.5 * k} for k, row in enumerate(plain)]
    batch = trainer._collate(cast(Any, rich))
    assert batch["rehearsed"].tolist() == [False, True]
    assert batch["weight"].tolist() == [0, 0.5]


def test_what_the_chain_noted_stands_in_the_log_beside_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(Trainer, "log", lambda self, logs: seen.append(logs))
    trainer = object.__new__(ClTrainer)
    trainer.chain = cast(Any, SimpleNamespace(latest={"rho": 0.1}))
    trainer.log({"loss": 1.0})
    trainer.log({"train_runtime": 2.0})
    assert seen == [{"loss": 1.0, "rho": 0.1}, {"train_runtime": 2.0}]


def test_where_no_label_was_known_there_is_nothing_to_compare() -> None:
    teacher = cast(Any, SimpleNamespace(logits=lambda *_: pytest.fail("there is nothing to answer")))
    labels = {"labels": torch.tensor([0, 1, 0])}
    side = torch.tensor([1.0, 2.0, 4.0])
    for outputs, held, width in (((Distil(),), teacher, 0), ((), teacher, 2), ((Distil(),), None, 2)):
        extra = ExtraLosses(outputs=outputs, teacher=held, side=lambda: side)
        found = extra.loss(cast(Any, None), cast(Any, None), labels, torch.zeros(3, width), None)
        assert float(found) == 7, "the form's own term of every row"
    assert float(ExtraLosses().loss(cast(Any, None), cast(Any, None), labels, torch.zeros(3, 2), None)) == 0


@pytest.mark.parametrize("steps", [0, 1])
def test_training_without_a_step_is_refused(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Stub:
        state = SimpleNamespace(global_step=steps, log_history=[{"loss": 1.0}])

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.update(kwargs)

        def add_callback(self, callback: Any) -> None:
            seen["callback"] = callback

        def train(self, resume_from_checkpoint: str | None = None) -> None:
            seen["trained"] = True

    monkeypatch.setattr("everlora.training.fit.ClTrainer", Stub)
    given: Any = {"seed": 3, "cpu": True, "callbacks": ((noted := object()),), "find_unused": False}
    if steps:
        assert fit(None, None, None, None, {}, **given) == [{"loss": 1.0}]  # type: ignore[arg-type]
    else:
        with pytest.raises(TrainingError, match="not one step was taken, so nothing was learned"):
            fit(None, None, None, None, {}, **given)  # type: ignore[arg-type]
    assert seen["trained"]
    assert seen["callback"] is noted
    assert (seen["args"].seed, seen["args"].ddp_find_unused_parameters) == (3, False)
    fit_again = {**given, "find_unused": None}
    Stub.state.global_step = 1
    fit(None, None, None, None, {"ddp_find_unused_parameters": True}, **fit_again)  # type: ignore[arg-type]
    assert seen["args"].ddp_find_unused_parameters is True, "the user's own value"


def test_nothing_is_printed_where_results_are_written(tmp_path: Any) -> None:
    loaded, task = tiny_runs.fresh("tiny-llama"), tiny_runs.stream("tiny-llama")[0]
    own = ExtraLosses(outputs=(Distil(),))
    for extra in (None, own):
        trainer = ClTrainer(
            loaded.family,
            Chain(params=[], task="x"),
            extra,
            model=loaded.model,
            args=arguments({}, folder=str(tmp_path), seed=0, cpu=True),
            train_dataset=Rows(loaded.family, [task]),
        )
        assert not any(isinstance(one, PrinterCallback) for one in trainer.callback_handler.callbacks)
        assert trainer.chain in trainer.callback_handler.callbacks
        assert trainer.extra_losses.outputs == (own.outputs if extra else ())
