"""`seals`: the nearest neighbours of what was labelled (Coleman et al., AAAI 2022, arXiv 2007.00077)."""

import numpy as np

from index_server.candidates.policies.blocks import BLOCK_NEIGHBORS, nearest_in_blocks
from index_server.ports import Growth, Neighbourhood, PolicyOptions, Proposal


class SealsPolicy:
    """Each labelled item brings its k nearest neighbours in the whole pool.

    In the whole pool: labelled items and candidates among the k are not made up for by farther ones, so what comes in
    does not depend on the order in which labels were told. The cap `max_candidates` is the candidate pool's to keep.

    Parameters
    ----------
    block_neighbors
        Neighbours asked for at once. More is fewer searches and more memory.
    """

    name = "seals"
    defaults = PolicyOptions(k=100)
    options = frozenset({"k", "max_candidates"})
    needs_labels = False

    def __init__(self, *, block_neighbors: int = BLOCK_NEIGHBORS) -> None:
        self._block_neighbors = block_neighbors

    def propose(self, neighbourhood: Neighbourhood, growth: Growth) -> Proposal:
        """Return the neighbours of the first source, nearest first, then those of the second …, repetitions included.

        Scores are those of each neighbour with its source.
        """
        rows, sources, scores = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for block, neighbors, block_scores in nearest_in_blocks(
            neighbourhood, growth.sources, growth.options.k, block_neighbors=self._block_neighbors
        ):
            found = neighbors >= 0
            rows.append(neighbors[found])
            sources.append(np.broadcast_to(block[:, None], neighbors.shape)[found])
            scores.append(block_scores[found])
        return Proposal(rows=np.concatenate(rows), sources=np.concatenate(sources), scores=np.concatenate(scores))
