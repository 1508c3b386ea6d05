import errno
import os

import numpy as np
import pytest

from index_server.graph.builder import GraphBuilder
from index_server.graph.neighbour_graph import NeighbourGraph
from index_server.graph.search import GraphSearch
from sealpool.errors import ResourceExhausted


class Line:
    """A pool of points on a line, and how often it was searched."""

    def __init__(self, tmp_path, points, *, max_tail=100, neighbors=2):
        self.points = np.asarray(points, np.float32)
        self.graph = NeighbourGraph.open(tmp_path, neighbors=neighbors, store_version=1, live_count=len(points))
        self.searched, self.scored = 0, []
        self.search = GraphSearch(
            self.graph, search=self.find, score_tail=self.tail, higher_is_nearer=False, max_tail=max_tail
        )
        self.builder = GraphBuilder(self.graph, self.search, max_tail=max_tail)
        self.version = 1

    def change(self, *, new=(), retired=()):
        self.version += 1
        self.graph.record(self.version, appended=len(new), retired=np.array(retired, np.int64))
        self.graph.apply()
        self.points = np.append(self.points, np.asarray(new, np.float32))

    def find(self, keys, k):
        self.searched += len(keys)
        distances = np.abs(self.points[keys][:, None] - self.points)
        distances[:, self.graph.retired] = np.inf
        distances[np.arange(len(keys)), keys] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        found = np.full((len(keys), k), -1)
        scores = np.take_along_axis(distances, order, 1)
        found[:, : order.shape[1]] = np.where(np.isinf(scores), -1, order)
        return found, np.pad(scores, ((0, 0), (0, k - order.shape[1])))

    def tail(self, keys, tail, bounds):
        self.scored.append(len(tail))
        return np.abs(self.points[keys][:, None] - self.points[tail])

    def nearest(self, key=0, k=2):
        return self.search.nearest(np.array([key]), k)[0][0].tolist()


def test_what_was_found_once_is_looked_up(tmp_path):
    line = Line(tmp_path, range(20))
    assert line.nearest() == [1, 2]
    assert line.nearest() == [1, 2]
    assert line.searched == 1


def test_items_that_came_later_are_taken_in_without_a_search(tmp_path):
    line = Line(tmp_path, range(20))
    line.nearest()
    line.change(new=[0.5, 30])
    assert line.nearest() == [20, 1]
    assert line.nearest() == [20, 1]
    assert line.searched == 1
    assert line.scored == [2]  # the second time the list is of today


def test_a_list_outlasts_retired_neighbours_until_too_few_are_left(tmp_path):
    line = Line(tmp_path, range(20))
    line.nearest()
    line.change(retired=[1, 2, 3, 4])
    assert line.nearest() == [5, 6]
    assert line.searched == 1
    line.change(retired=[5])
    assert line.nearest() == [6, 7]
    assert line.searched == 2


def test_an_item_farther_than_the_end_of_a_used_up_list_does_not_fill_it(tmp_path):
    line = Line(tmp_path, range(20))
    line.nearest()
    line.change(new=[19.5], retired=[1, 2, 3, 4, 5])
    assert line.nearest() == [6, 7]


def test_a_list_of_a_small_pool_is_complete_and_stays_so(tmp_path):
    line = Line(tmp_path, [0, 1])
    assert line.nearest() == [1, -1]
    line.change(new=[5])
    assert line.nearest() == [1, 2]
    line.change(retired=[1])
    assert line.nearest() == [2, -1]
    assert line.searched == 1


def test_more_items_than_the_limit_are_not_scored_but_searched(tmp_path):
    line = Line(tmp_path, range(20), max_tail=3)
    line.nearest()
    line.change(new=[0.5, 0.6, 0.7])
    assert line.nearest() == [20, 21]
    line.change(new=[0.1, 0.2, 0.3, 0.4])
    assert line.nearest() == [23, 24]
    assert (line.searched, line.scored) == (2, [3])


def test_more_neighbours_than_the_graph_keeps_are_searched(tmp_path):
    line = Line(tmp_path, range(20))
    assert line.nearest(k=3) == [1, 2, 3]
    assert line.graph.known_count == 0


def test_a_builder_finds_all_lists_and_goes_on_after_a_restart(tmp_path):
    line = Line(tmp_path, range(20))
    assert (line.builder.step(8), line.graph.known_count) == (8, 8)
    line.graph.close()
    line = Line(tmp_path, range(20))
    assert [line.builder.step(8) for _ in range(3)] == [8, 4, 0]
    assert (line.searched, line.graph.known_count) == (12, 20)
    line.nearest()
    assert line.searched == 12


def test_a_builder_renews_lists_that_are_too_old(tmp_path):
    line = Line(tmp_path, range(5), max_tail=3)
    while line.builder.step(4):
        pass
    line.change(new=[7, 8, 9, 10], retired=[0])
    assert line.builder.step(100) == 8
    assert line.builder.step(100) == 0


def test_a_damaged_list_is_searched_anew_and_found_again(tmp_path):
    line = Line(tmp_path, range(20))
    line.nearest()
    line.graph.lists._lists.array["neighbors"][0, 0] = 7
    assert line.nearest() == [1, 2]
    assert line.nearest() == [1, 2]
    assert line.searched == 2


def test_a_full_disk_costs_the_builder_its_step_and_no_answer(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    line = Line(tmp_path, range(20))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert line.nearest() == [1, 2]
        assert line.search.disk_full is not None
        with pytest.raises(ResourceExhausted):
            line.builder.step(5)
    line.nearest()
    assert line.search.disk_full is None


def test_an_equally_far_newer_item_does_not_stand_in_for_an_unlisted_older_one(tmp_path):
    line = Line(tmp_path, [0, 1, 2, 3, 4, 5, 6, 6])  # the list of the first ends at the first of the equal ones
    line.nearest()
    line.change(new=[6], retired=[1, 2, 3, 4, 6])
    assert line.nearest() == [5, 7]


def test_a_list_that_was_brought_up_to_date_does_not_seem_complete(tmp_path):
    line = Line(tmp_path, range(20))
    line.nearest()
    line.change(new=[0.5], retired=[1, 2])
    assert line.nearest() == [20, 3]
    line.change(retired=[20, 3, 4, 5])
    assert line.nearest() == [6, 7]
