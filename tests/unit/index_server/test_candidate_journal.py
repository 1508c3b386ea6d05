import sqlite3

import pytest

from index_server.candidates.journal import Journal
from index_server.candidates.state import CandidatePool, Change
from sealpool.errors import ResourceExhausted


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "candidates.sqlite")
    yield journal
    journal.close()


def change(version, pool_version, added=(), removed=(), labelled=(), expanded=()):
    return Change(
        version=version,
        pool_version=pool_version,
        added=added,
        removed=removed,
        labelled=labelled,
        expanded=expanded,
    )


def test_gives_back_what_was_written(journal):
    first = change(1, 5, ["a", 'ü"\n'], [], ["x"], ["x"])
    journal.begin("c", CandidatePool(policy="seals", first_version=0), first, pool_version=5)
    journal.write({"c": change(2, 5, ["b"], ["a"], ["a"])}, pool_version=5)
    pools, ended = journal.load(5)
    assert list(pools["c"].members) == ['ü"\n', "b"]
    assert sorted(pools["c"].labelled) == ["a", "x"]
    assert [pools["c"].is_expanded(item_id) for item_id in ("a", "x")] == [False, True]
    assert pools["c"].version == 2
    assert ended == {}


def test_a_change_whose_pool_version_never_came_does_not_count(journal):
    journal.begin("c", CandidatePool(policy="seals", first_version=0), change(1, 5, ["a"]), pool_version=5)
    journal.write({"c": change(2, 6, [], ["a"])}, pool_version=5)
    pools, _ = journal.load(5)
    assert list(pools["c"].members) == ["a"]


def test_a_change_counts_once_the_store_has_its_pool_version(journal):
    journal.begin("c", CandidatePool(policy="seals", first_version=0), change(1, 5, ["a"]), pool_version=5)
    journal.write({"c": change(2, 6, [], ["a"])}, pool_version=5)
    pools, _ = journal.load(6)
    assert list(pools["c"].members) == []


def test_a_failed_change_gives_way_to_the_next(journal):
    journal.begin("c", CandidatePool(policy="seals", first_version=0), change(1, 5, ["a"]), pool_version=5)
    journal.write({"c": change(2, 6, [], ["a"])}, pool_version=5)
    journal.discard(pool_version=5)
    pools, _ = journal.load(7)
    assert list(pools["c"].members) == ["a"]


def test_a_dropped_candidate_pool_leaves_its_last_version(journal):
    journal.begin("c", CandidatePool(policy="full", first_version=3), change(4, 5, ["a"]), pool_version=5)
    journal.drop("c", version=4, pool_version=5)
    assert journal.load(5) == ({}, {"c": 4})


def test_a_full_disk_refuses_a_change_whole_and_smaller_ones_go_on(journal, tmp_path, monkeypatch):
    journal.begin("c", CandidatePool(policy="seals", first_version=0), change(1, 5, ["a"]), pool_version=5)
    connect = sqlite3.connect

    def connect_to_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # not below what the file has: it cannot grow
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_full_disk)
    full = Journal(tmp_path / "candidates.sqlite")
    many = [f"item-{number}" for number in range(20_000)]
    with pytest.raises(ResourceExhausted, match="disk space"):
        full.write({"c": change(2, 5, many)}, pool_version=5)
    full.write({"c": change(2, 5, ["b"])}, pool_version=5)
    pools, _ = full.load(5)
    assert list(pools["c"].members) == ["a", "b"]
    full.close()


def test_a_file_that_is_no_database_is_said_to_be_unreadable(tmp_path):
    (tmp_path / "broken.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match="candidates"):
        Journal(tmp_path / "broken.sqlite")
