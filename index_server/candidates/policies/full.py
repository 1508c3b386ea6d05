"""`full`: every unlabelled item is a candidate. The baseline that SEALS is measured against."""

import numpy as np

from index_server.ports import Growth, Neighbourhood, PolicyOptions, Proposal


class FullPolicy:
    """All items, those too that came after the campaign began."""

    name = "full"
    defaults = PolicyOptions()
    options: frozenset[str] = frozenset()
    needs_labels = False

    def propose(self, neighbourhood: Neighbourhood, growth: Growth) -> Proposal:  # noqa: ARG002 - of no matter here
        """Return all items in the pool's order."""
        rows = neighbourhood.live_rows()
        return Proposal(rows=rows, sources=np.full_like(rows, -1), scores=np.full(len(rows), np.nan, np.float32))
