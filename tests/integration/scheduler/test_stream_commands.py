"""`sealpool stream …` and `sealpool synthesize` against a scheduler."""

import json
from pathlib import Path

import pytest

from sealpool.cli.app import run
from sealpool.v1 import learner_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec


@pytest.fixture
def at(world: World) -> tuple[str, str]:
    stream = pb.StreamSpec(uncertainty=0.1, budget_share=0.5, encoder=learner_pb2.EmbedHeader(encoder="e"))
    world.client.create_campaign(make_spec(budget=100, stream=stream))
    for _ in range(2):
        world.client.run_round("c")
        world.label()
    return "--scheduler", world.server.address


def test_a_file_is_considered_item_by_item(
    at: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.jsonl"
    rows = [{"id": f"s{n}", "text": f"new {n}", "source": "x"} for n in range(5)]
    rows += [{"id": f"s{n}", "text": f"new {n}"} for n in range(5, 300)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["stream", "consider", "c", "-f", str(file), "--json", *at]) == 0
    decisions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [decision["item_id"] for decision in decisions] == [f"s{n}" for n in range(300)]
    asked = sum(decision["asked"] for decision in decisions)
    assert run(["stream", "consider", "c", "-f", str(file), "--show", *at]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 301
    assert lines[-1] == "300 items, 0 of them sent to the oracle; 300 had been decided of before"
    assert run(["stream", "show", "c", "--json", *at]) == 0
    stream = json.loads(capsys.readouterr().out)
    assert (stream["seen"], stream["asked"]) == (300, asked)
    assert 20 < asked <= 89
    assert run(["stream", "show", "c", *at]) == 0
    assert f"{asked} (lately" in capsys.readouterr().out


def test_items_are_synthesized(at: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["synthesize", "c", "--method", "boundary", "--count", "3", "--json", *at]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [item["method"] for item in items] == ["boundary"] * 3
    assert run(["synthesize", "c", "--method", "interpolate", "-n", "2", *at]) == 0
    assert "2 items wait for a label" in capsys.readouterr().out
    assert run(["synthesize", "c", "--method", "boundary", "--keep-label", *at]) == 1
    assert "BOUNDARY has no such option" in capsys.readouterr().err
    assert run(["synthesize", "c", "--method", "guess", *at]) == 2


def test_what_is_wrong_in_a_file_is_named(
    at: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"id": "s1"}\n')
    assert run(["stream", "consider", "c", "-f", str(file), *at]) == 1
    assert "neither text nor vector" in capsys.readouterr().err
