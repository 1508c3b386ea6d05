"""`sealpool erase` over a real index server, learner and scheduler: what was erased is in no file of theirs."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealpool.cli.app import run
from sealpool.client import IndexClient, SchedulerClient
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2
from tests.support.processes import Stack

IDS = [ItemId(f"report-{number:03}") for number in range(60)]
SECRET = "Erika Mustermann, born 12.8.1964"
WHO = "anna.schmidt@clinic"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    stack.start()
    try:
        yield stack
    finally:
        stack.kill()


def fill(stack: Stack) -> None:
    """A pool, an alias of it, a campaign on either with a label, and one on another pool."""
    vectors = np.random.default_rng(0).standard_normal((len(IDS), 8), dtype=np.float32)
    payloads = [Payload(text=SECRET if item == IDS[7] else f"report {item}") for item in IDS]
    with IndexClient(stack.index.address) as index, SchedulerClient(stack.scheduler.address) as scheduler:
        for pool in ("reports", "others"):
            index.create_pool(index_pb2.PoolSpec(name=pool, dimension=8))
            index.upsert(pool, Items(ids=IDS, vectors=vectors, payloads=payloads))
        index.set_alias("current", "reports")
        for campaign, pool in (("one", "reports"), ("two", "current"), ("three", "others")):
            scheduler.create_campaign(
                scheduler_pb2.CampaignSpec(
                    name=campaign,
                    pool=pool,
                    task=common_pb2.TASK_KIND_MULTICLASS,
                    classes=["a", "b"],
                    budget=20,
                    batch_size=5,
                )
            )
            labels = [
                scheduler_pb2.NewLabel(item_id=item, classes=["a"], comment="a comment on her") for item in IDS[6:9]
            ]
            scheduler.submit_annotations(campaign, labels, annotator=WHO)


def labelled(stack: Stack, campaign: str) -> list[tuple[str, str]]:
    with SchedulerClient(stack.scheduler.address) as scheduler:
        return [(label.item_id, label.annotator) for label in scheduler.list_labels(campaign)]


def test_people_are_gone_from_pools_and_campaigns_and_their_files(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(stack)
    where = ["--index", stack.index.address, "--scheduler", stack.scheduler.address]
    (tmp_path / "ids").write_text(f"{IDS[7]}\n\nnot there\n")
    assert run(["erase", "items", "reports", IDS[8], "--ids", str(tmp_path / "ids"), "--yes", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "pool": "reports",
        "deleted": 2,
        "campaigns": {"one": 2, "two": 2},
        "derived_item_ids": {},
    }
    for campaign in ("one", "two"):
        first, *others = labelled(stack, campaign)
        assert first == (IDS[6], WHO)
        assert all(item.startswith("erased:") for item, _ in others)
    assert labelled(stack, "three") == [(item, WHO) for item in IDS[6:9]]

    assert run(["erase", "annotator", WHO, "nobody", "--yes", *where[2:]]) == 0
    assert "3 campaigns: one, three, two" in capsys.readouterr().out
    assert all(name.startswith("erased:") for c in ("one", "two", "three") for _, name in labelled(stack, c))
    assert run(["erase", "annotator", WHO, "--yes", *where[2:]]) == 0
    assert "0 campaigns" in capsys.readouterr().out

    with IndexClient(stack.index.address) as index:
        index.delete_pool("others")  # where the text is kept, rightly
    assert run(["erase", "items", "others", IDS[6], "--yes", *where]) == 0  # which a campaign remembers
    assert "ids replaced in 1 campaigns" in capsys.readouterr().out
    assert IDS[6] not in {item for item, _ in labelled(stack, "three")}
    assert run(["erase", "items", "nowhere", IDS[6], "--yes", *where]) == 1
    assert "nowhere" in capsys.readouterr().err
    stack.stop()
    holding = [path for path in (tmp_path / "index_server").rglob("*") if path.is_file() and holds(path, SECRET)]
    assert holding == []


def holds(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()


def test_without_a_yes_nobody_is_asked_to_erase(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(["erase", "annotator", WHO, "--scheduler", "127.0.0.1:1"]) == 1  # where nobody listens
    assert "nothing was erased" in capsys.readouterr().err


def test_erasing_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["erase", "items", "reports", "--yes"]) == 1
    assert "names nothing" in capsys.readouterr().err
