"""A pool put through drawn sequences of calls and restarts, against a few lines of plain Python."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index_server.candidates.state import Standing
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import EngineOptions, GraphKind, GraphSpec, Metric, PoolSpec
from tests.support.pools import expand, index_settings, open_pool

DIMENSION = 3
K = 3
SETTINGS = index_settings(max_removed_share=0.005)
IDS = st.sampled_from([f"item-{number}" for number in range(12)])
# Few vectors, so that items often are equal; and without symmetry, so that only equal ones have equal scores, which
# float32 would round apart.
VECTORS = st.sampled_from(np.random.default_rng(0).standard_normal((6, DIMENSION)).round(3).tolist())
CAMPAIGNS = st.sampled_from(["red", "blue"])


class Held:
    """What a caller of ExpandCandidates knows."""

    def __init__(self):
        self.version = 0
        self.ids = set()


class PoolMachine(RuleBasedStateMachine):
    @initialize(
        metric=st.sampled_from(list(Metric)),
        engine=st.sampled_from(["flat", "hnsw", "ivf_flat"]),
        graph=st.builds(GraphSpec, kind=st.sampled_from(list(GraphKind)), neighbors=st.integers(2, 4)),
    )
    def create(self, metric, engine, graph):
        self.directory = Path(tempfile.mkdtemp())
        options = EngineOptions(ivf_lists=1)
        self.spec = PoolSpec(name="p", dimension=DIMENSION, metric=metric, engine=engine, options=options, graph=graph)
        Pool.create(self.directory, self.spec)
        self.items = {}  # in the pool's order
        self.candidates = {}
        self.labelled = {}
        self.expanded = {}
        self.held = {}
        self.open()

    def open(self):
        self.pool = open_pool(self.directory, self.spec, settings=SETTINGS)

    def teardown(self):
        if hasattr(self, "directory"):
            self.pool.close()
            shutil.rmtree(self.directory)

    @rule(batch=st.dictionaries(IDS, VECTORS, min_size=1, max_size=8))
    def upsert(self, batch):
        changed = self.pool.upsert([Records(ids=list(batch), vectors=np.array(list(batch.values()), np.float32))])
        replaced = batch.keys() & self.items.keys()
        assert (changed.inserted, changed.replaced) == (len(batch) - len(replaced), len(replaced))
        for item_id, vector in batch.items():
            self.items.pop(item_id, None)
            self.items[item_id] = np.array(vector, np.float32)
        for held in self.held.values():
            held.ids -= replaced  # they must come again

    @rule(ids=st.sets(IDS, max_size=4))
    def delete(self, ids):
        changed = self.pool.delete(sorted(ids))
        present = ids & self.items.keys()
        assert (changed.deleted, changed.missing) == (len(present), len(ids) - len(present))
        for item_id in present:
            del self.items[item_id]
        for candidates in self.candidates.values():
            candidates -= present

    @rule()
    def upkeep(self):
        assert self.pool.upkeep.run() is None

    @rule()
    def restart(self):
        self.pool.close()
        self.open()

    @rule(query=VECTORS, k=st.integers(1, 15), exclude=st.sets(IDS, max_size=3))
    def search(self, query, k, exclude):
        found = self.pool.search(np.array([query], np.float32), k, exclude=sorted(exclude), vectors=True)
        assert found.ids == self.nearest(query, k, exclude)
        assert found.counts.tolist() == [len(found.ids)]
        if found.ids:
            np.testing.assert_allclose(found.vectors, [self.items[i] for i in found.ids], rtol=1e-6)

    @rule(campaign=CAMPAIGNS, data=st.data())
    def expand(self, campaign, data):
        if not self.items:
            return
        labelled = data.draw(st.lists(st.sampled_from(list(self.items)), unique=True, max_size=3))
        expand_from = [item_id for item_id in labelled if data.draw(st.booleans())]
        held = self.held.setdefault(campaign, Held())
        before = set(self.candidates.get(campaign, ()))
        previewed = expand(self.pool, campaign, labelled, expand_from=expand_from, preview=True, k=K)
        got = expand(self.pool, campaign, labelled, expand_from=expand_from, held=held.version, k=K)
        self.expect(campaign, labelled, expand_from)
        assert {i for part in previewed.added for i in part.ids} == self.candidates[campaign] - before
        assert set(previewed.campaign.difference.removed) == before - self.candidates[campaign]
        self.take_in(campaign, held, got)
        rest = [vector for item_id, vector in self.items.items() if item_id not in self.labelled[campaign]]
        units = [vector / np.linalg.norm(vector) for vector in rest]
        mean = np.mean(units, axis=0) if units else np.zeros(DIMENSION)
        np.testing.assert_allclose(got.direction, mean, atol=1e-6)

    def expect(self, campaign, labelled, expand_from):
        told = self.labelled.setdefault(campaign, set())
        candidates = self.candidates.setdefault(campaign, set())
        expanded = self.expanded.setdefault(campaign, set())
        for source in set(expand_from) - expanded:
            candidates |= set(self.nearest(self.items[source], K, {source}))
        expanded |= set(expand_from)
        told |= set(labelled)
        candidates -= told

    def take_in(self, campaign, held, got):
        difference = got.campaign.difference
        if difference.base_version == 0:
            held.ids = set()
        held.ids -= set(difference.removed)
        for part in got.added:
            held.ids |= set(part.ids)
            np.testing.assert_allclose(part.vectors, [self.items[i] for i in part.ids], rtol=1e-6)
        held.version = got.campaign.version
        assert held.ids == self.candidates[campaign]
        assert got.campaign.size == len(held.ids)

    @rule(campaign=CAMPAIGNS)
    def explain(self, campaign):
        if campaign not in self.candidates:
            return
        _, reasons = self.pool.explain(campaign, list(self.items))
        for reason in reasons:
            standing = reason.reason.standing
            assert (standing is Standing.CANDIDATE) == (reason.item_id in self.candidates[campaign])
            assert (standing is Standing.LABELLED) == (reason.item_id in self.labelled[campaign])
            if standing is Standing.CANDIDATE and reason.source_id:
                assert reason.source_id in self.expanded[campaign]

    @rule(campaign=CAMPAIGNS)
    def drop(self, campaign):
        _, dropped = self.pool.drop_candidates(campaign)
        assert dropped == len(self.candidates.pop(campaign, ()))
        self.labelled.pop(campaign, None)
        self.expanded.pop(campaign, None)

    @rule(campaign=CAMPAIGNS, seed=st.integers(0, 5), count=st.integers(0, 6))
    def sample_the_same_after_a_restart(self, campaign, seed, count):
        drawn = self.pool.sample(count, seed=seed, campaign=campaign, exclude=["item-0"])
        self.restart()
        assert self.pool.sample(count, seed=seed, campaign=campaign, exclude=["item-0"]) == drawn
        taken = self.candidates.get(campaign, set()) | self.labelled.get(campaign, set()) | {"item-0"}
        assert set(drawn[1]) <= self.items.keys() - taken
        assert len(set(drawn[1])) == min(count, len(self.items.keys() - taken))

    @invariant()
    def items_are_those_of_the_model_in_its_order(self):
        if not hasattr(self, "pool"):
            return
        parts = list(self.pool.scan(vectors=True, payloads=False).parts)
        assert [item_id for part in parts for item_id in part.ids] == list(self.items)
        for part in parts:
            np.testing.assert_array_equal(part.vectors, [self.items[item_id] for item_id in part.ids])
        assert self.pool.size == len(self.items)

    def nearest(self, query, k, exclude):
        """Return ids by score as float32 arithmetic has it, and equal ones in the pool's order."""
        query = np.asarray(query, np.float32)
        keys = []
        for position, (item_id, vector) in enumerate(self.items.items()):
            if item_id not in exclude:
                keys.append((round(self.key(query, vector), 4), position, item_id))
        return [item_id for _, _, item_id in sorted(keys)[:k]]

    def key(self, query, vector):
        query, vector = query.astype(float), vector.astype(float)
        if self.spec.metric is Metric.L2:
            return float(np.linalg.norm(query - vector))
        if self.spec.metric is Metric.COSINE:
            return -float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))
        return -float(query @ vector)


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestPoolAgainstModel = PoolMachine.TestCase
