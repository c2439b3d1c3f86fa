"""Benchmarks by name, folders that other tools leave on disk, class-incremental pictures, and cards."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import datasets
import numpy as np
import pytest

from everlora.benchmarks import benchmarks, find_benchmark, open_stream, order_number, vision_hub
from everlora.benchmarks.cards import Lengths, PublishedSizes, SplitSizes, card
from everlora.benchmarks.pictures import Pictures, PictureSet
from everlora.benchmarks.vision import class_incremental
from everlora.core.benchmark import Benchmark, Request, TaskInfo
from everlora.core.errors import ConfigError, DataError
from everlora.data.files import stream_from_yaml
from everlora.data.stream import TaskStream, hash_of_list

TRACE = find_benchmark("trace")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")

Rows = Sequence[Mapping[str, Any]]


def refused(message: str, act: Callable[[], object], kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert message in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def opened(folder: Path, body: str) -> TaskStream:
    return stream_from_yaml(write(folder / "mine.yaml", body))


# --- orders --------------------------------------------------------------------------------------------------------


def test_orders_have_aliases() -> None:
    assert (order_number("long", "sapt-4"), order_number("Long", "SAPT_5"), order_number("long", "4")) == (6, 4, 4)
    assert order_number("superni", "sapt-2") == 2
    assert order_number("long", "lnt-order1") == order_number("long", "data-order_4") == 4  # EasyCL's and DATA's names
    assert order_number("long", "ELLA 6") == order_number("long", "lb-cl-6") == 6
    refused("long has no order 'sapt-3'; did you mean 'sapt-", lambda: order_number("long", "sapt-3"), ConfigError)
    refused("single order", lambda: order_number("mine.yaml", "sapt-4"), ConfigError)
    for info in benchmarks():
        assert set(info.aliases.values()) <= set(info.orders)
        if info.modality == ("text",):
            assert all(sorted(names) == sorted(info.tasks) for names in info.orders.values())
        assert len({hash_of_list(names) for names in info.orders.values()}) == len(info.orders)


def test_an_alias_is_the_same_run() -> None:
    from everlora.learner import experiment
    from everlora.settings.spec import RunSpec

    one, other = (
        experiment.resolve(RunSpec, {"model": "tiny-t5", "benchmark": "long", "order": order})
        for order in ("kif-6", 6)
    )
    assert one == other


# --- TRACE and SuperNI -----------------------------------------------------------------------------------------------


def trace_rows(word: str, count: int = 3) -> Rows:
    return [{"prompt": f"{word} {k}?", "answer": "A"} for k in range(count)]


def test_trace_folder_as_trace_writes_it(tmp_path: Path) -> None:
    leak = {"prompt": "test 0?", "answer": "B"}
    for name in TRACE.orders[7]:
        write(tmp_path / name / "train.json", [*trace_rows("train"), leak])
        write(tmp_path / name / "eval.json", trace_rows("dev"))
        write(tmp_path / name / "test.json", trace_rows("test"))
    stream = open_stream("TRACE", data_dir=tmp_path)
    assert stream.names == TRACE.orders[7]
    fomc, numbers = stream.tasks[1], stream.tasks[5]
    assert (fomc.metric, fomc.labels, len(fomc.dev)) == ("exact_match_trace", ("A", "B", "C"), 3)
    assert dict(fomc.left_out) == {"train: test has the same text": 1}  # an answer from a closed set
    assert (numbers.labels, dict(numbers.left_out)) == ((), {})  # another free answer is another row
    assert "FOMC: 1 train rows left out because test has the same text." in stream.note
    assert {task.metric for task in stream} == {known.metric for known in TRACE.defined.values()}
    write(tmp_path / "FOMC" / "train.json", [{"prompt": "x", "answer": "A. dovish"}])
    refused("train.json, row 1: label 'A. dovish' is outside", lambda: open_stream("trace", data_dir=tmp_path))
    write(tmp_path / "FOMC" / "train.json", [{"text": "x", "label": "A"}])
    refused("row 1: trace rows have the columns prompt and answer", lambda: open_stream("trace", data_dir=tmp_path))
    (tmp_path / "FOMC" / "test.json").unlink()
    refused("FOMC has no test file", lambda: open_stream("trace", data_dir=tmp_path, tasks=["FOMC"]))
    refused("give --data-dir", lambda: open_stream("trace"))
    above = tmp_path / "above"  # not tmp_path.parent, where other tests keep their folders
    write(above / "trace" / "FOMC" / "train.json", trace_rows("train"))
    refused(f"did you mean {above / 'trace'}?", lambda: open_stream("trace", data_dir=above, tasks=["FOMC"]))


def test_superni_folder_with_several_answers(tmp_path: Path) -> None:
    name = "task181_outcome_extraction"
    rows = [{"input": f"in {k}", "output": ["one", "two", "one"]} for k in range(2)]
    for split in ("train", "test"):
        content = {
            "Definition": ["Say one."],
            "Instances": [{**row, "input": f"{split} {row['input']}"} for row in rows],
        }
        write(tmp_path / "SuperNI" / name / f"{split}.json", content)
    (task,) = open_stream("superni", data_dir=tmp_path, tasks=[name])
    assert (task.instruction, task.labels, task.form, task.metric) == ("Say one.", (), "labelled", "rouge_l_stemmed")
    assert (task.train[0].target, task.train[0].also) == ("one", ("two",))
    rows[1]["output"] = []
    write(tmp_path / "SuperNI" / name / "train.json", {"Definition": "d", "Instances": rows})
    refused(
        "train.json, row 2: no answer in column 'output'",
        lambda: open_stream("superni", data_dir=tmp_path, tasks=[name]),
    )
    write(tmp_path / "SuperNI" / name / "train.json", {"Definition": "d", "Instances": []})
    refused("'Instances' must be a list", lambda: open_stream("superni", data_dir=tmp_path, tasks=[name]))


# --- O-LoRA's folders ------------------------------------------------------------------------------------------------


def olora(folder: Path, family: str, name: str, labels: Sequence[str]) -> None:
    place = folder / family / name
    for split in ("train", "test"):
        rows = [{"sentence": f"{split} {name} {k}", "label": label} for k, label in enumerate(labels)]
        write(place / f"{split}.json", rows)
    (place / "dev.json").write_bytes((place / "test.json").read_bytes())
    write(place / "labels.json", labels)


def test_olora_folder_as_data_dir(tmp_path: Path) -> None:
    olora(tmp_path, "SC", "SST-2", ["Good", "Bad"])
    olora(tmp_path, "NLI", "MNLI", ["neutral", "entailment", "contradiction"])
    rows = json.loads((tmp_path / "NLI/MNLI/test.json").read_text())
    write(tmp_path / "NLI/MNLI/test.json", [*rows, {"sentence": "nobody agreed", "label": "-"}])
    sst2, mnli = open_stream("long", data_dir=tmp_path, tasks=["sst2", "mnli"])
    assert (sst2.train[0].input, sst2.labels) == ("train SST-2 0", ("Good", "Bad"))
    assert sst2.instruction
    assert len(sst2.dev) == 0  # dev is test there
    assert dict(sst2.left_out) == {"dev: test has the same text": 2}
    assert dict(mnli.left_out) == {"test: the label is '-'": 1, "dev: test has the same text": 3}
    assert len(mnli.test) == 3
    olora(tmp_path, "Long", "sst2", ["Good", "Bad"])
    refused("has 'sst2' twice", lambda: open_stream("long", data_dir=tmp_path, tasks=["sst2"]))


def configs(folder: Path, order: Sequence[tuple[str, str]]) -> None:
    for k, (family, name) in enumerate(order, start=1):
        place = folder / name
        one = {"sampling strategy": "full", "dataset name": name}
        write(place / "train_tasks.json", {family: [one], "RE": []})
        tested: dict[str, list[Any]] = {}
        for f, n in order[:k]:
            tested.setdefault(f, []).append({"dataset name": n})
        write(place / "test_tasks.json", tested)


def test_olora_task_configs_say_the_order(tmp_path: Path) -> None:
    for family, name in (("SC", "IMDB"), ("NLI", "CB"), ("TC", "agnews")):
        olora(tmp_path / "CL", family, name, ["a", "b"])
    configs(tmp_path / "order", [("TC", "agnews"), ("SC", "IMDB"), ("NLI", "CB")])
    body = "source: {kind: o-lora, path: CL, config: order}\n"
    stream = opened(tmp_path, body)
    assert stream.names == ("agnews", "IMDB", "CB")
    assert (
        stream.tasks[1].instruction
        == open_stream("long", data_dir=tmp_path / "CL", tasks=["imdb"]).tasks[0].instruction
    )
    assert "CB: 2 dev rows left out because test has the same text." in stream.note
    refused("give config", lambda: opened(tmp_path, "source: {kind: o-lora, path: CL}\n"))
    write(tmp_path / "order" / "CB" / "test_tasks.json", {"NLI": [{"dataset name": "CB"}]})
    refused("their order cannot be told", lambda: opened(tmp_path, body))
    write(tmp_path / "order" / "CB" / "test_tasks.json", {"SC": [{"dataset name": "IMDB"}]})
    refused("'CB' is trained, and test_tasks.json does not test it", lambda: opened(tmp_path, body))
    rmtree(tmp_path / "order" / "CB")
    rmtree(tmp_path / "order" / "IMDB")
    configs(tmp_path / "order", [("TC", "agnews"), ("SC", "IMDB"), ("NLI", "CB")])
    rmtree(tmp_path / "order" / "IMDB")
    refused("no folder tests 2 tasks, and one tests 3; task 2 is missing", lambda: opened(tmp_path, body))
    sampled = {"TC": [{"sampling strategy": "random", "dataset name": "agnews"}]}
    write(tmp_path / "order" / "agnews" / "train_tasks.json", sampled)
    refused("'agnews' has the sampling strategy 'random'; here all rows", lambda: opened(tmp_path, body))


def test_one_task_from_a_folder(tmp_path: Path) -> None:
    olora(tmp_path, "NLI", "MNLI", ["yes", "no"])
    body = "tasks:\n  - {name: nli, metric: macro_f1, source: {path: NLI/MNLI}}\n"
    (task,) = opened(tmp_path, body)
    assert (task.metric, task.labels, task.form) == ("macro_f1", ("yes", "no"), "labelled")
    refused(
        "trace rows have the columns prompt and answer, found: sentence, label",
        lambda: opened(tmp_path, body.replace("{path", "{kind: trace, path")),
    )
    (spelled,) = opened(tmp_path, body.replace("macro_f1", "Macro-F1"))
    assert (spelled.metric, spelled.digest()) == (task.metric, task.digest())
    refused("did you mean 'macro_f1'", lambda: opened(tmp_path, body.replace("macro_f1", "makro_f1")))
    refused("unknown key in task 'nli'", lambda: opened(tmp_path, body.replace("path:", "pth: x, path:")))
    refused("give either train or source", lambda: opened(tmp_path, "tasks: [{name: a, test: x.jsonl}]\n"))
    refused("give either tasks, or a source", lambda: opened(tmp_path, "name: x\n"))
    refused("is no folder", lambda: opened(tmp_path, body.replace("NLI/MNLI", "NLI/none")))
    same = body.replace("}}", "}, overlap: error}")
    refused("the same text in dev and test, in every row", lambda: opened(tmp_path, same))


# --- EasyCL and LlamaFactory -----------------------------------------------------------------------------------------


def alpaca(word: str) -> Rows:
    return [{"instruction": f"Say {word}.", "input": f"{word} {k}", "output": "a"} for k in range(2)]


def test_easycl_benchmark(tmp_path: Path) -> None:
    info: dict[str, Any] = {}
    for name in ("agnews", "yahoo"):
        for split in ("train", "dev", "test"):
            write(tmp_path / name / f"{name}_{split}.json", alpaca(f"{name} {split}"))
            info[f"{name}_{split}"] = {
                "file_name": f"{name}/{name}_{split}.json",
                "formatting": "alpaca",
                "split": split,
            }
    info["agnews_train"]["num_samples"] = 1
    write(tmp_path / "dataset_info.json", info)
    write(tmp_path / "benchmark_info.json", {"B": {"orders": {"order1": ["yahoo", "agnews"], "order2": ["agnews"]}}})
    stream = opened(tmp_path, "source: {path: .}\n")
    assert stream.names == ("yahoo", "agnews")
    assert stream.tasks[0].train[0].input == "Say yahoo train.\nyahoo train 0"
    assert dict(stream.tasks[1].left_out) == {"train: num_samples takes the first ones only": 1}
    assert opened(tmp_path, "source: {path: ., order: order2}\n").names == ("agnews",)
    refused("has no order 'order3'", lambda: opened(tmp_path, "source: {path: ., order: order3}\n"))
    info["yahoo_test"]["script_url"] = "x"
    write(tmp_path / "dataset_info.json", info)
    refused("entry 'yahoo_test': 'script_url' is not understood", lambda: opened(tmp_path, "source: {path: .}\n"))


def test_llamafactory_sharegpt_with_its_own_names(tmp_path: Path) -> None:
    rows = [
        {"talk": [{"who": "me", "says": f"hi {k}"}, {"who": "bot", "says": "yo"}], "system": "Be kind."}
        for k in range(9)
    ]
    write(tmp_path / "d.json", rows)
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "bot"}
    entry = {"file_name": "d.json", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}
    write(tmp_path / "dataset_info.json", {"chat": entry})
    body = "tasks:\n  - {name: talks, test_fraction: 0.3, source: {path: dataset_info.json, name: chat}}\n"
    (task,) = opened(tmp_path, body)
    assert (task.form, len(task.train), len(task.test)) == ("chat", 6, 3)
    assert [m["role"] for m in task.train[0].input] == ["system", "user"]
    refused("no test split", lambda: opened(tmp_path, body.replace("test_fraction: 0.3, ", "")))
    typo = body.replace("name: chat", "name: chta")
    refused("has no entry 'chta' or 'chta_train'; did you mean 'chat'", lambda: opened(tmp_path, typo))
    rows[3]["talk"][0]["who"] = "mee"
    write(tmp_path / "d.json", rows)
    refused("d.json, row 4: turn 1 has the role 'mee'; did you mean 'me'", lambda: opened(tmp_path, body))


def test_alpaca_and_sharegpt_files_are_recognised(tmp_path: Path) -> None:
    rows = [
        {"instruction": "a", "input": "", "output": "b", "history": [["x", "y"]]},
        {"instruction": "c", "output": "d"},
    ]
    write(tmp_path / "a.json", rows)
    write(tmp_path / "t.json", [{"conversations": [{"from": "human", "value": "z"}, {"from": "gpt", "value": "w"}]}])
    body = "tasks: [{name: a, train: a.json, test: t.json}]\n"
    (task,) = opened(tmp_path, body)
    assert [len(row.input) for row in task.train] == [3, 1]
    write(tmp_path / "a.json", [*rows, {"instruction": "c", "output": "d", "images": ["x.png"]}])
    refused("a.json, row 3: column 'images' cannot be used", lambda: opened(tmp_path, body))


# --- bad rows --------------------------------------------------------------------------------------------------------


def test_long_lines_windows_ends_and_marks_are_read_whole(tmp_path: Path) -> None:
    text = "x" * 1_000_000
    line = json.dumps({"text": text, "label": "a"}).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + line + b"\r\n" + b'{"text": "y", "label": "b"}\r\n')
    )
    write(tmp_path / "t.jsonl", '{"text": "z", "label": "a"}\n')
    (task,) = opened(tmp_path, "tasks: [{name: a, train: a.jsonl.gz, test: t.jsonl}]\n")
    assert (task.train[0].input, task.train[1].target) == (text, "b")


def test_dev_that_repeats_train_is_refused_or_dropped(tmp_path: Path) -> None:
    for name in ("a", "t", "d"):
        write(tmp_path / f"{name}.jsonl", json.dumps({"text": "t" if name == "t" else "A  film", "label": "x"}) + "\n")
    body = "tasks: [{name: a, train: a.jsonl, dev: d.jsonl, test: t.jsonl}]\n"
    refused("the same text in dev and train:", lambda: opened(tmp_path, body))
    (task,) = opened(tmp_path, body.replace("t.jsonl}", "t.jsonl, overlap: drop}"))
    assert (len(task.dev), dict(task.left_out)) == (0, {"dev: train has the same text": 1})


# --- pictures --------------------------------------------------------------------------------------------------------


def test_digits_are_cut_into_tasks_of_two_classes() -> None:
    stream = open_stream("vision-digits", max_train_samples=20, max_eval_samples=6)
    assert [task.labels for task in stream] == [(str(k), str(k + 1)) for k in range(0, 10, 2)]
    assert {(len(t.train), len(t.dev), len(t.test), t.form) for t in stream} == {(20, 6, 6, "image")}
    whole = open_stream("vision_digits", tasks=["split-02"]).tasks[0]
    pictures = [row.input.tobytes() for rows in (whole.train, whole.dev, whole.test) for row in rows]
    assert len(pictures) == len(set(pictures)) == 177 + 183  # twos and threes
    assert whole.train[0].input.max() == 255


def test_mnist_from_a_file(tmp_path: Path) -> None:
    y = np.repeat(np.arange(10, dtype=np.uint8), 20)
    x = np.arange(200, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[::10], y_test=y[::10])
    stream = open_stream("vision-mnist", data_dir=tmp_path)
    assert {(len(t.train), len(t.dev), len(t.test)) for t in stream} == {(36, 4, 4)}
    assert all(row.target == str(int(row.input[0, 0]) // 20) for task in stream for row in task.train)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y)
    refused("lacks an array", lambda: open_stream("vision-mnist", data_dir=tmp_path))
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04")
    refused("not a sound .npz", lambda: open_stream("vision-mnist", data_dir=tmp_path))
    (tmp_path / "mnist.npz").unlink()
    refused("has no mnist_t10k.npz or mnist.npz", lambda: open_stream("vision-mnist", data_dir=tmp_path))
    refused("takes no data folder", lambda: open_stream("vision-cifar100", data_dir=tmp_path), ConfigError)


def hub_data(rows: int, classes: int, names: bool, size: int = 6) -> Any:
    pictures = [np.full((size, size, 3), k % 256, np.uint8) for k in range(rows)]
    label: Any = datasets.ClassLabel(names=[f"c{k}" for k in range(classes)]) if names else datasets.Value("string")
    values = [k % classes if names else f"c{k % classes}" for k in range(rows)]
    features = datasets.Features({"image": datasets.Image(), "kind": label})
    return datasets.Dataset.from_dict({"image": pictures, "kind": values}, features=features)


def test_hub_pictures_with_and_without_a_test_split() -> None:
    place = vision_hub.HubPictures(path="me/pics", label="kind")
    found = vision_hub.picture_set(place, hub_data(40, 4, True), hub_data(8, 4, True))
    assert (found.classes, len(found.train.numbers), len(found.test.numbers)) == (("c0", "c1", "c2", "c3"), 40, 8)
    assert found.train.picture(5)[0, 0, 0] == 5
    drawn = vision_hub.picture_set(place, hub_data(40, 4, False), None)
    assert (len(drawn.train.numbers), sorted(drawn.test.numbers)) == (32, sorted([0, 1, 2, 3] * 2))
    seen = [p.picture(k)[0, 0, 0] for p in (drawn.train, drawn.test) for k in range(len(p.numbers))]
    assert sorted(seen) == list(range(40))  # every picture is on one side
    assert all(p.picture(k)[0, 0, 0] % 4 == p.numbers[k] for p in (drawn.train, drawn.test) for k in range(8))
    large = vision_hub.picture_set(place, hub_data(4, 4, True, size=300), hub_data(4, 4, True))
    assert large.train.picture(0).shape == (vision_hub.SIDE, vision_hub.SIDE, 3)
    other = vision_hub.HubPictures(path="me/pics", label="sort")
    data = hub_data(4, 2, True)
    refused("no column 'sort' (found: image, kind)", lambda: vision_hub.picture_set(other, data, None))


def test_hub_tables_name_what_they_load(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_split(path: str, config: str | None, split: str, *, instead: str) -> Any:
        asked.append((path, split))
        about = {"uoft-cs/cifar100": "vision-cifar100", "axiong/imagenet-r": "vision-imagenet-r"}[path]
        place = vision_hub.HubPictures(**find_benchmark(about).options["hub"])
        data = hub_data(800, 400, about == "vision-cifar100")
        return data.rename_columns({"image": "pixels", "kind": place.label}).rename_column("pixels", place.image)

    monkeypatch.setattr(vision_hub, "load_split", load_split)
    refused("has 400 classes where vision-cifar100 wants 100", lambda: open_stream("vision-cifar100"))
    refused("has 400 classes where vision-imagenet-r wants 200", lambda: open_stream("vision-imagenet-r"))
    assert asked == [("uoft-cs/cifar100", "train"), ("uoft-cs/cifar100", "test"), ("axiong/imagenet-r", "test")]


def test_the_permuted_order_and_the_limit_per_class() -> None:
    numbers = list(range(6)) * 30
    rows = Pictures(numbers, lambda k: np.full((2, 2), k, np.uint8))
    found = PictureSet(tuple("abcdef"), rows, rows, "here")
    orders = {1: ("a1", "a2", "a3"), 1993: ("p1", "p2", "p3")}
    cut = Benchmark(name="n", title="t", orders=orders, classes=6, options={"most": 20})

    def opened(order: int, *names: str) -> TaskStream:
        tasks = tuple(TaskInfo(name=name) for name in names or orders[order])
        request = Request(benchmark=cut, tasks=tasks, order=order)
        return TaskStream(name="n", tasks=tuple(class_incremental(request, found)))

    natural, permuted = opened(1), opened(1993)
    assert [task.labels for task in natural] == [("a", "b"), ("c", "d"), ("e", "f")]
    wanted = np.random.RandomState(1993).permutation(6)
    assert [label for task in permuted for label in task.labels] == ["abcdef"[k] for k in wanted]
    task = natural.tasks[0]
    assert (len(task.train), len(task.dev), len(task.test)) == (36, 4, 20)
    assert sum(task.left_out.values()) == 2 * 10 + 2 * 20
    assert natural.digest() != permuted.digest()
    assert not set(natural.names) & set(permuted.names)
    assert [task.labels for task in opened(1, "a3", "a1")] == [("e", "f"), ("a", "b")]


# --- cards -----------------------------------------------------------------------------------------------------------


def test_cards_with_and_without_rows(tmp_path: Path) -> None:
    for info in benchmarks():
        if info.needs_data:
            about = card(info.name)
            assert [task.name for task in about.tasks] == list(info.tasks)
            assert all(task.source and task.licence and task.metric for task in about.tasks)
            assert about.order_digest is None
    for name in TRACE.orders[7]:
        for split in ("train", "test"):
            write(tmp_path / name / f"{split}.json", trace_rows(f"{split} two", 2))
    refused("long has no order 'sapt-7'", lambda: card("long", order="sapt-7"), ConfigError)
    refused("trace has no order 4; orders: 7 (4 is of 'long')", lambda: card("trace", order=4), ConfigError)
    assert [task.name for task in card("long", order="sapt-4").tasks][:2] == ["yelp", "amazon"]
    assert card("long").tasks[0].published == PublishedSizes(train=3000, test=7600)
    write(tmp_path / "C-STANCE" / "train.json", [{"prompt": "对象: 多吃水果 x", "answer": "A"}])
    (first, *_) = card("trace", data_dir=tmp_path).tasks
    assert first.at_hand is not None
    assert first.at_hand.words is not None
    assert first.at_hand.words.max == 8
    write(tmp_path / "C-STANCE" / "train.json", trace_rows("train two", 2))
    about = card("trace", data_dir=tmp_path)
    first = about.tasks[0]
    assert first.at_hand is not None
    assert first.at_hand.rows == SplitSizes(train=2, dev=0, test=2)
    assert first.at_hand.words == Lengths(mean=3.0, p50=3, p95=3, max=3)
    assert about.order_digest == open_stream("trace", data_dir=tmp_path).digest()


# --- the shared data -------------------------------------------------------------------------------------------------


@shared
def test_shared_data_are_read_whole() -> None:
    manifest = json.loads((SHARED / "MANIFEST.json").read_text())
    splits = {"train": "train", "dev": "eval", "test": "test"}
    for name, folder in (("trace", "trace"), ("superni", "superni"), ("long", "cl_benchmark")):
        for task in open_stream(name, data_dir=SHARED / folder):
            assert not task.left_out
            for split, theirs in splits.items():
                file = theirs if name == "trace" else split
                about = manifest[f"{folder}/{task.name}/{file}.jsonl.gz"]
                rows = getattr(task, split)
                assert len(rows) == about["rows"], (task.name, split)
                if task.labels and name == "long":
                    counts = {label: sum(row.target == label for row in rows) for label in about["labels"]}
                    assert counts == about["labels"]
    mnist = open_stream("vision-mnist", data_dir=SHARED / "vision")
    assert sum(len(t.train) + len(t.dev) for t in mnist) == 7000
    assert sum(len(t.test) for t in mnist) == 2000
