"""Existing labels handed in: all that can be, with a reason for each of the others."""

import json

import pytest

from sealpool.cli.label_import import Imported, import_labels
from sealpool.errors import NotFound, Unavailable
from sealpool.v1 import scheduler_pb2


class Scheduler:
    """Takes labels of known items, all of a call or none."""

    def __init__(self, unknown=()):
        self.unknown = set(unknown)
        self.taken = {}
        self.calls = 0
        self.away_at = 0

    def submit(self, labels):
        self.calls += 1
        if self.calls == self.away_at:
            raise Unavailable("away")
        missing = self.unknown & labels.keys()
        if missing:
            raise NotFound("item", *sorted(missing))
        self.taken.update(labels)
        return scheduler_pb2.SubmitLabelsResponse(accepted=len(labels), labels=len(self.taken))


def labels_of(count):
    return {f"i{number:04d}": ["a"] for number in range(count)}


@pytest.mark.parametrize("wrong", [[], ["i0000"], ["i2499"], ["i0007", "i0008", "i1500"]])
def test_only_labels_at_fault_are_left_out(wrong):
    scheduler = Scheduler(wrong)
    done = import_labels(labels_of(2500), scheduler.submit, keep_going=True)
    assert [one.item_id for one in done.refused] == wrong
    assert all("no such item" in one.reason for one in done.refused)
    assert scheduler.taken.keys() == labels_of(2500).keys() - set(wrong)
    assert done.total.accepted == 2500 - len(wrong) == done.total.labels


def test_otherwise_the_first_refusal_ends_it_and_what_went_before_stays():
    scheduler = Scheduler(["i1500"])
    with pytest.raises(NotFound):
        import_labels(labels_of(2500), scheduler.submit, keep_going=False)
    assert len(scheduler.taken) == 1000


def test_a_scheduler_that_is_away_is_no_refusal():
    scheduler = Scheduler()
    scheduler.away_at = 2
    with pytest.raises(Unavailable):
        import_labels(labels_of(2500), scheduler.submit, keep_going=True)
    assert len(scheduler.taken) == 1000


def test_nothing_to_hand_in_is_nothing_handed_in():
    assert import_labels({}, Scheduler().submit, keep_going=True) == Imported()


def test_the_command_tells_each_refused_label_and_exits_with_1(fakes, cli, tmp_path):
    assert cli("campaign", "create", "c", "--pool", "p", "--class", "a", "--class", "b", "--budget", "50").code == 0
    fakes.scheduler.refuses = {"gone"}
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": "x", "labels": ["a"]}\n{"id": "gone", "labels": ["b"]}\n')
    outcome = cli("labels", "submit", "c", "-f", str(file), "--keep-going", "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    assert told["accepted"] == 1
    assert [one["item_id"] for one in told["refused"]] == ["gone"]
    outcome = cli("labels", "submit", "c", "-f", str(file), "--keep-going")
    assert "gone" in outcome.out
    assert "no such item" in outcome.out
