"""`sealpool label` against a real scheduler, its input a pipe."""

import io

import pytest

from sealpool.cli.app import run
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec


def label(world: World, typed: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return run(["label", "c", "--annotator", "ann", "--batch", "2", "--scheduler", world.server.address])


def test_answers_are_in_the_scheduler_and_what_was_not_answered_is_open_again(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.client.create_campaign(make_spec(classes=["ham", "spam"]))
    world.client.run_round("c")
    assert label(world, "1\nc odd\nspam\nu\nham\nq\n", monkeypatch) == 0
    found = world.labels(only_effective=True)
    assert [list(one.classes) for one in found] == [["ham"], ["ham"]]
    assert {one.annotator for one in found} == {"ann"}
    about = world.client.get_campaign("c")
    assert (about.open_tasks, about.leased_tasks) == (4, 0)
    assert [one.comment for one in world.client.list_annotations("c")] == ["", "odd", "odd"]
    assert "2 items answered; c has 2 labels" in capsys.readouterr().out


def test_the_end_of_the_input_ends_it_and_no_open_task_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.client.create_campaign(make_spec(classes=["ham", "spam"]))
    assert label(world, "", monkeypatch) == 0
    assert "no task of c is open" in capsys.readouterr().err
    world.client.run_round("c")
    assert label(world, "1\n" * 6, monkeypatch) == 0
    assert "6 items answered" in capsys.readouterr().out
    assert world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_ACTIVE
