"""What the service costs beside FAISS: throughput of Search over that of the same index in this process."""

from collections.abc import Callable

import grpc

from benchmarks.data import draws
from benchmarks.in_process import exact_neighbors, like_the_server
from benchmarks.index.workbench import NEIGHBORS, LoadedPool, Workbench
from benchmarks.report import Figure, at_least
from benchmarks.server import open_stub
from benchmarks.statistics import median, recall, side_by_side
from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import index_pb2

_BATCHES = (100, 1000)
_MOST_VECTORS = 20_000
"""Neighbours whose vectors are asked for in one answer: 20 MB of 256 float32."""


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure batches of queries that are items of the pool."""
    loaded = bench.gaussian()
    index = like_the_server(loaded.pool.engine, loaded.vectors)
    figure.add("engine on both sides", loaded.pool.engine)
    _add_recalls(bench, figure, loaded, index)
    for batch in _BATCHES:
        _measure_batch(bench, figure, loaded, index, min(batch, len(loaded.ids)))


def _measure_batch(bench: Workbench, figure: Figure, loaded: LoadedPool, index: object, batch: int) -> None:
    repetitions = bench.options.repetitions
    queries = [loaded.vectors[rows] for rows in draws(len(loaded.ids), batch, repetitions + 1)]
    works: dict[str, Callable[[int], object]] = {
        "served": lambda i: bench.client.search(loaded.name, k=NEIGHBORS, vectors=queries[i]),
        "in process": lambda i: loaded.vectors[index.search(queries[i], NEIGHBORS)[1]],  # type: ignore[attr-defined]
        "search alone": lambda i: index.search(queries[i], NEIGHBORS),  # type: ignore[attr-defined]
    }
    with open_stub(bench.server.address) as stub:

        def with_vectors(repetition: int) -> int:
            request = index_pb2.SearchRequest(
                pool=loaded.name, k=NEIGHBORS, vectors=to_matrix(queries[repetition]), include_vectors=True
            )
            answer = stub.Search(request)
            return len(from_matrix(answer.vectors)) if answer.HasField("vectors") else 0

        if batch * NEIGHBORS <= _MOST_VECTORS and _serves_vectors(with_vectors):
            works["with vectors"] = with_vectors
        times = {name: median(some) for name, some in side_by_side(works, repetitions=repetitions).items()}
    figure.add(f"batch of {batch:,}, Search over gRPC, ids and scores", batch / times["served"], "queries/s")
    figure.add(f"batch of {batch:,}, FAISS and gather in process", batch / times["in process"], "queries/s")
    ratio = times["in process"] / times["served"]
    figure.add(f"batch of {batch:,}, gRPC / in process", ratio, "×", at_least(0.85))
    figure.add(f"batch of {batch:,}, gRPC / FAISS without gather", times["search alone"] / times["served"], "×")
    if "with vectors" in times:
        ratio = times["in process"] / times["with vectors"]
        figure.add(f"batch of {batch:,}, gRPC with the neighbours' vectors / in process", ratio, "×")
    elif batch * NEIGHBORS <= _MOST_VECTORS:
        figure.skip(f"batch of {batch:,}, with the neighbours' vectors", "the server sends none with Search")


def _serves_vectors(search: Callable[[int], int]) -> bool:
    try:
        return search(-1) > 0
    except grpc.RpcError:
        return False


def _add_recalls(bench: Workbench, figure: Figure, loaded: LoadedPool, index: object) -> None:
    """Say that both sides find the same: speed at another recall would be no comparison."""
    rows = draws(len(loaded.ids), 100, 1, seed=3)[0]
    wanted = exact_neighbors(loaded.exact, loaded.vectors, rows, NEIGHBORS - 1)
    _, here = index.search(loaded.vectors[rows], NEIGHBORS)  # type: ignore[attr-defined]
    answer = bench.client.search(loaded.name, k=NEIGHBORS, vectors=loaded.vectors[rows])
    there = [loaded.row_of[item_id] for item_id in answer.ids]
    served = [there[start : start + NEIGHBORS] for start in range(0, len(there), NEIGHBORS)]
    figure.add("recall over gRPC", _mean_recall(served, wanted.tolist()))
    figure.add("recall in process", _mean_recall(here.tolist(), wanted.tolist()))


def _mean_recall(found: list[list[int]], wanted: list[list[int]]) -> float:
    shares = [recall(set(map(str, some)), set(map(str, all_))) for some, all_ in zip(found, wanted, strict=True)]
    return sum(shares) / len(shares)
