"""A neighbour graph put through drawn changes, crashes and damage, against a search over all items."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index_server.graph import neighbour_graph
from index_server.graph.builder import GraphBuilder
from index_server.graph.neighbour_graph import NeighbourGraph
from index_server.graph.search import GraphSearch

NEIGHBORS = 3
MAX_TAIL = 6


class GraphMachine(RuleBasedStateMachine):
    """Items are points on a line, few enough that many are equally far; an item is its key's place in `points`."""

    @initialize(higher_is_nearer=st.booleans(), data=st.data())
    def create(self, higher_is_nearer, data):
        self.directory = Path(tempfile.mkdtemp())
        self.sign = -1 if higher_is_nearer else 1
        self.version = 1
        self.alive = data.draw(st.lists(st.integers(0, 9), max_size=14))  # in the store's order
        self.floor, neighbour_graph._MIN_DEAD_KEYS = neighbour_graph._MIN_DEAD_KEYS, 0
        self.many, neighbour_graph._MAX_EVENTS = neighbour_graph._MAX_EVENTS, 3
        self.open()

    def open(self):
        self.graph = NeighbourGraph.open(
            self.directory / "graph", neighbors=NEIGHBORS, store_version=self.version, live_count=len(self.alive)
        )
        self.points = dict(zip(self.graph.live_keys().tolist(), self.alive, strict=True))
        self.search = GraphSearch(
            self.graph,
            search=self.nearest,
            score_tail=self.score_tail,
            higher_is_nearer=self.sign < 0,
            max_tail=MAX_TAIL,
        )
        self.builder = GraphBuilder(self.graph, self.search, max_tail=MAX_TAIL)

    def teardown(self):
        if hasattr(self, "graph"):
            self.graph.close()
            shutil.rmtree(self.directory)
            neighbour_graph._MIN_DEAD_KEYS, neighbour_graph._MAX_EVENTS = self.floor, self.many

    def score(self, key, other):
        return self.sign * abs(self.points[key] - self.points[other])

    def nearest(self, keys, k):
        found, scores = np.full((len(keys), k), -1), np.zeros((len(keys), k), np.float32)
        for place, key in enumerate(keys.tolist()):
            others = sorted((self.sign * self.score(key, other), other) for other in self.points if other != key)[:k]
            found[place, : len(others)] = [other for _, other in others]
            scores[place, : len(others)] = [self.sign * far for far, _ in others]
        return found, scores

    def score_tail(self, keys, tail, bounds):
        assert len(tail) <= MAX_TAIL
        scores = np.array([[self.score(key, other) for other in tail.tolist()] for key in keys.tolist()], np.float32)
        beyond = self.sign * scores >= self.sign * bounds[:, None]
        return np.where(beyond, bounds[:, None], scores)

    def drawn_change(self, data):
        retired = data.draw(st.sets(st.sampled_from(sorted(self.points)), max_size=3)) if self.points else set()
        return sorted(retired), data.draw(st.lists(st.integers(0, 9), max_size=3))

    @rule(data=st.data())
    def change(self, data):
        retired, new = self.drawn_change(data)
        self.version += 1
        self.graph.record(self.version, appended=len(new), retired=np.array(retired, np.int64))
        keys = self.graph.apply()
        for key in retired:
            del self.points[key]
        self.points.update(zip(keys.tolist(), new, strict=True))
        self.alive = [self.points[key] for key in sorted(self.points)]

    @rule()
    def compact_the_store(self):
        self.version += 2  # no items change, and nothing is recorded

    @rule(data=st.data(), killed=st.booleans())
    def fail_to_commit(self, data, killed):
        retired, new = self.drawn_change(data)
        self.graph.record(self.version + 1, appended=len(new), retired=np.array(retired, np.int64))
        if killed:
            self.reopen()
        else:
            self.graph.discard(self.version)

    @rule(data=st.data())
    def be_killed_after_the_commit(self, data):
        retired, new = self.drawn_change(data)
        self.version += 1
        self.graph.record(self.version, appended=len(new), retired=np.array(retired, np.int64))
        self.alive = [self.points[key] for key in sorted(self.points) if key not in retired] + new
        self.reopen()

    @rule()
    def reopen(self):
        known = self.graph.known_count
        applied = self.graph.live_count == len(self.alive)
        self.graph.close()
        self.open()
        assert not applied or self.graph.known_count <= known

    @rule(batch=st.integers(1, 5))
    def build(self, batch):
        before = self.graph.known_count
        found = self.builder.step(batch)
        assert found <= batch
        assert self.graph.known_count <= before + found
        assert found or self.graph.known_count == self.graph.live_count

    @rule(data=st.data(), kind=st.sampled_from(["lists", "marks"]))
    def damage(self, data, kind):
        (path,) = (self.directory / "graph").glob(f"*.{kind}")
        used = self.graph.key_count * (8 if kind == "marks" else 8 * self.graph.lists.width)
        if path.stat().st_size and used:
            content = bytearray(path.read_bytes())
            content[data.draw(st.integers(0, used - 1))] ^= 1 << data.draw(st.integers(0, 7))
            with path.open("r+b") as file:
                file.write(content)

    @rule(k=st.integers(1, NEIGHBORS + 2), data=st.data())
    def look_up(self, k, data):
        if not self.points:
            return
        keys = np.array(data.draw(st.lists(st.sampled_from(sorted(self.points)), unique=True)), np.int64)
        expected, expected_scores = self.nearest(keys, k)
        for _ in range(2):  # what was kept the first time answers the second
            found, scores = self.search.nearest(keys, k)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(scores, expected_scores)

    @invariant()
    def live_keys_are_the_items_in_the_stores_order(self):
        if hasattr(self, "graph"):
            assert self.graph.live_keys().tolist() == sorted(self.points)
            assert self.graph.live_count == len(self.points)


GraphMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestGraphAgainstModel = GraphMachine.TestCase
