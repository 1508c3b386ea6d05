"""Labels for the rest of a pool over a real index server and learner; the scheduler is faked at its port."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest

from sealpool.cli.app import run
from sealpool.client import IndexClient, LearnerClient
from sealpool.types import ItemId, Items, LabelledItems, Payload
from sealpool.v1 import common_pb2, index_pb2, learner_pb2, scheduler_pb2, scheduler_pb2_grpc
from tests.support.processes import ServiceProcess

CLASSES = ["north", "east", "south", "west"]
TASK = common_pb2.TASK_KIND_MULTICLASS
COUNT = 400
IDS = [ItemId(f"item-{number}") for number in range(COUNT)]
PURPOSES = {
    "training": scheduler_pb2.LABEL_PURPOSE_TRAINING,
    "evaluation": scheduler_pb2.LABEL_PURPOSE_EVALUATION,
    "audit": scheduler_pb2.LABEL_PURPOSE_AUDIT,
}


def make_items() -> tuple[np.ndarray, np.ndarray]:
    """Return four clusters, (n, 8), and their numbers."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, COUNT)
    centres = np.eye(4)[truth] * 2
    return np.concatenate([centres, np.zeros((COUNT, 4))], axis=1) + rng.normal(0, 0.5, (COUNT, 8)), truth


VECTORS, TRUTH = make_items()


