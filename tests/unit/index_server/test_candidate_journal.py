import pytest

from index_server.candidates.journal import Journal
from index_server.candidates.state import CandidatePool, Change


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "candidates.sqlite")
    yield journal
    journal.close()


def change(version, pool_version, added=(), removed=(), labelled=()):
    return Change(version=version, pool_version=pool_version, added=added, removed=removed, labelled=labelled)


def test_gives_back_what_was_written(journal):
    journal.begin(
        "c", CandidatePool(policy="seals", first_version=0), change(1, 5, ["a", 'ü"\n'], [], ["x"]), pool_version=5
    )
    journal.write({"c": change(2, 5, ["b"], ["a"], ["a"])}, pool_version=5)
    pools, ended = journal.load(5)
    assert list(pools["c"].members) == ['ü"\n', "b"]
    assert sorted(pools["c"].labelled) == ["a", "x"]
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
