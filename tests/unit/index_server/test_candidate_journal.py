import sqlite3

import numpy as np
import pyarrow as pa
import pytest

from index_server.candidates.journal import Journal
from index_server.candidates.state import CandidatePool, Change, Named
from sealpool.errors import ResourceExhausted

IDS = ["a", 'ü"\n', "b", "x", *(f"item-{number}" for number in range(20_000))]
ROWS = {item_id: row for row, item_id in enumerate(IDS)}


def ids_at(rows):
    return pa.array(IDS, pa.large_string()).take(pa.array(rows))


def rows_of(ids):
    return np.array([ROWS.get(item_id, -1) for item_id in ids], np.int64)


def named(ids):
    return Named(ids=list(ids), rows=rows_of(ids))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "candidates.sqlite")
    yield journal
    journal.close()


def change(version, pool_version, added=(), removed=(), labelled=(), expanded=(), sources=None, **more):
    return Change(
        version=version,
        pool_version=pool_version,
        added=rows_of(added),
        sources=np.full(len(added), -1) if sources is None else rows_of(sources),
        scores=np.linspace(0, 1, len(added), dtype=np.float32),
        removed=named(removed),
        labelled=named(labelled),
        expanded=named(expanded),
        **more,
    )


def begin(journal, first, *, policy="seals", first_version=0):
    candidates = CandidatePool(policy=policy, first_version=first_version)
    journal.begin("c", candidates, first, ids_at, pool_version=5)


def write(journal, *changes):
    for one in changes:
        journal.write({"c": one}, ids_at, pool_version=5)


def added(journal, pool_version):
    return [list(stored.added) for stored in journal.load(pool_version)["c"].changes]


def test_gives_back_what_was_written(journal):
    classes = [("x", 3, (0, 4)), ("never seen", -1, ())]
    begin(journal, change(1, 5, ["a", 'ü"\n'], [], ["x", "never seen"], ["x"], sources=["x", "?"], classes=classes))
    write(journal, change(2, 5, ["b"], ["a"], ["a"], deleted=named(['ü"\n'])))
    campaign = journal.load(5)["c"]
    assert (campaign.policy, campaign.first_version) == ("seals", 0)
    first, second = campaign.changes
    assert (first.version, first.pool_version) == (1, 5)
    assert (first.added, first.sources, first.scores.tolist()) == (["a", 'ü"\n'], ["x", None], [0, 1])
    assert (first.labelled, first.expanded) == (["x", "never seen"], ["x"])
    assert first.classes == {"x": (0, 4), "never seen": ()}
    assert (second.added, second.removed, second.deleted) == (["b"], ["a"], ['ü"\n'])


def test_a_change_whose_pool_version_never_came_does_not_count(journal):
    begin(journal, change(1, 5, ["a"]))
    write(journal, change(2, 6, ["b"]))
    assert added(journal, 5) == [["a"]]


def test_a_change_counts_once_the_store_has_its_pool_version(journal):
    begin(journal, change(1, 5, ["a"]))
    write(journal, change(2, 6, ["b"]))
    assert added(journal, 6) == [["a"], ["b"]]


def test_a_failed_change_gives_way_to_the_next(journal):
    begin(journal, change(1, 5, ["a"]))
    write(journal, change(2, 6, ["b"]))
    journal.discard(pool_version=5)
    assert added(journal, 7) == [["a"]]
    write(journal, change(2, 6, ["x"]))
    assert added(journal, 6) == [["a"], ["x"]]


def test_a_dropped_candidate_pool_leaves_its_last_version(journal):
    begin(journal, change(4, 5, ["a"]), policy="full", first_version=3)
    journal.drop("c", version=4, pool_version=5)
    stored = journal.load(5)["c"]
    assert (stored.policy, stored.first_version, stored.changes) == ("", 4, [])


def test_a_full_disk_refuses_a_change_whole_and_smaller_ones_go_on(journal, tmp_path, monkeypatch):
    begin(journal, change(1, 5, ["a"]))
    connect = sqlite3.connect

    def connect_to_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # not below what the file has: it cannot grow
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_full_disk)
    full = Journal(tmp_path / "candidates.sqlite")
    with pytest.raises(ResourceExhausted, match="disk space"):
        write(full, change(2, 5, IDS[4:]))
    write(full, change(2, 5, ["b"]))
    assert added(full, 5) == [["a"], ["b"]]
    full.close()


def test_a_file_that_is_no_database_is_said_to_be_unreadable(tmp_path):
    (tmp_path / "broken.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match="candidates"):
        Journal(tmp_path / "broken.sqlite")


def test_a_file_of_another_format_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute("CREATE TABLE campaign (name TEXT)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(OSError, match="format 1"):
        Journal(tmp_path / "old.sqlite")
