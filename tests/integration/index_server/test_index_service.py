"""What the index service promises, over gRPC."""

import os
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import generate_latest

from index_server.store.directory import PoolDirectory
from sealpool.errors import FailedPrecondition
from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import common_pb2 as common
from sealpool.v1 import index_pb2 as pb
from tests.integration.index_server.conftest import start
from tests.support.metrics_pages import documented, sampled

DIMENSION = 8
IDS = [f"i{number}" for number in range(150)]
VECTORS = np.random.default_rng(0).standard_normal((150, DIMENSION)).astype(np.float32)
SEALS = common.PolicySpec(name="seals", k=5)


def upsert(stub, ids, vectors, texts=(), pool="p"):
    batch = common.ItemBatch(ids=ids, vectors=to_matrix(np.asarray(vectors, np.float32)))
    batch.payloads.texts.extend(texts)
    return stub.Upsert(iter([pb.UpsertRequest(pool=pool, items=batch, last=True)]))


def make(stub, name="p", **fields):
    stub.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name=name, dimension=DIMENSION, **fields)))
    upsert(stub, IDS, VECTORS, pool=name)


def expand(stub, labelled=(), expand_from=None, held=0, **fields):
    request = pb.ExpandCandidatesRequest(
        **{"pool": "p", "campaign": "c", "policy": SEALS, **fields},
        labelled_ids=labelled,
        expand_from_ids=labelled if expand_from is None else expand_from,
        held_version=held,
        include_vectors=True,
    )
    answer = list(stub.ExpandCandidates(request))
    added = [item_id for part in answer for item_id in part.added.ids]
    removed = [item_id for part in answer for item_id in part.removed.ids]
    return added, removed, answer[-1].summary


def search(stub, **fields):
    return stub.Search(pb.SearchRequest(pool="p", **fields))


def code_of(caught):
    return caught.value.code()


@pytest.mark.parametrize("metric", [pb.METRIC_COSINE, pb.METRIC_INNER_PRODUCT, pb.METRIC_L2])
@pytest.mark.parametrize("engine", ["flat", "ivf_flat", "hnsw"])
def test_search_agrees_with_numpy(stub, metric, engine):
    make(stub, metric=metric, engine=engine, options=pb.EngineOptions(ivf_lists=2))
    answer = search(stub, ids=["i0", "i7"], k=5, exclude=["i3", "unknown"])
    assert list(answer.counts) == [5, 5]
    for query, position in enumerate((0, 7)):
        one, others = VECTORS[position].astype(float), VECTORS.astype(float)
        if metric == pb.METRIC_L2:
            scores, sign = np.linalg.norm(others - one, axis=1), 1
        else:
            scores, sign = others @ one, -1
            if metric == pb.METRIC_COSINE:
                scores = scores / np.linalg.norm(others, axis=1) / np.linalg.norm(one)
        order = [row for row in np.argsort(sign * scores) if row not in (position, 3)][:5]
        assert list(answer.ids[query * 5 : query * 5 + 5]) == [IDS[row] for row in order]
        got = from_matrix(answer.scores)[query * 5 : query * 5 + 5, 0]
        np.testing.assert_allclose(got, scores[order], rtol=1e-5, atol=1e-6)


def test_an_item_is_dropped_from_its_own_answer_by_id_also_among_its_twins(stub):
    make(stub)
    upsert(stub, [f"twin{n}" for n in range(40)], np.tile(VECTORS[0], (40, 1)))
    answer = search(stub, ids=["twin39"], k=40)
    assert list(answer.ids) == ["i0", *(f"twin{n}" for n in range(39))]
    assert len(set(from_matrix(answer.scores)[:, 0].tolist())) == 1
    assert list(search(stub, ids=["twin39"], k=3).ids) == ["i0", "twin0", "twin1"]


def test_get_items_keeps_the_order_and_cuts_large_answers(stub):
    make(stub)
    upsert(stub, IDS[:9], VECTORS[:9] * 2, texts=["x" * 900_000] * 9)
    request = pb.GetItemsRequest(
        pool="p", ids=["i8", "none", *IDS[:8]], include_vectors=True, include_payloads=True, allow_missing=True
    )
    parts = list(stub.GetItems(request))
    assert [item_id for part in parts for item_id in part.items.ids] == ["i8", *IDS[:8]]
    assert all(part.ByteSize() < 4 << 20 for part in parts)
    np.testing.assert_array_equal(from_matrix(parts[0].items.vectors)[0], VECTORS[8] * 2)


