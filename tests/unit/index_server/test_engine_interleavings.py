"""Every engine on CPU under interleaved changes and searches, against NumPy."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index_server.engines import ENGINES, BuildRequest
from index_server.spec import Device, EngineOptions, Metric
from tests.support.milvus import connect, lite_in_process

DIMENSION = 16


def clustered(count, seed):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIMENSION))
    return (centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


def build(name, metric, sample, milvus):
    request = BuildRequest(
        dimension=DIMENSION,
        metric=metric,
        options=EngineOptions(ivf_lists=4, ivf_probes=4, lsh_bits=64, refine_factor=8),
        device=Device.CPU,
        items=len(sample),
        sample=lambda count: sample[:count],
        saved=None,
        threads=1,
        seed=0,
        milvus=milvus,
    )
    return ENGINES[name].build(request)


def true_rows(metric, vectors, queries, k, gone):
    if metric is Metric.L2:
        keys = ((queries[:, None, :].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    else:
        keys = -(queries.astype(np.float64) @ vectors.T.astype(np.float64))
    keys[:, gone] = np.inf
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def recall(found, true):
    return np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), true.tolist(), strict=True)])


class Interleaving(RuleBasedStateMachine):
    """Rows added, revealed and removed in any order: a search finds what is there, and nothing else."""

    name = ""
    milvus = None

    @initialize(metric=st.sampled_from([Metric.INNER_PRODUCT, Metric.L2]))
    def begin(self, metric):
        self.metric = metric
        self.all = clustered(400, seed=2)
        self.engine = build(self.name, metric, clustered(300, seed=3), self.milvus)
        self.live = np.zeros(0, bool)
        self.hidden = np.empty(0, np.int64)

    @precondition(lambda self: len(self.live) < 360)
    @rule(count=st.integers(0, 40))
    def add(self, count):
        rows = np.arange(len(self.live), len(self.live) + count)
        self.engine.add(rows, self.all[rows])
        self.live = np.concatenate([self.live, np.zeros(count, bool)])
        self.hidden = np.concatenate([self.hidden, rows])

    @rule(share=st.sampled_from([0.5, 1.0]), draw=st.integers(0, 99))
    def reveal(self, share, draw):
        shown = np.random.default_rng(draw).permutation(self.hidden)[: round(share * len(self.hidden))]
        self.engine.reveal(shown)
        self.live[shown] = True
        self.hidden = np.setdiff1d(self.hidden, shown)

    @precondition(lambda self: len(self.live))
    @rule(draw=st.integers(0, 99), count=st.integers(1, 30))
    def remove(self, draw, count):
        gone = np.random.default_rng(draw).integers(0, len(self.live), count)
        gone = gone[~np.isin(gone, self.hidden)]  # what was never revealed is not removed
        self.engine.remove(gone)
        self.live[gone] = False

    @rule(k=st.sampled_from([1, 7, 50]), draw=st.integers(0, 99))
    def search(self, k, draw):
        rng = np.random.default_rng(draw)
        queries = self.all[rng.integers(0, len(self.all), 3)] + np.float32(0.01)
        excluded = rng.integers(0, max(1, len(self.live)), 5) if len(self.live) else None
        kept = self.live.copy()
        if excluded is not None:
            kept[excluded] = False
        rows, _ = self.engine.search(queries, k, excluded=excluded)
        found = rows[rows >= 0]
        assert kept[found].all()
        expected = min(k, int(kept.sum()))
        assert ((rows >= 0).sum(axis=1) == expected).all()
        assert all(len(set(row[:expected].tolist())) == expected for row in rows)
        if expected:
            true = true_rows(self.metric, self.all[: len(kept)], queries, expected, np.flatnonzero(~kept))
            assert recall(rows[:, :expected], true) >= (1 if ENGINES[self.name].exact else 0.6)

    def teardown(self):
        if hasattr(self, "engine"):
            self.engine.close()

    @invariant()
    def counts(self):
        if hasattr(self, "engine"):
            assert self.engine.size == len(self.live)
            assert self.engine.removed == len(self.live) - int(self.live.sum())


@pytest.fixture(scope="module")
def milvus(tmp_path_factory):
    with lite_in_process(tmp_path_factory.mktemp("milvus")) as port, closing(connect(port)) as server:
        yield server


@pytest.mark.parametrize("name", [name for name, kind in ENGINES.items() if kind.cpu])
def test_holds_under_any_interleaving_of_changes_and_searches(name, milvus):
    machine = type(f"Interleaving of {name}", (Interleaving,), {"name": name, "milvus": milvus})
    limits = settings(
        max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    machine.TestCase.settings = limits
    machine.TestCase("runTest").runTest()
