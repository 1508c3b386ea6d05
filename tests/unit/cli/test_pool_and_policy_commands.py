"""Engines, snapshots, aliases, candidate policies on the command line, against services faked at the gRPC port."""

import json

import pytest

from sealpool.v1 import common_pb2, index_pb2

TWO_CLASSES = ("--pool", "p", "--class", "a", "--class", "b", "--budget", "50")


def test_pool_create_sends_every_option(fakes, cli):
    outcome = cli(
        *("pool", "create", "p", "--dimension", "8", "--engine", "ivf_pq", "--min-recall", "0.9"),
        *("--graph", "lazy", "--graph-neighbors", "200", "--ivf-lists", "1", "--ivf-probes", "2"),
        *("--hnsw-neighbors", "3", "--hnsw-ef-construction", "4", "--hnsw-ef-search", "5", "--pq-subquantizers", "6"),
        *("--lsh-bits", "7", "--refine-factor", "8", "--cagra-degree", "9", "--from-lance", "/data/web.lance"),
        *("--id-column", "i", "--vector-column", "v", "--text-column", "t", "--uri-column", "u"),
        *("--metadata-column", "m"),
    )
    assert outcome.code == 0, outcome.err
    assert "read-only" in outcome.out
    assert fakes.index.pools["p"].spec == index_pb2.PoolSpec(
        name="p",
        dimension=8,
        metric=index_pb2.METRIC_COSINE,
        dtype=common_pb2.DTYPE_FLOAT32,
        engine="ivf_pq",
        device="auto",
        min_recall=0.9,
        neighbor_graph=index_pb2.NeighborGraph(kind=index_pb2.NEIGHBOR_GRAPH_KIND_LAZY, neighbors=200),
        options=index_pb2.EngineOptions(
            ivf_lists=1,
            ivf_probes=2,
            hnsw_neighbors=3,
            hnsw_ef_construction=4,
            hnsw_ef_search=5,
            pq_subquantizers=6,
            lsh_bits=7,
            refine_factor=8,
            cagra_degree=9,
        ),
        source=index_pb2.LanceSource(
            uri="/data/web.lance",
            id_column="i",
            vector_column="v",
            text_column="t",
            uri_column="u",
            metadata_column="m",
        ),
    )


def test_an_ordinary_pool_has_no_source_and_no_graph(fakes, cli):
    assert cli("pool", "create", "p", "--dimension", "8").code == 0
    spec = fakes.index.pools["p"].spec
    assert not spec.HasField("source")
    assert spec.neighbor_graph.kind == index_pb2.NEIGHBOR_GRAPH_KIND_NONE


def test_pool_show_says_how_a_pool_is_searched_and_what_it_is_called(fakes, cli):
    assert cli("pool", "create", "p", "--dimension", "8", "--graph", "full", "--from-lance", "/data/x.lance").code == 0
    pool = fakes.index.pools["p"]
    pool.engine, pool.engine_reason, pool.recall, pool.building = "hnsw", "80,000 items", 0.9671, "ivf_flat"
    pool.graph_items, pool.read_only = 1234, True
    pool.aliases.extend(["one", "two"])
    outcome = cli("pool", "show", "p")
    for words in (
        "hnsw on cpu (80,000 items)",
        "0.967 of the true 100 neighbours found",
        "ivf_flat",
        "full, of 1,234 items",
        "one, two",
        "(read-only)",
        "Lance data set /data/x.lance",
    ):
        assert words in outcome.out
    assert json.loads(cli("pool", "show", "p", "--json").out)["aliases"] == ["one", "two"]


def test_a_pool_that_is_being_read_says_how_far(fakes, cli):
    assert cli("pool", "create", "p", "--dimension", "8").code == 0
    fakes.index.pools["p"].state = index_pb2.POOL_STATE_LOADING
    fakes.index.pools["p"].loaded_share = 0.25
    assert "loading, 25.0 % read" in cli("pool", "show", "p").out


def test_a_learner_that_goes_away_leaves_the_job_and_the_command_says_how_to_see_it(fakes, cli):
    outcome = cli("pool", "reembed", "p", "q", "--encoder", "e")
    assert outcome.code == 1
    assert "the job goes on once the learner is back" in outcome.err
    assert "`sealpool pool reembedding watch j1`" in outcome.err