def test_expansion_gives_only_what_is_new_and_is_idempotent(stub):
    make(stub)
    added, removed, summary = expand(stub, ["i0", "i1"], expand_from=["i0"])
    expected = [i for i in search(stub, ids=["i0"], k=5).ids if i != "i1"]
    assert (added, removed) == (expected, [])
    assert (summary.info.version, summary.base_version) == (1, 0)
    first = added[0]
    again = expand(stub, ["i0", "i1"], expand_from=["i0"])
    assert again[0] == added
    assert again[2].info == summary.info
    added, removed, summary = expand(stub, [first], held=1)
    assert removed == [first]
    assert summary.base_version == 1
    assert expand(stub, [first], held=1)[:2] == (added, removed)
    assert expand(stub, held=2)[:2] == ([], [])


def test_the_candidates_do_not_depend_on_how_labels_were_divided(stub):
    make(stub)
    at_once = set(expand(stub, IDS[:6])[0])
    for item_id in IDS[:6]:
        expand(stub, [item_id], campaign="other")
    assert set(expand(stub, campaign="other")[0]) == at_once


def test_replaced_items_come_again_deleted_ones_leave_and_labelled_ones_stay_out(stub):
    make(stub)
    added, _, summary = expand(stub, ["i0"])
    upsert(stub, [added[0], "i0"], VECTORS[100:102])
    stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=[added[1]]))
    again, removed, summary = expand(stub, held=summary.info.version)
    assert (again, removed) == ([added[0]], [added[1]])
    upsert(stub, [added[1]], VECTORS[:1])
    assert expand(stub, held=summary.info.version)[:2] == ([], [])
    everything = expand(stub, ["i9"], policy=common.PolicySpec(name="seals", k=45))[0]
    assert not {"i0", "i9"} & set(everything)


def test_an_item_told_without_being_expanded_can_be_expanded_later_and_once(server):
    make(server.stub)
    added, _, summary = expand(server.stub, ["i0", "i1"], expand_from=["i0"])
    new, removed, second = expand(server.stub, ["i1"], held=summary.info.version)
    expected = [i for i in search(server.stub, ids=["i1"], k=5).ids if i not in {"i0", *added}]
    assert (new, removed) == (expected, [])
    assert second.info.version == 2
    # Again, also after a restart: the same answer, and no new version.
    assert expand(server.stub, ["i1"], held=1)[0] == new
    server.restart()
    again, _, third = expand(server.stub, ["i0", "i1"], held=1)
    assert (again, third.info) == (new, second.info)
    # Once expanded it is not expanded again, whatever k.
    assert expand(server.stub, ["i1"], held=2, policy=common.PolicySpec(name="seals", k=30))[:2] == ([], [])


def test_a_deleted_item_can_not_be_expanded_unless_it_was(stub):
    make(stub)
    _, _, before = expand(stub, ["i0", "i1"], expand_from=["i0"])
    stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=["i0", "i1"]))
    with pytest.raises(grpc.RpcError, match="i1") as caught:
        expand(stub, ["i0", "i1", "i2"])
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    _, _, after = expand(stub, ["i0"], held=before.info.version)
    assert after.info == common.CandidatePoolInfo(version=1, size=5, pool_share=5 / 148, labelled=2)


def test_every_query_of_an_empty_pool_finds_nothing(stub):
    stub.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name="p", dimension=DIMENSION)))
    answer = search(stub, vectors=to_matrix(VECTORS[:3]), k=5)
    assert (list(answer.counts), list(answer.ids), answer.scores.rows) == ([0, 0, 0], [], 0)


DROPPING = """
import sys, time
import grpc
import numpy as np
from sealpool.matrix import to_matrix
from sealpool.v1 import common_pb2 as common, index_pb2 as pb, index_pb2_grpc

def dropped(turn):
    for part in "abc":
        batch = common.ItemBatch(ids=[part + str(turn)], vectors=to_matrix(np.ones((1, 8), np.float32)))
        yield pb.UpsertRequest(pool="p", items=batch)
    time.sleep(0.03)  # nothing tells when the server waits for more
    raise ConnectionError

for turn in range(25):
    with grpc.insecure_channel(sys.argv[1]) as channel:
        try:
            index_pb2_grpc.IndexServiceStub(channel).Upsert(dropped(turn))
        except grpc.RpcError:
            print("dropped")
"""


