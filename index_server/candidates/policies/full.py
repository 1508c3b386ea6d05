"""`full`: every unlabelled item is a candidate. The baseline that SEALS is measured against."""

from collections.abc import Iterable, Sequence

from index_server.ports import Neighbourhood
from sealpool.types import ItemId


class FullPolicy:
    """All items, those too that came after the campaign began."""

    name = "full"

    def propose(
        self,
        neighbourhood: Neighbourhood,
        expand_from: Sequence[ItemId],  # noqa: ARG002 - of no matter here
        *,
        k: int,  # noqa: ARG002
    ) -> Iterable[ItemId]:
        """Return all items in the pool's order."""
        return neighbourhood.item_ids()
