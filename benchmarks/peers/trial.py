"""One peer measured, in its own environment: `python -m benchmarks.peers.trial PEER FOLDER`.

FOLDER has vectors.npy, ids.json, queries.npy (rows, a draw of labels a repetition) and exact.npy (the nearest rows of
the first draw); outcome.json is written there.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.port import Peer, Vectors
from benchmarks.statistics import median, quantile, recall, seconds, side_by_side

PEERS = {
    "sealpool": "SealpoolPeer",
    "milvus": "MilvusPeer",
    "milvus_lite": "MilvusLitePeer",
    "chroma": "ChromaPeer",
    "usearch": "UsearchPeer",
}
FLOOR = 0.95
NEIGHBORS = 100
SINGLE_NEIGHBORS = 10
_SINGLES = 200


def trial(peer: Peer, folder: Path) -> dict[str, Any]:
    """Return everything that is measured of one peer."""
    vectors: Vectors = np.load(folder / "vectors.npy")
    ids: list[str] = json.loads((folder / "ids.json").read_text())
    draws, exact = np.load(folder / "queries.npy"), np.load(folder / "exact.npy")
    outcome: dict[str, Any] = {"about": peer.start(folder, vectors.shape[1])}
    try:
        outcome |= _ingest(peer, ids, vectors)
        outcome |= _tune(peer, ids, vectors, draws[0], exact)
        outcome |= _searches(peer, ids, vectors, draws)
    finally:
        peer.close()
    return outcome


def _ingest(peer: Peer, ids: Sequence[str], vectors: Vectors) -> dict[str, Any]:
    kept = []
    ingest_s = seconds(lambda: kept.append(peer.ingest(ids, vectors)))
    return {"ingest_s": ingest_s, "kept": kept[0], "build_s": peer.build()}


def _tune(peer: Peer, ids: list[str], vectors: Vectors, rows: Any, exact: Any) -> dict[str, Any]:
    """Take the least effort that finds FLOOR of the true neighbours, or the last one there is."""
    share, taken = 0.0, 0
    for taken in peer.efforts:
        peer.tune(taken)
        found = peer.search(vectors[rows], NEIGHBORS + 1, ())
        wanted = [{ids[row] for row in some} for some in exact.tolist()]
        share = float(np.mean([recall(set(some), all_) for some, all_ in zip(found, wanted, strict=True)]))
        if share >= FLOOR:
            break
    return {"recall": share, "effort": f"{peer.effort_name} {taken}" if taken else peer.effort_name}


def _searches(peer: Peer, ids: list[str], vectors: Vectors, draws: Any) -> dict[str, Any]:
    singles = draws.ravel()[:_SINGLES]
    single_s = side_by_side(
        {"single": lambda i: peer.search(vectors[[singles[i]]], SINGLE_NEIGHBORS, ())},
        repetitions=len(singles),
        warm_ups=len(singles) // 10,
    )["single"]
    names = [[ids[row] for row in rows] for rows in draws]
    added: list[int] = []
    works: dict[str, Callable[[int], object]] = {
        "batch": lambda i: peer.search(vectors[draws[i]], NEIGHBORS, names[i]),
        "expand": lambda i: added.append(len(peer.expand(names[i], vectors[draws[i]], NEIGHBORS)[0])),
    }
    times = side_by_side(works, repetitions=len(draws) - 1)
    return {
        "single_p50_s": median(single_s),
        "single_p99_s": quantile(single_s, 0.99),
        "batch_s": median(times["batch"]),
        "expand_s": median(times["expand"]),
        "added": median(added),
    }


def main(name: str, folder: Path) -> int:
    """Write the outcome, or the reason why there is none; the last line of what went wrong."""
    module = import_module(f"benchmarks.peers.{name}")
    try:
        outcome = trial(getattr(module, PEERS[name])(), folder)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is why it has no figures
        traceback.print_exc()
        outcome = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    (folder / "outcome.json").write_text(json.dumps(outcome))
    sys.stdout.flush()
    # Some leave threads behind that do not end.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
