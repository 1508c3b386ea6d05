"""Data set directories are what the datasets library reads, whatever classes and texts are called."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sealpool.cli.export_files import write_data_set
from sealpool.errors import FailedPrecondition
from sealpool.v1 import common_pb2, scheduler_pb2

MULTICLASS = common_pb2.TASK_KIND_MULTICLASS
CLASSES = ["null", "1", 'say "it\'s": # so', "naïve\u2028Ünïcode 漢字 🦭", " spaced ", "- a\n- list", "{a: b}", "~"]

Load = Callable[[Path], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    return lambda path: datasets.load_dataset(str(path), cache_dir=str(tmp_path / "cache"))


def spec(task: common_pb2.TaskKind.ValueType) -> scheduler_pb2.CampaignSpec:
    return scheduler_pb2.CampaignSpec(name="c: 'd'", pool="p", task=task, classes=CLASSES)


def row(number: int, labels: Sequence[str]) -> Mapping[str, Any]:
    text = f'"{number}", \n{{}} 漢字'
    return {"id": f"i{number}", "text": text, "labels": list(labels), "metadata": {"k": number}, "annotator": "ada"}


def test_one_class_an_item_is_a_class_label_with_every_name(tmp_path: Path, load: Load) -> None:
    rows = [row(number, [name]) for number, name in enumerate(CLASSES)]
    out = tmp_path / "set"
    assert (
        write_data_set({"train": iter(rows), "test": iter(rows[:2]), "predicted": iter([])}, out, spec(MULTICLASS))
        == 10
    )
    found = load(out)
    assert {split: len(some) for split, some in found.items()} == {"train": 8, "test": 2}
    feature = found["train"].features["label"]
    assert feature.names == CLASSES
    assert [feature.int2str(one["label"]) for one in found["train"]] == CLASSES
    assert found["train"][3]["text"] == rows[3]["text"]


def test_several_classes_an_item_are_a_list_of_class_labels_and_may_be_none(tmp_path: Path, load: Load) -> None:
    rows = [row(0, []), row(1, CLASSES), row(2, [CLASSES[3]])]
    out = tmp_path / "set"
    assert write_data_set({"train": iter(rows)}, out, spec(common_pb2.TASK_KIND_MULTILABEL)) == 3
    found = load(out)["train"]
    assert found.features["labels"].feature.names == CLASSES
    assert [one["labels"] for one in found] == [[], list(range(8)), [3]]


def test_a_campaign_without_labels_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no labels"):
        write_data_set({"train": iter([])}, tmp_path / "set", spec(MULTICLASS))
    assert list(tmp_path.iterdir()) == []
