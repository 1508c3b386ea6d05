"""`seals`: the nearest neighbours of what was labelled (Coleman et al., AAAI 2022, arXiv 2007.00077)."""

from collections.abc import Iterable, Sequence
from itertools import chain

from index_server.ports import Neighbourhood
from sealpool.types import ItemId


class SealsPolicy:
    """Each labelled item brings its k nearest neighbours in the whole pool.

    In the whole pool: labelled items and candidates among the k are not made up for by farther ones, so what comes in
    does not depend on the order in which labels were told.
    """

    name = "seals"

    def propose(self, neighbourhood: Neighbourhood, expand_from: Sequence[ItemId], *, k: int) -> Iterable[ItemId]:
        """Return the neighbours of the first item, nearest first, then those of the second …."""
        return chain.from_iterable(neighbourhood.nearest(expand_from, k))
