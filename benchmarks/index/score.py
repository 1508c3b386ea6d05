"""ScoreCandidates over the whole pool, the honest competitor of a candidate pool, against ExpandCandidates."""

import grpc

from benchmarks.in_process import linear_scan
from benchmarks.index.expand import CLASSES, random_weights
from benchmarks.index.growing import Growth
from benchmarks.index.workbench import BATCH, Workbench
from benchmarks.report import Figure
from benchmarks.server import open_stub
from benchmarks.statistics import median, recall, side_by_side
from sealpool.matrix import to_matrix
from sealpool.v1 import index_pb2


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure the entropy of a linear model over every item, and the best of them."""
    loaded = bench.gaussian()
    weights = random_weights(bench.options.dimension)
    request = index_pb2.ScoreCandidatesRequest(
        pool=loaded.name, scope=index_pb2.SCORE_SCOPE_POOL, weights=to_matrix(weights), strategy="entropy", count=BATCH
    )
    with open_stub(bench.server.address) as stub:
        try:
            served = stub.ScoreCandidates(request)
        except grpc.RpcError as error:
            figure.skip("ScoreCandidates", f"{error.code().name}: {error.details()}")
            return
        growth = Growth(bench.client, loaded, bench.options.repetitions)
        times = side_by_side(
            {
                "score": lambda _: stub.ScoreCandidates(request),
                "scan": lambda _: linear_scan(loaded.vectors, weights, BATCH),
                "expand": growth,
            },
            repetitions=bench.options.repetitions,
        )
    score, scan, expand = (median(times[key]) for key in ("score", "scan", "expand"))
    wanted = {loaded.ids[row] for row in linear_scan(loaded.vectors, weights, BATCH).tolist()}
    figure.add(f"ScoreCandidates over {served.scored:,} items, {CLASSES} classes, entropy", score, "s")
    figure.add(f"its best {BATCH} that are NumPy's best {BATCH}", recall(set(served.ids), wanted))
    figure.add("bytes of vectors looked at", loaded.vectors.nbytes / score / 1e9, "GB/s")
    figure.add("the same in process with NumPy", scan, "s")
    figure.add("in process / ScoreCandidates", scan / score, "×")
    figure.add("ExpandCandidates", expand, "s")
    figure.add("ScoreCandidates / ExpandCandidates", score / expand, "×")
