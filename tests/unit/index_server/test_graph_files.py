import errno
import os
import sqlite3

import numpy as np
import pytest

from index_server.graph import neighbour_graph
from index_server.graph.lists import GONE, NONE, NeighbourLists
from index_server.graph.neighbour_graph import NeighbourGraph
from sealpool.errors import ResourceExhausted


def lists_of(tmp_path, width=3):
    return NeighbourLists(tmp_path / "1-3", width=width)


def graph_of(tmp_path, *, version=1, count=10):
    return NeighbourGraph.open(tmp_path, neighbors=2, store_version=version, live_count=count)


def keys(*numbers):
    return np.array(numbers, np.int64)


def put_something(graph, key=0):
    width = graph.lists.width
    graph.lists.put(keys(key), np.arange(1, width + 1)[None], np.ones((1, width), np.float32), 10)


def test_lists_come_back_as_they_were_put_also_from_a_file_opened_again(tmp_path):
    lists = lists_of(tmp_path)
    lists.put(keys(5, 2000), np.array([[1, 2, 3], [4, NONE, NONE]]), np.ones((2, 3), np.float32), keys(9, 3000))
    lists.close()
    neighbors, scores, as_of = lists_of(tmp_path).look_up(keys(2000, 7, 5, 10**6))
    assert neighbors.tolist() == [[4, -1, -1], [-1, -1, -1], [1, 2, 3], [-1, -1, -1]]
    assert as_of.tolist() == [3000, 0, 9, 0]
    assert scores[2].tolist() == [1, 1, 1]


def test_a_list_that_lies_at_another_keys_place_is_unknown(tmp_path):
    lists = lists_of(tmp_path)
    lists.put(keys(0), np.array([[1, 2, 3]]), np.ones((1, 3), np.float32), 9)
    lists._lists.array[1], lists._marks.array[1] = lists._lists.array[0], lists._marks.array[0]
    assert lists.look_up(keys(0, 1))[2].tolist() == [9, 0]
    lists.forget_damaged(keys(0, 1))
    assert lists.as_of(0, 2).tolist() == [9, 0]


def test_a_full_disk_refuses_a_list_and_keeps_those_before(tmp_path, monkeypatch):
    lists = lists_of(tmp_path)
    lists.put(keys(0), np.array([[1, 2, 3]]), np.ones((1, 3), np.float32), 9)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceExhausted):
        lists.put(keys(10**6), np.array([[1, 2, 3]]), np.ones((1, 3), np.float32), 9)
    assert lists.look_up(keys(0, 10**6))[2].tolist() == [9, 0]


@pytest.mark.parametrize(("version", "count"), [(1, 11), (0, 10)])
def test_a_store_that_the_log_does_not_fit_gets_fresh_keys_and_no_lists(tmp_path, version, count):
    graph = graph_of(tmp_path)
    put_something(graph)
    graph.close()
    graph = graph_of(tmp_path, version=version, count=count)
    assert graph.live_keys().tolist() == list(range(count))
    assert graph.known_count == 0


def test_lists_outlive_a_restart(tmp_path):
    graph = graph_of(tmp_path)
    put_something(graph)
    graph.close()
    assert graph_of(tmp_path).known_count == 1


def test_lists_left_by_a_lost_log_are_not_taken_for_those_of_the_new_one(tmp_path):
    graph = graph_of(tmp_path)
    put_something(graph)
    graph.close()
    (tmp_path / "keys.sqlite").unlink()
    assert graph_of(tmp_path).known_count == 0


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM event WHERE version = 3",
        "DELETE FROM event WHERE version = 2",
        "UPDATE event SET retired = zeroblob(8) WHERE version = 2",
        "UPDATE base SET keys = keys + 0, retired = x'8000'",
    ],
)
def test_a_log_that_was_changed_is_not_believed_though_the_count_fits(tmp_path, damage):
    graph = graph_of(tmp_path)
    for version, retired in ((2, keys(3)), (3, keys(4))):
        graph.record(version, appended=1, retired=retired)
        graph.apply()
    put_something(graph)
    graph.close()
    with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
        connection.execute(damage)
    connection.close()
    graph = graph_of(tmp_path, version=3)
    assert graph.live_keys().tolist() == list(range(10))
    assert graph.known_count == 0


def test_a_log_that_is_no_database_is_begun_anew(tmp_path):
    graph_of(tmp_path).close()
    (tmp_path / "keys.sqlite").write_bytes(b"not a database at all" * 400)
    assert graph_of(tmp_path).live_count == 10


def test_renumbering_keeps_lists_and_marks_neighbours_that_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbour_graph, "_MIN_DEAD_KEYS", 0)
    graph = graph_of(tmp_path)
    put_something(graph)  # neighbours 1 to 6
    graph.record(2, appended=1, retired=keys(1, 3, 5, 7, 8, 9))
    graph.apply()
    graph.close()
    graph = graph_of(tmp_path, version=2, count=5)
    assert graph.live_keys().tolist() == [0, 1, 2, 3, 4]
    neighbors, scores, as_of = graph.lists.look_up(keys(0))
    assert neighbors.tolist() == [[GONE, 1, GONE, 2, GONE, 3]]
    assert scores.tolist() == [[1] * 6]
    assert as_of.tolist() == [4]  # the item that came last is still newer than the list
    assert len(list(tmp_path.glob("*.lists"))) == 1


def test_a_change_that_was_not_recorded_cannot_be_applied(tmp_path):
    graph = graph_of(tmp_path)
    graph.record(2, appended=1, retired=keys())
    graph.discard(1)
    with pytest.raises(ValueError, match="recorded"):
        graph.apply()