def test_a_stream_that_its_caller_lets_drop_is_no_change(server):
    # From another process: within one, gRPC tells the server of the drop before it ends the stream.
    make(server.stub)
    done = subprocess.run(
        [sys.executable, "-c", DROPPING, server.running.address],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout == "dropped\n" * 25, done.stderr
    upsert(server.stub, ["whole"], VECTORS[:1])  # whose turn comes after theirs
    assert server.stub.GetPool(pb.GetPoolRequest(name="p")).pool.size == len(IDS) + 1


def test_a_pool_deleted_under_an_upload_is_gone_and_its_name_is_free(server):
    make(server.stub)
    taken, deleted = threading.Event(), threading.Event()

    def parts():
        yield pb.UpsertRequest(pool="p", items=common.ItemBatch(ids=["a"], vectors=to_matrix(VECTORS[:1])))
        yield pb.UpsertRequest(items=common.ItemBatch(ids=["b"], vectors=to_matrix(VECTORS[:1])), last=True)
        taken.set()
        assert deleted.wait(20)

    call = server.stub.Upsert.future(parts())
    assert taken.wait(20)
    while not server.calls_in_progress("Upsert"):
        pass
    server.stub.DeletePool(pb.DeletePoolRequest(name="p"))
    deleted.set()
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert not list((server.data_dir / "pools").iterdir())
    make(server.stub)


def test_a_deleted_label_is_passed_over(stub):
    make(stub)
    stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=["i5"]))
    added, _, _ = expand(stub, ["i5", "i0"], expand_from=["i0"])
    assert len(added) == 5


def test_full_holds_all_unlabelled_items_those_that_come_later_too(server):
    server.restart(max_candidates=1000)
    make(server.stub)
    full = common.PolicySpec(name="full")
    added, _, summary = expand(server.stub, ["i0"], policy=full)
    assert added == IDS[1:]
    upsert(server.stub, ["late"], VECTORS[:1])
    assert expand(server.stub, policy=full, held=summary.info.version)[0] == ["late"]


def test_versions_never_go_back_after_a_drop(stub):
    make(stub)
    expand(stub, ["i0"])
    _, _, before = expand(stub, ["i1"])
    assert stub.DropCandidates(pb.DropCandidatesRequest(pool="p", campaign="c")).dropped == before.info.size
    assert stub.DropCandidates(pb.DropCandidatesRequest(pool="p", campaign="c")).dropped == 0
    added, _, summary = expand(stub, ["i0"], held=before.info.version)
    assert summary.base_version == 0
    assert summary.info.version > before.info.version
    assert len(added) == 5


def test_a_candidate_pool_that_ran_empty_goes_on(stub):
    make(stub)
    added, _, _ = expand(stub, ["i0"])
    _, removed, summary = expand(stub, added, expand_from=[], held=1)
    assert (sorted(removed), summary.info.size) == (sorted(added), 0)
    _, _, summary = expand(stub, ["i1"], held=2)
    assert (summary.info.version, summary.info.labelled) == (3, 7)


def test_everything_is_the_same_after_a_restart(server):
    make(server.stub, dtype=common.DTYPE_FLOAT16)
    upsert(server.stub, IDS[3:9], VECTORS[:6] + 1)
    server.stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=IDS[20:30]))
    expand(server.stub, ["i0", "i4"])

    def look():
        stub = server.stub
        _, _, summary = expand(stub)
        sample = stub.SampleItems(pb.SampleItemsRequest(pool="p", campaign="c", count=20, seed=4))
        scan = list(stub.ScanItems(pb.ScanItemsRequest(pool="p", include_vectors=True, include_payloads=True)))
        listed = list(stub.ListCandidates(pb.ListCandidatesRequest(pool="p", campaign="c", include_vectors=True)))
        direction = from_matrix(summary.pool_direction).tolist()
        return stub.GetPool(pb.GetPoolRequest(name="p")).pool.version, sample, scan, listed, direction

    before = look()
    server.restart()
    assert look() == before