class SchedulerAtThePort(scheduler_pb2_grpc.SchedulerServiceServicer):
    """One campaign: the first 40 items are labelled, the next ten for evaluation, and 30 audited."""

    spec = scheduler_pb2.CampaignSpec(
        name="c", pool="pool", task=common_pb2.TASK_KIND_MULTICLASS, classes=CLASSES, budget=100, batch_size=10
    )

    def GetCampaign(self, request, context):
        return scheduler_pb2.GetCampaignResponse(campaign=scheduler_pb2.Campaign(spec=self.spec, labels=40, rounds=2))

    def ListLabels(self, request, context):
        ranges = {"training": range(40), "evaluation": range(40, 50), "audit": range(100, 130)}
        purpose = request.purpose or scheduler_pb2.LABEL_PURPOSE_TRAINING
        numbers = next(ranges[name] for name, value in PURPOSES.items() if value == purpose)
        yield scheduler_pb2.ListLabelsResponse(
            labels=[
                scheduler_pb2.Label(
                    item_id=IDS[number], classes=[CLASSES[TRUTH[number]]], annotator="ada", sequence=number + 1,
                    purpose=purpose, round=number // 20,
                )
                for number in numbers
            ]
        )  # fmt: skip

    def ListAnnotations(self, request, context):
        outcomes = [scheduler_pb2.ANNOTATION_OUTCOME_LABEL, scheduler_pb2.ANNOTATION_OUTCOME_SKIP]
        yield scheduler_pb2.ListAnnotationsResponse(
            annotations=[
                scheduler_pb2.Annotation(sequence=number, item_id=IDS[number], annotator="ada", outcome=outcome)
                for number, outcome in enumerate(outcomes, 1)
            ]
        )

    def ListRounds(self, request, context):
        return scheduler_pb2.ListRoundsResponse(rounds=[scheduler_pb2.Round(number=n, labels=20 * n) for n in range(2)])

    def DrawAudit(self, request, context):
        return scheduler_pb2.DrawAuditResponse(drawn=request.items, labelled=30)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("rest")
    index = ServiceProcess("index_server", folder)
    learner = ServiceProcess("learner", folder, "--index-server", index.address)
    server = grpc.server(ThreadPoolExecutor(4))
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(SchedulerAtThePort(), server)
    scheduler = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        index.start()
        learner.start()
        with IndexClient(index.address) as client:
            client.create_pool(index_pb2.PoolSpec(name="pool", dimension=8))
            payloads = [Payload(text=f"text {number}", metadata={"n": number}) for number in range(COUNT)]
            client.upsert("pool", Items(ids=IDS, vectors=VECTORS.astype(np.float32), payloads=payloads))
        header = learner_pb2.TrainHeader(campaign="c", round=2, pool="pool", task=TASK, classes=CLASSES, seed=1)
        with LearnerClient(learner.address) as client:
            client.train(header, LabelledItems(ids=IDS[:40], labels=[[int(one)] for one in TRUTH[:40]]))
        yield {"SEALPOOL_INDEX": index.address, "SEALPOOL_LEARNER": learner.address, "SEALPOOL_SCHEDULER": scheduler}
    finally:
        server.stop(0).wait()
        learner.kill()
        index.kill()


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process, or, where it is told at which point to die, in one of its own."""
    for name, value in addresses.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str, failpoint: str = "") -> Outcome:
        if failpoint:
            words = [sys.executable, "-m", "sealpool.cli.main", *arguments]
            environment = {**os.environ, "SEALPOOL_FAILPOINT": failpoint}
            done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
            return Outcome(done.returncode, done.stdout, done.stderr)
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def rows_in(directory: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(directory.glob("part-*")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("failpoint", ["rest.part.before_manifest:2", "rest.part.after_manifest:2"])
def test_killed_between_two_parts_it_goes_on_to_the_same_labels(
    command: Command, tmp_path: Path, failpoint: str
) -> None:
    arguments = ("campaign", "label-rest", "c", "--by", "both", "--part-rows", "150", "--out")
    killed = command(*arguments, str(tmp_path / "killed"), failpoint=failpoint)
    assert killed.code == -9, killed.err
    first = (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns
    assert not json.loads((tmp_path / "killed" / "_manifest.json").read_text())["complete"]
    for directory in ("killed", "whole"):
        done = command(*arguments, str(tmp_path / directory), "--json")
        assert done.code == 0, done.err
        answer = json.loads(done.out)
        assert (answer["items"], answer["by_people"], answer["parts"], answer["round"]) == (400, 80, 3, 2)
    assert (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns == first
    assert rows_in(tmp_path / "killed") == rows_in(tmp_path / "whole")


def test_labels_are_right_and_the_audit_says_how_right(command: Command, tmp_path: Path) -> None:
    done = command(
        "campaign", "label-rest", "c", "-o", str(tmp_path / "rest"), "--min-confidence", "0.6", "--audit", "40"
    )
    assert done.code == 0, done.err
    assert "40 items are drawn for the audit" in done.err
    rows = pq.read_table(tmp_path / "rest").to_pylist()  # the directory as a whole, its manifest passed over
    assert rows == rows_in(tmp_path / "rest")
    assert [row["id"] for row in rows] == IDS
    given = [row for row in rows if row["labels"] is not None]
    right = [row["labels"] == CLASSES[TRUTH[IDS.index(row["id"])]] for row in given]
    assert np.mean(right) > 0.9
    answer = command("campaign", "label-rest", "c", "-o", str(tmp_path / "rest"), "--estimate", "--json")
    found = json.loads(answer.out)
    assert (found["drawn"], found["outstanding"]) == (40, 10)
    assert found["accuracy_without_cut"]["of"] == 30
    assert found["accuracy"]["low"] <= np.mean(right) <= found["accuracy"]["high"]
    told = command("campaign", "label-rest", "c", "-o", str(tmp_path / "rest"), "--estimate")
    assert "10 of 40 audited items are not labelled yet" in told.err
    assert "found where true" in told.out


def test_propagation_over_the_index_servers_neighbours_is_the_closed_form(addresses: dict[str, str]) -> None:
    header = learner_pb2.PropagateHeader(
        pool="pool", task=common_pb2.TASK_KIND_MULTICLASS, classes=CLASSES, k=6, alpha=0.8
    )
    labels = LabelledItems(ids=IDS[:40], labels=[[int(one)] for one in TRUTH[:40]])
    with LearnerClient(addresses["SEALPOOL_LEARNER"]) as client:
        found = np.concatenate([chunk.probabilities for chunk, _ in client.propagate(header, labels)])
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    similar = units @ units.T
    np.fill_diagonal(similar, -2)
    affinity = np.zeros((COUNT, COUNT))
    for row in range(COUNT):
        nearest = np.argsort(-similar[row])[:6]
        affinity[row, nearest] = np.clip(similar[row, nearest], 0, None)
    affinity = np.maximum(affinity, affinity.T)
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    given = np.zeros((COUNT, 4))
    given[np.arange(40), TRUTH[:40]] = 1
    expected = np.linalg.solve(np.eye(COUNT) - 0.8 * scale[:, None] * affinity * scale, 0.2 * given)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=2e-3)


def test_a_hugging_face_directory_is_read_by_the_datasets_library(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert command("campaign", "label-rest", "c", "-o", str(tmp_path / "rest")).code == 0
    out = tmp_path / "set"
    done = command(
        "export", "c", "--out", str(out), "--format", "hugging-face", "--predictions", str(tmp_path / "rest")
    )
    assert done.code == 0, done.err
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 40, "test": 10, "predicted": 350}
    assert found["train"].features["label"].names == CLASSES
    row = found["train"][7]
    assert (row["id"], row["text"], row["label"]) == ("item-7", "text 7", TRUTH[7])
    assert json.loads(row["metadata"]) == {"n": 7}
    again = command("export", "c", "--out", str(out), "--format", "hugging-face")
    assert again.code == 1
    assert "exists already" in again.err


def test_exports_to_files_have_texts_votes_and_predictions_where_asked(command: Command, tmp_path: Path) -> None:
    assert command("campaign", "label-rest", "c", "-o", str(tmp_path / "rest")).code == 0
    out = tmp_path / "labels.parquet"
    done = command("export", "c", "-o", str(out), "--payloads", "--predictions", str(tmp_path / "rest"), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["labels"] == 390  # all but the ten that are held out
    rows = pq.read_table(out).to_pylist()
    assert rows[0]["text"] == "text 0"
    assert (rows[0]["source"], rows[-1]["source"]) == ("oracle", "model")
    assert len(rows[-1]["probabilities"]) == 4
    said = command("export", "c", "--annotations").out.splitlines()
    assert [json.loads(line)["outcome"] for line in said] == ["label", "skip"]


def test_a_report_says_what_it_could_not_get(command: Command, tmp_path: Path) -> None:
    done = command("report", "c", "-o", str(tmp_path / "c.html"))
    assert done.code == 0, done.err
    page = (tmp_path / "c.html").read_text()
    assert "text 39" in page
    assert "Who labelled how much is not known" in page
    assert "Who labelled how much is not known" in done.out
