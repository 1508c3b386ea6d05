"""The commands about pools and candidate pools, against a real index server in this process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry

from index_server.app import build
from index_server.settings import IndexServerSettings
from sealpool.cli.app import run
from sealpool.client import IndexClient
from sealpool.v1 import common_pb2
from tests.support.index_at_hand import wait_until_serving

Answer = Callable[..., dict]


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "backups").mkdir()
    settings = IndexServerSettings(
        listen="127.0.0.1:0",
        metrics_listen="",
        data_dir=tmp_path / "index",
        search_threads=1,
        snapshot_roots=[str(tmp_path / "backups")],
    )
    server = build(settings, registry=CollectorRegistry(), log=structlog.wrap_logger(structlog.ReturnLogger()))
    with grpc.insecure_channel(server.address) as channel:
        wait_until_serving(channel)
    monkeypatch.setenv("SEALPOOL_INDEX", server.address)
    yield server.address
    server.stop()


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run a command line with --json, and return what it answers."""

    def call(*arguments: str) -> dict:
        capsys.readouterr()
        code = run([*arguments, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return call


def test_a_pool_is_made_filled_named_and_asked_about(target: str, answer: Answer, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)).round(3).tolist()
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"id": f"i{n}", "vector": row}) + "\n" for n, row in enumerate(rows)))
    made = answer("pool", "create", "p@1", "--dimension", "4", "--engine", "flat", "--min-recall", "0.9")
    assert made["spec"]["min_recall"] == 0.9
    assert answer("pool", "ingest", "p@1", str(items))["inserted"] == 30
    assert answer("pool", "alias", "set", "p", "p@1")["previous_pool"] == ""
    shown = answer("pool", "show", "p")
    assert (shown["spec"]["name"], shown["aliases"], shown["size"], shown["recall"]) == ("p@1", ["p"], 30, 1.0)

    with IndexClient(target) as client:
        update = client.expand_candidates("p", "c", ["i0"], policy=common_pb2.PolicySpec(k=3))
    near, far = update.added.ids[0], next(f"i{n}" for n in range(1, 30) if f"i{n}" not in update.added.ids)
    reasons = answer("pool", "why", "p", "c", "i0", near, far)["items"]
    assert [reason["state"] for reason in reasons] == ["labelled", "candidate", "outside"]
    assert (reasons[1]["source_id"], reasons[1]["version"]) == ("i0", 1)
    assert reasons[2]["score"] is None
    assert 0.1 < answer("pool", "reach", "p", "c", "--k", "3")["reachable_share"] <= 1

    assert answer("pool", "snapshot", "p", str(tmp_path / "backups" / "p"))["size"] == 30
    restored = answer("pool", "restore", str(tmp_path / "backups" / "p"), "--name", "again")
    assert (restored["spec"]["name"], restored["size"]) == ("again", 30)
    assert answer("pool", "alias", "delete", "p") == {"alias": "p"}
    assert answer("pool", "show", "p@1")["aliases"] == []