def test_ivf_flat_is_exact_until_trained_and_searches_the_same_after_a_restart(server):
    options = pb.EngineOptions(ivf_lists=8, ivf_probes=1)
    make(server.stub, engine="ivf_flat", options=options)
    pool = server.stub.GetPool(pb.GetPoolRequest(name="p")).pool
    assert pool.engine == "flat"
    assert "312" in pool.engine_reason
    more = np.random.default_rng(1).standard_normal((300, DIMENSION))
    upsert(server.stub, [f"m{n}" for n in range(300)], more)
    assert server.wait_for_engine("p", "ivf_flat").recall >= 0.95
    # Few enough lists are looked into for the clustering to matter.
    before = search(server.stub, ids=IDS[:15], k=20)
    upsert(server.stub, ["late"], VECTORS[:1])
    server.stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=["late"]))
    server.restart()
    assert search(server.stub, ids=IDS[:15], k=20).ids == before.ids


def test_auto_leaves_exact_search_above_its_limit(server):
    server.restart(flat_items=100)
    make(server.stub, options=pb.EngineOptions(ivf_lists=2))
    pool = server.wait_for_engine("p", "ivf_flat")
    assert pool.device == "cpu"
    assert "100" in pool.engine_reason


def test_a_broken_pool_does_not_stop_the_others(server):
    make(server.stub)
    make(server.stub, name="broken")
    data = server.data_dir / "pools" / "broken" / "items.lance" / "data"
    server.stop()
    for path in data.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    server.restart()
    pools = {pool.spec.name: pool for pool in server.stub.ListPools(pb.ListPoolsRequest()).pools}
    assert pools["p"].state == pb.POOL_STATE_READY
    assert pools["broken"].state == pb.POOL_STATE_FAILED
    assert pools["broken"].engine_reason
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Search(pb.SearchRequest(pool="broken", ids=["i0"], k=1))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    server.stub.DeletePool(pb.DeletePoolRequest(name="broken"))
    assert not data.exists()


def test_a_pool_that_cannot_be_read_is_seen_and_stops_neither_health_nor_the_others(server):
    make(server.stub)
    make(server.stub, name="broken")
    server.stop()
    (server.data_dir / "pools" / "broken" / "pool.json").write_text("{")
    server.restart()  # returns once health says SERVING
    upsert(server.stub, ["new"], VECTORS[:1])
    assert len(search(server.stub, ids=["new"], k=3).ids) == 3
    text = generate_latest(server.registry).decode()
    assert 'sealpool_index_server_pools{state="failed"} 1.0' in text
    assert 'sealpool_index_server_pools{state="ready"} 1.0' in text
    with pytest.raises(grpc.RpcError, match=r"pool\.json") as caught:
        upsert(server.stub, ["new"], VECTORS[:1], pool="broken")
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as caught:
        make(server.stub, name="broken")
    assert code_of(caught) is grpc.StatusCode.ALREADY_EXISTS
    server.stub.DeletePool(pb.DeletePoolRequest(name="broken"))
    make(server.stub, name="broken")


def test_a_pool_that_is_being_read_is_shown_and_everything_else_is_unavailable(server):
    make(server.stub)
    pipe = server.data_dir / "pools" / "p" / "engine.state"
    server.stop()
    os.mkfifo(pipe)  # who reads it waits until somebody wrote
    running = server.started(wait=False)
    try:
        stub = running.stub
        assert stub.GetPool(pb.GetPoolRequest(name="p")).pool.state == pb.POOL_STATE_LOADING
        assert [pool.spec.name for pool in stub.ListPools(pb.ListPoolsRequest()).pools] == ["p"]
        assert running.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        calls = [
            lambda: upsert(stub, ["new"], VECTORS[:1]),
            lambda: stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=["i0"])),
            lambda: list(stub.GetItems(pb.GetItemsRequest(pool="p", ids=["i0"]))),
            lambda: list(stub.ScanItems(pb.ScanItemsRequest(pool="p"))),
            lambda: stub.SampleItems(pb.SampleItemsRequest(pool="p", count=1)),
            lambda: search(stub, ids=["i0"], k=1),
            lambda: expand(stub, ["i0"]),
            lambda: list(stub.ListCandidates(pb.ListCandidatesRequest(pool="p", campaign="c"))),
            lambda: stub.DropCandidates(pb.DropCandidatesRequest(pool="p", campaign="c")),
            lambda: stub.DeletePool(pb.DeletePoolRequest(name="p")),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError, match="being read") as caught:
                call()
            assert code_of(caught) is grpc.StatusCode.UNAVAILABLE
        make(stub, name="other")
    finally:
        pipe.write_bytes(b"")
    running.wait_until_serving()
    assert stub.GetPool(pb.GetPoolRequest(name="p")).pool.size == len(IDS)
    running.stop()


