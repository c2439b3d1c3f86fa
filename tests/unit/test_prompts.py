"""The maths of soft prompts, by hand and as properties: places, pool, chain, written rows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_runs
from everlora import Example, Task, parse
from everlora.adapters import make_backend
from everlora.adapters.prompt_chain import reparameterise
from everlora.adapters.prompt_pool import nearest, query
from everlora.adapters.splice import insert_positions, remove_positions, text_start
from everlora.core.errors import ConfigError, DataError, ModelError
from everlora.core.method import compose
from everlora.models.families.base import IGNORE
from everlora.parts.pseudo import PromptDivergence, PseudoSamples
from everlora.training import pseudo
from everlora.training.trainer import REHEARSED, WEIGHT, ExtraLosses, token_mean


def opened(model, method, past=None):
    loaded, tasks = tiny_runs.fresh(model), tiny_runs.stream(model)
    found = make_backend(loaded, {}, "auto", parse(method).adapter)
    loaded.family.prepare(loaded.model, tasks[:1], torch.Generator().manual_seed(0))
    found.attach(seed=1, tasks=tasks[:1])
    return found, tasks[0]


def batch_of(found, task, rows=5):
    family = found.base.family
    return family.collate([family.features(row, task) for row in task.train[:rows]])


def test_prompts_are_put_behind_padding():
    x = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]])
    new = torch.tensor([[1, 2], [3, 4]])
    at = text_start(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))
    assert at.tolist() == [2, 0]
    whole = insert_positions(x, new, at)
    assert whole.tolist() == [[0, 0, 1, 2, 7, 8], [3, 4, 5, 6, 7, 8]]
    assert remove_positions(whole, 2, at).tolist() == x.tolist()


def test_behind_a_question_the_answer_begins_at_the_last_prompt():
    whole = torch.tensor([[5, 6, 1, 2, 7]])
    assert remove_positions(whole, 2, torch.tensor([2]), last=True).tolist() == [[5, 2, 7]]


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_taking_out_undoes_splicing(s, m, data):
    at = torch.tensor(data.draw(st.lists(st.integers(0, s), min_size=3, max_size=3)))
    x, new = torch.randn(3, s, 2), torch.randn(3, m, 2)
    whole = insert_positions(x, new, at)
    assert torch.equal(remove_positions(whole, m, at), x)
    for row, place in enumerate(at.tolist()):
        assert torch.equal(whole[row, place : place + m], new[row])


def test_the_query_is_the_mean_of_what_is_no_padding():
    embeds = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [3.0, 2.0]]])
    assert query(embeds, torch.tensor([[False, True, True]])).tolist() == [[2.0, 1.0]]


def test_the_nearest_keys_by_cosine():
    keys = torch.tensor([[0.0, 5.0], [1.0, 1.0], [3.0, 0.0], [-1.0, 0.0]])
    chosen, cosines = nearest(torch.tensor([[2.0, 0.0]]), keys, 2)
    assert chosen.tolist() == [[1, 2]]  # in the pool's order, not in that of their cosines 0.707 and 1
    torch.testing.assert_close(cosines, torch.tensor([[0.0, 0.5**0.5, 1.0, -1.0]]))


@pytest.mark.parametrize("model", tiny_runs.MODELS)
def test_drawn_prompts_and_keys_alone_get_a_gradient(model):
    found, task = opened(model, "l2p(size=7, length=2, top=2, pull=0.5)")
    batch = batch_of(found, task, rows=2)
    logits, targets = found.base.family.logits(found.base.model, batch)
    side, chosen = found.auxiliary_loss(), found.chosen
    assert side.shape == (2,)
    assert chosen.shape == (2, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert side.abs().max() <= 0.5 * 2 + 1e-6
    (token_mean(logits, targets, len(targets)) + side.sum()).backward()
    drawn = sorted(set(chosen.flatten().tolist()))
    assert 2 <= len(drawn) < 7
    for p in found.trainable()["prompts"].tensors.values():
        assert [k for k in range(7) if p.grad[k].abs().max() > 0] == drawn


def test_the_pull_is_the_closed_form():
    """d(−c cos(q, κ))/dκ = −c (q̂ − cos κ̂) / ‖κ‖, with hats for unit length."""
    q = torch.randn(1, 4, dtype=torch.float64)
    keys = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    chosen, cosines = nearest(q, keys, 1)
    (-0.3 * cosines.gather(-1, chosen).sum()).backward()
    k = int(chosen)
    key, norm = keys.detach()[k], keys.detach()[k].norm()
    expected = -0.3 * (q[0] / q.norm() - cosines.detach()[0, k] * key / norm) / norm
    torch.testing.assert_close(keys.grad[k], expected, rtol=1e-10, atol=1e-10)


def test_keys_are_drawn_to_the_examples_that_chose_them():
    """The term of a row is −c Σ cos over its keys; a step down its gradient brings these keys nearer."""
    found, _ = opened("tiny-bert", "l2p(size=7, length=2, top=3, pull=0.5)")
    keys = found.trainable()["prompts"].tensors["keys"]
    embeds, real = torch.randn(2, 6, keys.shape[-1]), torch.ones(2, 6).bool()

    def cosines():
        mean = embeds.mean(1)
        return torch.stack([torch.cosine_similarity(row[None], keys, dim=-1) for row in mean])

    found.prompts(embeds, real)
    side, before = found.auxiliary_loss(), cosines().detach()
    chosen = before.topk(3, dim=-1).indices
    torch.testing.assert_close(side, -0.5 * before.gather(-1, chosen).sum(-1), rtol=1e-5, atol=1e-6)
    side.sum().backward()
    with torch.no_grad():
        keys -= 0.1 * keys.grad
    assert cosines().gather(-1, chosen).sum() > before.gather(-1, chosen).sum()


def test_the_term_of_a_row_counts_with_the_tokens_of_its_answer():
    labels = torch.tensor([[7, 8], [IGNORE, 9]])
    extra_losses = ExtraLosses(side=lambda: torch.tensor([-1.0, -10.0]))
    assert float(extra_losses.loss(None, None, {"labels": labels}, torch.zeros(3, 5), None)) == -12


def test_a_decoder_is_looked_up_by_its_question_alone():
    """The answer stands in the same sequence when learning and nowhere when answering: both draw the same prompts."""
    found, task = opened("tiny-llama", "l2p(size=20, length=1, top=3)")
    family = found.base.family
    for row in task.train[:6]:
        family.logits(found.base.model, family.collate([family.features(row, task)]))
        learning, found.chosen = found.chosen, None
        prompt, _ = family.prompter.prompt(row, task, room=family._room(task))
        found.base.model(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long())
        assert torch.equal(found.chosen, learning)


@pytest.mark.parametrize(
    ("model", "method", "grown"),
    [
        ("tiny-llama", "l2p(size=4, length=3, top=2)", 6),
        ("tiny-bert", "progprompt(length=5)", 5),
        ("tiny-t5", "lfpt5(length=7)", 7),
        ("tiny-vit", "l2p(size=4, length=3, top=2)", 6),
    ],
)
def test_a_sequence_grows_by_its_prompts(model, method, grown):
    found, task = opened(model, method)
    seen = []
    layers = [m for n, m in found.base.model.named_modules() if n.endswith(("layers.0", "layer.0", "encoder.block.0"))]
    hook = layers[0].register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0].shape[1]), with_kwargs=True)
    batch = batch_of(found, task, rows=1)
    found.base.family.logits(found.base.model, batch)
    hook.remove()
    plain = 1 + 16 if model == "tiny-vit" else batch["input_ids"].shape[1]
    assert seen[0] == plain + grown


@torch.no_grad()
@pytest.mark.parametrize(("method", "behind"), [("lfpt5(length=3)", True), ("progprompt(length=3)", False)])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_where_the_prompt_stands(model, method, behind):
    """LFPT5 [text, P], on a decoder [question, P, answer]; Progressive Prompts [P, text]."""
    found, task = opened(model, method)
    seen = []
    name = "model.layers.0" if model == "tiny-llama" else "encoder.block.0"
    hook = found.base.model.get_submodule(name).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0][0]), with_kwargs=True
    )
    batch = batch_of(found, task, rows=1)
    found.base.family.logits(found.base.model, batch)
    hook.remove()
    text = found.base.model.get_input_embeddings()(batch["input_ids"])[0]
    size = len(text) if model == "tiny-t5" else int((batch["labels"][0] != IGNORE).nonzero()[0]) + 1  # of the question
    at = size if behind else 0
    (prompt,) = found.trainable()["prompts"].tensors.values()
    assert torch.equal(seen[0], torch.cat([text[:at], prompt, text[at:]]))


def test_the_network_around_a_prompt_by_hand():
    prompt = torch.tensor([[1.0, 2.0]])
    down, up = torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    # W₁ P + b = (1.5, −2), relu (1.5, 0), W₂ (3, 0) + b (3, 0.25)
    made = reparameterise(prompt, down, torch.tensor([0.5, 0.0]), up, torch.tensor([0.0, 0.25]))
    assert made.tolist() == [[4.0, 2.25]]


def test_the_chain_stands_newest_first_and_earlier_prompts_stay(tmp_path):
    learner = tiny_runs.train_sequence(
        "tiny-t5", "progprompt(length=2, mlp=3)", tmp_path / "run", tiny_runs.stream("tiny-t5", 3)
    )
    learner.inference_model()
    first, second, third = (delta["prompts"].tensors["prompt"] for delta in learner.past)
    shown = learner.backend.prompts(torch.zeros(1, 4, 64), torch.ones(1, 4).bool())[0]
    assert torch.equal(shown, torch.cat([third, second, first]))
    stored = [learner.backend.load(stage.path)[0]["prompts"].tensors["prompt"] for stage in learner.folder.stages()]
    assert all(torch.equal(a, b) for a, b in zip(stored, (first, second, third), strict=True))
    assert not torch.equal(first, second)
    assert learner.storage().stored_elements == 3 * 2 * 64


def test_nothing_is_forgotten_by_a_chain(tmp_path):
    learner = tiny_runs.begin("tiny-llama", "progprompt(length=2)", tmp_path / "run", evaluation={"schedule": "full"})
    matrix = learner.follow(tiny_runs.stream("tiny-llama", 3))
    for j in range(3):
        assert {matrix.cells[i][j] for i in range(j, 3)} == {matrix.cells[j][j]}


def test_a_text_is_cut_before_prompts_are_put_in():
    """The last tokens of a prompt, its cue, are there however long the text."""
    loaded = tiny_runs.fresh("tiny-t5")
    family, task = loaded.family, tiny_runs.stream("tiny-t5")[0]
    whole = family.limits.context
    family.limits = family.prompter.limits = family._full_limits = replace(family.limits, source=whole)
    found = make_backend(loaded, {}, "auto", parse("progprompt(length=10)").adapter)
    found.plan_tasks(6)
    long = Example("movie " * 600, task.labels[0])
    ids = family.features(long, task)["input_ids"]
    assert len(ids) <= whole - 60
    assert ids[-1] == family.processor.eos_token_id
    assert family.processor.decode(ids).endswith("Answer:</s>")


def test_prompts_that_fill_the_context_are_refused():
    with pytest.raises(ModelError, match="no room"):
        make_backend(tiny_runs.fresh("tiny-t5"), {}, "auto", parse("lfpt5(length=512)").adapter)


def test_a_text_that_soft_prompts_leave_no_room_for_says_so():
    found, task = opened("tiny-llama", "lfpt5(length=480)")
    words = "beside the answer and the 480 tokens of the method's soft prompts; .*, shorten these, or choose"
    with pytest.raises(DataError, match=words):
        found.base.family.features(Example("good " * 40, task.labels[0]), task)


def test_a_prompt_starts_from_words():
    found, task = opened("tiny-t5", "lfpt5(length=8)")
    words, (prompt,) = found.vocabulary(), found.trainable()["prompts"].tensors.values()
    for k, text in enumerate((found.settings.phrase, task.name, *task.labels)):
        torch.testing.assert_close(prompt[k], words[found._ids(text)].mean(0))
    for vector in prompt[2 + len(task.labels) :]:
        assert (words == vector).all(-1).any()


def test_divergence_by_hand_and_its_gradient():
    """p_old = (¾, ¼), p_new = (½, ½): ¾ ln 1.5 + ¼ ln ½ = 0.130812; d/dlogits = p_new − p_old; 0 where they agree."""
    old = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    new = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    value = PromptDivergence(strength=1.0).per_position(new, old)
    assert float(value.detach()) == pytest.approx(0.130812, abs=1e-6)
    value.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([[-0.25, 0.25]], dtype=torch.float64), rtol=1e-10, atol=1e-10)
    same = old.clone().requires_grad_(True)
    PromptDivergence(strength=1.0).per_position(same, old).sum().backward()
    assert not same.grad.any()  # AdamW would make a step of a rounding error


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_the_divergence_of_written_rows_weighs_kappa_in_all(model):
    """A rehearsed answer weighs 1 − κ times what one of a first task weighs; its divergence comes to κ times that."""
    method = parse("lfpt5(kappa=0.2)")
    (divergence,), part = method.outputs, method.rehearsal
    task, other = tiny_runs.stream(model)
    rows = pseudo.WritingRows(part, tiny_runs.base(model).family, [task], [other])
    sizes = [sum(t != IGNORE for t in rows[k]["labels"]) for k in range(len(rows))]
    answers = sum(sizes[: rows.plain])
    one = rows[rows.fresh]
    assert one[REHEARSED]
    assert one[WEIGHT] == pytest.approx((1 - 0.2) * sum(sizes) / answers)
    assert divergence.strength * one[WEIGHT] == pytest.approx(0.2 * sum(sizes) / answers)


def test_what_was_written_is_read_back():
    part = PseudoSamples()
    assert part.read(part.written("good movie", "yes"), ["yes", "no"]) == ("good movie", "yes")
    for said in ("good movie yes", "a __ans__ b __ans__ yes", "good __ans__ maybe", "__ans__ yes", "good __ans__"):
        assert part.read(said, ["yes", "no"]) is None
    assert part.read("who __ans__ anybody", []) == ("who", "anybody")


def test_two_rows_of_every_label_are_taken():
    rows = [("a", "yes"), ("a", "yes"), ("b", "yes"), ("c", "yes"), ("d", "no")]
    assert pseudo.first_per_class(rows, 2) == [Example("a", "yes"), Example("b", "yes"), Example("d", "no")]


class Writer:
    """Writes the same four texts again and again, and reads words of single letters."""

    texts = ("a __ans__ yes", "b __ans__ yes", "c __ans__ no", "nothing")

    def __init__(self, model):
        self.model, self.seen = model, []

    def predict(self, model, task, rows, scoring, sampling):
        assert model is self.model
        assert not model.training
        self.seen.append((len(rows), {row.input for row in rows}, scoring, sampling, task))
        return [self.texts[k % 4] for k in range(len(rows))]

    @staticmethod
    def processor(text, **options):
        return SimpleNamespace(input_ids=text.split())


@pytest.mark.parametrize("training", [True, False])
def test_texts_are_written_a_few_at_a_time_until_there_are_enough(training):
    task = Task(name="news", train=[Example("x", "yes")] * 3, test=[Example("x", "no")], labels=("yes", "no"))
    part, model = PseudoSamples(tries=18, per_class=1, top_k=7, length=5), torch.nn.Linear(1, 1).train(training)
    family = Writer(model)
    (found,), counts = pseudo.write(part, model, family, [task], 3)
    assert [size for size, *_ in family.seen] == [16, 2]
    for _, cues, scoring, sampling, prompt in family.seen:
        assert (cues, scoring, sampling) == (
            {"__news__"}, "generate", {"do_sample": True, "top_k": 7, "max_new_tokens": 5}
        )  # fmt: skip
        assert (prompt.form, prompt.labels, prompt.instruction, list(prompt.dev)) == ("prompted", (), "", [])
    assert (counts["news"].written, counts["news"].valid) == (18, 14)
    assert list(found.train) == [Example("a", "yes"), Example("c", "no")]
    assert (found.name, found.labels, list(found.test), list(found.dev)) == (
        "news", ("yes", "no"), [Example("a", "yes")], []
    )  # fmt: skip
    assert model.training is training
    family.texts = ("nothing",) * 4
    none, counts = pseudo.write(part, model, family, [task], 3)
    assert (none, counts["news"].valid) == ([], 0)


def test_a_text_is_cut_to_the_length_that_a_part_writes():
    decode = {"decode": staticmethod(lambda ids, **options: " ".join(ids))}
    words = type("Words", (), {"__call__": staticmethod(Writer.processor), **decode})()
    rows = [Example("one two three", "yes"), Example("one two three four", "no")]
    task = Task(name="news", train=rows, test=rows, dev=rows, labels=("yes", "no"), instruction="Say.")
    found = pseudo.to_write(PseudoSamples(length=3), SimpleNamespace(processor=words), task)
    assert list(found.train) == [
        Example("__news__", "one two three __ans__ yes"), Example("__news__", "one two three __ans__ no")
    ]  # fmt: skip
    assert (list(found.test), list(found.dev), found.labels, found.instruction, found.form) == (
        list(found.train[:1]), [], (), "", "prompted"
    )  # fmt: skip


@pytest.mark.parametrize("rehearsed", [False, True])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_an_epoch_minimises_the_formula(model, rehearsed):
    """With a loss of 1 on answers and of 3 on rows to be written, the weighted mean is (1 − κ)(1 + 3 η)."""
    family, (task, other) = tiny_runs.base(model).family, tiny_runs.stream(model)
    part = PseudoSamples(eta=0.5, kappa=0.1)
    rows = pseudo.WritingRows(part, family, [task], [other] if rehearsed else [])
    n, again = len(task.train), len(other.train) if rehearsed else 0
    assert len(rows) == 2 * (n + again)
    marks = [rows[k][REHEARSED] for k in range(len(rows))]
    assert marks == [n <= k < n + again for k in range(len(rows))]
    sizes = [sum(t != IGNORE for t in rows[k]["labels"]) for k in range(len(rows))]
    losses = [1.0 if k < n + again else 3.0 for k in range(len(rows))]
    mean = sum(s * x * rows[k][WEIGHT] for k, (s, x) in enumerate(zip(sizes, losses, strict=True))) / sum(sizes)
    assert mean == pytest.approx((0.9 if rehearsed else 1.0) * (1 + 3 * 0.5))
    last = rows[len(rows) - 1]["labels"]
    target = (other if rehearsed else task).train[-1]
    decoded = family.processor.decode([t for t in last if t != IGNORE], skip_special_tokens=True)
    assert part.read(decoded, [target.target]) == (target.input, target.target)


def test_weights_of_one_are_no_weights():
    logits, targets = torch.randn(5, 7), torch.randint(7, (5,))
    assert float(token_mean(logits, targets, 5, torch.ones(5))) == pytest.approx(float(token_mean(logits, targets, 5)))
    one = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0])
    expected = 2 * float(token_mean(logits[2:3], targets[2:3], 5))
    assert float(token_mean(logits, targets, 5, one)) == pytest.approx(expected)


def test_writing_is_drawn_from_the_seed_and_leaves_the_stream_alone():
    found, task = opened("tiny-t5", "lfpt5(length=4)")
    part, family, model = PseudoSamples(tries=5, length=6), found.base.family, found.base.model
    said = []
    read = PseudoSamples.read
    spy = type(
        "Spy", (PseudoSamples,), {"read": lambda self, text, labels: said.append(text) or read(self, text, labels)}
    )
    state = torch.get_rng_state()
    for seed in (1, 1, 2):
        pseudo.write(spy(tries=part.tries, length=part.length), model, family, [task], seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert said[:5] == said[5:10] != said[10:]
    assert len(set(said[:5])) > 1


def test_rows_that_are_no_plain_text_cannot_be_written():
    task = replace(tiny_runs.stream("tiny-llama")[0], form="chat")
    with pytest.raises(DataError, match="plain text"):
        pseudo.to_write(PseudoSamples(), tiny_runs.base("tiny-llama").family, task)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("l2p(top=11)", "lower top"),
        ("l2p(length=0)", "at least 1"),
        ("l2p(pull=-1)", "at least 0"),
        ("progprompt(mlp=-1)", "mlp"),
        ("lfpt5(kappa=1)", "kappa"),
        ("lfpt5(tries=0)", "tries"),
        ("lfpt5(eta=nan)", "eta"),
        ("l2p+inclora", "exclude"),
        ("progprompt+ella", "exclude"),
    ],
)
def test_bad_options_are_refused(method, message):
    with pytest.raises(ConfigError, match=message):
        parse(method)


def test_prompts_of_two_sizes_exclude_one_another():
    with pytest.raises(ConfigError, match="exclude"):
        compose(parse("l2p"), parse("l2p(size=5, top=2)"))