def test_snapshot_and_restore_name_pool_and_place(fakes, cli):
    assert "1,200 items of p, 3.0 MiB, in /backups/p" in cli("pool", "snapshot", "p", "/backups/p").out
    assert "made pool q with 1,200 items" in cli("pool", "restore", "s3://b/p", "--name", "q").out
    assert json.loads(cli("pool", "restore", "s3://b/p", "--json").out)["spec"]["name"] == "old"
    snapshot, *restores = fakes.index.requests
    assert (snapshot.pool, snapshot.uri) == ("p", "/backups/p")
    assert [(one.uri, one.name) for one in restores] == [("s3://b/p", "q"), ("s3://b/p", "")]


def test_an_alias_is_set_moved_and_deleted(fakes, cli):
    assert cli("pool", "alias", "set", "news", "news@1").out == "news stands for news@1\n"
    assert cli("pool", "alias", "set", "news", "news@2").out == "news stands for news@2, before for news@1\n"
    assert fakes.index.aliases == {"news": "news@2"}
    assert cli("pool", "alias", "delete", "news").code == 0
    assert fakes.index.aliases == {}
    assert cli("pool", "alias", "delete", "news").err == "error: no such alias: 'news'\n"


def test_why_names_what_brought_each_item(fakes, cli):
    fakes.index.reasons = [
        index_pb2.CandidateReason(
            id="a", state=index_pb2.CANDIDATE_STATE_CANDIDATE, source_id="seed", score=0.91234, version=1200
        ),
        index_pb2.CandidateReason(id="b", state=index_pb2.CANDIDATE_STATE_OUTSIDE, score=float("nan")),
    ]
    lines = [line.split() for line in cli("pool", "why", "p", "c", "a", "b").out.splitlines()]
    assert ["a", "candidate", "seed", "0.9123", "1,200"] in lines
    assert ["b", "outside:", "never", "was", "one", "–", "–", "–"] in lines
    (request,) = fakes.index.requests
    assert (request.pool, request.campaign, list(request.ids)) == ("p", "c", ["a", "b"])
    items = json.loads(cli("pool", "why", "p", "c", "a", "b", "--json").out)["items"]
    assert (items[0]["state"], items[1]["score"]) == ("candidate", None)


def test_reach_says_whether_it_is_an_estimate(fakes, cli):
    fakes.index.reach = index_pb2.GetReachabilityResponse(reachable_share=0.5, standard_error=0.01, k=50)
    outcome = cli("pool", "reach", "p", "c", "--k", "50", "--seed", "3")
    assert outcome.out == "c can reach 50.0 % ± 1.0 % (standard error) of p with k = 50\n"
    (request,) = fakes.index.requests
    assert (request.pool, request.campaign, request.k, request.seed) == ("p", "c", 50, 3)
    fakes.index.reach = index_pb2.GetReachabilityResponse(reachable_share=0.5, exact=True, k=100)
    assert cli("pool", "reach", "p", "c").out == "c can reach 50.0 % of p with k = 100\n"


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        (("--policy", "anchoral", "--anchors", "4", "--subpool-size", "300", "--k", "20", "--seed", "9"),
         {"name": "anchoral", "anchors": 4, "subpool_size": 300, "k": 20, "seed": 9},
         "anchoral (300 items, 4 anchors a class, k = 20)"),
        (("--policy", "random_subset", "--seed", "9"), {"name": "random_subset", "seed": 9},
         "random_subset (1,000 items)"),
        (("--seed", "9", "--max-candidates", "5000"), {"name": "seals", "max_candidates": 5000},
         "seals (k = 100, at most 5,000)"),
    ],
)  # fmt: skip
def test_a_campaign_is_told_its_policy_and_says_it(fakes, cli, options, expected, words):
    assert cli("campaign", "create", "c", *TWO_CLASSES, *options).code == 0
    policy = fakes.scheduler.campaigns["c"].spec.policy
    assert policy == common_pb2.PolicySpec(growth=common_pb2.CANDIDATE_GROWTH_ROUND, **expected)
    assert words in cli("campaign", "show", "c").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("pool", "create", "p", "--dimension", "8", "--engine", "annoy"),
        ("pool", "create", "p", "--dimension", "8", "--min-recall", "2"),
        ("pool", "create", "p", "--dimension", "8", "--graph-neighbors", "50"),
        ("pool", "create", "p", "--dimension", "8", "--text-column", "t"),
        ("pool", "alias", "set", "news"),
        ("pool", "why", "p", "c"),
        ("campaign", "create", "c", *TWO_CLASSES, "--growth", "hourly"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_line_with_exit_code_2(fakes, cli, arguments):
    outcome = cli(*arguments)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert fakes.index.pools == {}
