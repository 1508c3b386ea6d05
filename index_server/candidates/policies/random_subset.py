"""`random_subset`: a few unlabelled items, drawn anew with each growth. The baseline for `anchoral`."""

import numpy as np

from index_server.ports import Growth, Neighbourhood, PolicyOptions, Proposal


class RandomSubsetPolicy:
    """`subpool_size` unlabelled items drawn uniformly, or all where there are fewer, in place of those before.

    What is drawn follows from the pool's order, the labelled items, the seed and the version of the candidate pool.
    """

    name = "random_subset"
    defaults = PolicyOptions(subpool_size=1000)
    options = frozenset({"subpool_size", "seed"})
    needs_labels = False

    def propose(self, neighbourhood: Neighbourhood, growth: Growth) -> Proposal:
        """Return the items drawn, in the pool's order."""
        live = neighbourhood.live_rows()
        unlabelled = live[~np.isin(live, growth.labelled)]
        size = min(growth.options.subpool_size, len(unlabelled))
        rng = np.random.default_rng([growth.options.seed, growth.draw])
        rows = unlabelled[np.sort(rng.choice(len(unlabelled), size, replace=False, shuffle=False))]
        return Proposal(
            rows=rows, sources=np.full_like(rows, -1), scores=np.full(size, np.nan, np.float32), replaces=True
        )
