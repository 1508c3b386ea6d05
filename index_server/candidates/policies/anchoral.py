"""`anchoral`: a small sub-pool near a few labelled items of each class, chosen anew with each growth."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index_server.candidates.policies.blocks import nearest_in_blocks
from index_server.candidates.policies.kmeans import seed_positions
from index_server.ports import Growth, Neighbourhood, PolicyOptions, Proposal, Rows
from index_server.spec import Metric
from sealpool.errors import InvalidArgument


class AnchoralPolicy:
    """The unlabelled items nearest, by mean similarity, to anchors of every class, in place of those before.

    Lesci and Vlachos, "AnchorAL: Computationally Efficient Active Learning for Large and Imbalanced Datasets", NAACL
    2024, arXiv 2404.05623:

    1. Of each class up to `anchors` labelled items are drawn by k-means++ seeding. An item of several classes belongs
       to each of them, and is one anchor even if it was drawn for more than one.
    2. Each anchor retrieves its k nearest unlabelled items of the pool.
    3. An item's score is its mean similarity to the anchors that retrieved it, not to all: so the authors' code has
       it. An item near one anchor is thus not held against the anchors of other classes that are far from it.
    4. The `subpool_size` best are the candidate pool; of equal scores (float32) the earlier in the pool's order.

    Similarity is the pool's; under L2 it is the negative Euclidean distance, which like the authors' cosine ranks by
    mean distance.

    Anchors follow from the labelled items and their classes, in whatever order they were told, the seed and the version
    of the candidate pool, so that they change from round to round.
    """

    name = "anchoral"
    defaults = PolicyOptions(k=50, subpool_size=1000, anchors=10)
    options = frozenset({"k", "subpool_size", "anchors", "seed"})
    needs_labels = True

    def propose(self, neighbourhood: Neighbourhood, growth: Growth) -> Proposal:
        """Return the sub-pool, best first; the source of an item is its anchor where a single one retrieved it.

        Raises
        ------
        InvalidArgument
            The classes of a labelled item were not told.
        """
        anchors = choose_anchors(neighbourhood, growth)
        rows, sources, scores = _retrieve(neighbourhood, anchors, growth.labelled, growth.options.k)
        similarities = -scores if neighbourhood.metric is Metric.L2 else scores
        found, first, inverse, counts = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
        means = (np.bincount(inverse, weights=similarities, minlength=len(found)) / counts).astype(np.float32)
        best = np.lexsort((found, -means))[: growth.options.subpool_size]
        single = np.where(counts == 1, sources[first], -1)
        return Proposal(rows=found[best], sources=single[best], scores=means[best], replaces=True)


def choose_anchors(neighbourhood: Neighbourhood, growth: Growth) -> Rows:
    """Return the anchors of all classes, each once, in the pool's order: (a,) int64.

    Raises
    ------
    InvalidArgument
        The classes of a labelled item were not told.
    """
    chosen = [np.empty(0, np.int64)]
    for label, rows in _members(growth):
        rng = np.random.default_rng([growth.options.seed, growth.draw, label])
        chosen.append(rows[seed_positions(neighbourhood.vectors(rows), growth.options.anchors, rng)])
    return np.unique(np.concatenate(chosen))


def _members(growth: Growth) -> list[tuple[int, Rows]]:
    """Return each class with the rows of its labelled items, both ascending."""
    told = [labels for labels in growth.labels if labels is not None]
    untold = len(growth.labelled) - len(told)
    if untold:
        raise InvalidArgument(
            "label_counts",
            f"anchoral needs the classes of labelled items, and {untold:,} of {len(growth.labelled):,} are not told",
        )
    counts = np.fromiter(map(len, told), np.int64, len(told))
    labels = np.fromiter(chain.from_iterable(told), np.int64, int(counts.sum()))
    pairs = np.unique(np.stack([labels, np.repeat(growth.labelled, counts)]), axis=1)
    classes, starts = np.unique(pairs[0], return_index=True)
    return list(zip(classes.tolist(), np.split(pairs[1], starts[1:]), strict=True)) if len(classes) else []


def _retrieve(
    neighbourhood: Neighbourhood, anchors: Rows, labelled: Rows, k: int
) -> tuple[Rows, Rows, NDArray[np.float32]]:
    """Return each anchor's k nearest unlabelled items, the anchor of each, and its score."""
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    # Labelled items lie around anchors, so k neighbours may hold few others: those anchors ask for more. No anchor has
    # more than the labelled items in its way.
    pending, asked, enough = anchors, k, k + len(labelled)
    while len(pending):
        short = [np.empty(0, np.int64)]
        for block, neighbors, scores in nearest_in_blocks(neighbourhood, pending, asked):
            fits = (neighbors >= 0) & ~np.isin(neighbors, labelled)
            ready = (fits.sum(axis=1) >= k) | (neighbors[:, -1] < 0) | (asked >= enough)
            keep = fits & (fits.cumsum(axis=1) <= k) & ready[:, None]
            parts.append((neighbors[keep], np.broadcast_to(block[:, None], keep.shape)[keep], scores[keep]))
            short.append(block[~ready])
        pending, asked = np.concatenate(short), min(2 * asked, enough)
    rows, sources, found_scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, sources, found_scores