def test_a_torn_newest_manifest_is_forgotten_at_start(server):
    make(server.stub)
    before = server.stub.GetPool(pb.GetPoolRequest(name="p")).pool
    server.stop()
    versions = server.data_dir / "pools" / "p" / "items.lance" / "_versions"
    newest = min(versions.glob("*.manifest"))
    torn = versions / f"{int(newest.stem) - 1:020d}.manifest"
    torn.write_bytes(newest.read_bytes()[:30])
    server.restart()
    pool = server.stub.GetPool(pb.GetPoolRequest(name="p")).pool
    assert (pool.state, pool.version, pool.size) == (pb.POOL_STATE_READY, before.version, len(IDS))
    assert not torn.exists()
    upsert(server.stub, ["new"], VECTORS[:1])
    server.restart()
    assert server.stub.GetPool(pb.GetPoolRequest(name="p")).pool.size == len(IDS) + 1


def test_a_deleted_pool_is_gone_and_its_name_is_free(stub):
    make(stub)
    assert stub.DeletePool(pb.DeletePoolRequest(name="p")).size == 150
    make(stub)


def test_one_data_dir_has_one_owner(server):
    with pytest.raises(FailedPrecondition, match="locked"):
        PoolDirectory(server.data_dir)


def test_searches_expansions_and_changes_side_by_side(stub):
    make(stub)
    failures, stop = [], threading.Event()

    def search_on():
        while not stop.is_set():
            try:
                answer = search(stub, vectors=to_matrix(VECTORS[:4]), k=10)
                if len(set(answer.ids[:10])) != 10:
                    failures.append(list(answer.ids[:10]))
                list(stub.ScanItems(pb.ScanItemsRequest(pool="p", include_vectors=True)))
            except grpc.RpcError as error:
                failures.append(error)

    threads = [threading.Thread(target=search_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    held, members = 0, set()
    for turn in range(20):
        added, removed, summary = expand(stub, [IDS[turn]], held=held)
        members = (members - set(removed)) | set(added)
        held = summary.info.version
        upsert(stub, IDS[turn : turn + 30], VECTORS[turn : turn + 30] + 0.01 * turn)
        stub.DeleteItems(pb.DeleteItemsRequest(pool="p", ids=[IDS[100 + turn]]))
        members.discard(IDS[100 + turn])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    added, removed, summary = expand(stub, held=held)
    members = (members - set(removed)) | set(added)
    assert len(members) == summary.info.size
    assert members == set(expand(stub)[0])


def test_metrics_show_pools_and_campaigns(server):
    make(server.stub)
    expand(server.stub, ["i0"])
    text = generate_latest(server.registry).decode()
    for line in (
        'sealpool_index_server_pool_items{pool="p"} 150.0',
        'sealpool_index_server_candidate_pool_items{campaign="c",pool="p"} 5.0',
        'sealpool_index_server_candidates_added_total{campaign="c",pool="p"} 5.0',
        'sealpool_index_server_candidate_pool_limit_items{campaign="c",pool="p"} 60.0',
        'sealpool_index_server_index_recall_floor_ratio{pool="p"} 0.95',
        'sealpool_index_server_pools{state="ready"} 1.0',
        'sealpool_index_server_pools{state="failed"} 0.0',
    ):
        assert line in text


def test_every_documented_metric_is_on_the_page_of_a_server_with_a_campaign(tmp_path):
    server = start(tmp_path, metrics_listen="127.0.0.1:0", memory_limit_bytes=1 << 40)
    try:
        make(server.stub, device="cpu")
        expand(server.stub, ["i0"])
        server.stub.GetReachability(pb.GetReachabilityRequest(pool="p", campaign="c", k=5))
        missing = documented("index_server") - sampled(server.running.metrics_address)
    finally:
        server.stop()
    # No engine is on a GPU here, so there is none to tell of.
    assert missing - {"sealpool_index_server_gpu_memory_total_bytes"} == {"sealpool_index_server_gpu_memory_bytes"}
