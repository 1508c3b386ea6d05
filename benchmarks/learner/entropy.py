"""Entropy over every candidate, as a Select does it: predict, score, find the best, order them exactly."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.learner import peers
from benchmarks.learner.beside import Peer, add_beside
from benchmarks.learner.workbench import BATCH, CLASSES, Workbench, rows_of
from benchmarks.report import Figure, at_most
from benchmarks.statistics import median, recall, side_by_side
from sealpool.types import Vectors

_BLOCK_ROWS = 16_384


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure beside NumPy and beside peers."""
    items = bench.options.items
    ours, vectors = bench.picker("entropy", items), bench.vectors(items)
    head = bench.model.save()
    weights, bias = np.ascontiguousarray(head["weights"], np.float32), head["bias"].astype(np.float32)
    times = side_by_side(
        {
            "ours": ours,
            "softmax": lambda _: softmax_of(vectors, weights, bias),
            "best": lambda _: best_by_entropy(vectors, weights, bias),
        },
        repetitions=bench.options.repetitions,
    )
    base = median(times["softmax"])
    figure.add(
        f"{items:,} candidates × {vectors.shape[1]}, {CLASSES} classes, best {BATCH}", median(times["ours"]), "s"
    )
    figure.add("NumPy: a float32 matrix product and softmax, in blocks", base, "s")
    figure.add("ours / product and softmax", median(times["ours"]) / base, "×", bench.at_full_size(at_most(1.2)))
    figure.add(f"NumPy: the same, entropy, and the best {BATCH}", median(times["best"]), "s")
    wanted = {str(row) for row in best_by_entropy(vectors, weights, bias).tolist()}
    figure.add(f"our picks that are NumPy's best {BATCH}", recall({str(row) for row in rows_of(ours(0))}, wanted))
    few = min(bench.options.repetitions, 5)
    add_beside(
        bench,
        figure,
        f"{items:,} candidates",
        ours,
        [
            Peer(
                name=peers.SCIKIT_ACTIVEML,
                make=lambda: peers.scikit_activeml_entropy(bench, items),
                repetitions=few,
                bound=5,
            ),
            Peer(name=peers.MODAL, make=lambda: peers.modal_entropy(bench, items), repetitions=few, bound=1),
            Peer(
                name=f"{peers.SMALL_TEXT}'s LeastConfidence",
                make=lambda: peers.small_text_confidence(bench, items, "LeastConfidence"),
                repetitions=few,
            ),
        ],
    )
    _measure_small_text(bench, figure)


def _measure_small_text(bench: Workbench, figure: Figure) -> None:
    """Its entropy is a Python call an item: a tenth of the candidates, for both."""
    items = bench.share(100_000)
    peer = Peer(
        name=f"{peers.SMALL_TEXT}'s PredictionEntropy",
        make=lambda: peers.small_text_confidence(bench, items, "PredictionEntropy"),
        repetitions=1,
        bound=300,
    )
    add_beside(bench, figure, f"a tenth, {items:,} candidates", bench.picker("entropy", items), [peer])


def softmax_of(vectors: Vectors, weights: Vectors, bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities (n, c), computed in blocks that stay in the caches, which is faster than whole columns."""
    probabilities = np.empty((len(vectors), weights.shape[1]), np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS] @ weights
        block += bias
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        np.divide(block, block.sum(axis=1, keepdims=True), out=probabilities[start : start + len(block)])
    return probabilities


def best_by_entropy(vectors: Vectors, weights: Vectors, bias: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows (BATCH,) of the highest entropies."""
    entropies = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        p = softmax_of(vectors[start : start + _BLOCK_ROWS], weights, bias)
        entropies[start : start + len(p)] = -np.einsum("ij,ij->i", p, np.log(np.maximum(p, np.float32(1e-30))))
    return np.argsort(-entropies, kind="stable")[:BATCH]
